# SPDX-License-Identifier: Apache-2.0
"""Trainings of seconds on scenes: two epochs of four steps, for each task that has heads on a backbone."""

from src.config import load_config

_DETECTION = """
        task: detection
        detection: {scale: [64, 64], short_sides: [48, 64], max_boxes: 8, keep_empty: true, init_std: 0.05,
                    train_images: images/training, train_annotations: instances_training.json,
                    val_images: images/validation, val_annotations: instances_validation.json}
"""
# What is the task's own.
OF_HEADS = {
    "fpn": """
        task: segmentation
        segmentation: {scale: [64, 64], scale_range: [0.8, 1.2], class_names: class_names.txt}
    """,
    "retinanet": _DETECTION,
    "maskrcnn": _DETECTION,
}
CLASSES = {"fpn": 11, "retinanet": 10, "maskrcnn": 10}


def scene_config(head, scenes, folder, backbone="acmix_resnet26", options="{width: 8, depths: [1, 1, 1, 1]}"):
    """Return the `Config` of the training of a head on the data folder `scenes`, with the results in `folder`/run."""
    path = folder / f"{head}.yaml"
    path.write_text(
        f"""
        model: {{name: {backbone}, head: {head}, head_channels: 16, num_classes: {CLASSES[head]}, image_size: 64,
                 drop_path_rate: 0.1, options: {options}}}
        data: {{data_dir: {scenes}, batch_size: 2, num_workers: 2}}
        optimizer: {{lr: 0.05, lr_batch: 0, ema_decay: 0.9}}
        scheduler: {{warmup_epochs: 0}}
        train: {{epochs: 2, log_interval: 2, save_steps: 2}}
        output_dir: {folder / "run"}
        """
        + OF_HEADS[head]
    )
    return load_config(path)
