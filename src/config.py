# SPDX-License-Identifier: Apache-2.0
"""The settings of one experiment: what a YAML file in config/ may say, and the command line over it."""
# ruff: noqa: RUF009 (key and section return dataclass fields)

import dataclasses
from pathlib import Path

from src.errors import UserError
from src.image_size import sides
from src.recipe_checks import check_recipe, check_task
from src.schema import (
    ascending_pair,
    at_least,
    below,
    between,
    build,
    describe,
    each,
    each_of_two,
    flatten,
    key,
    listed_or,
    names,
    one_of,
    section,
    suggest,
    walk,
    zero_or_at_least,
)
from src.task_config import HEADS, DetectionConfig, SegmentationConfig
from src.yaml_file import parse_yaml, read_yaml, write_yaml

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    name: str = key(dataclasses.MISSING, "model to create, e.g. acmix_resnet26; with a head: the backbone")
    head: str = key(
        "",
        "of segmentation: Semantic FPN or UperNet; of detection: RetinaNet, Mask R-CNN or Cascade Mask R-CNN",
        one_of("", *sum(HEADS.values(), ())),
    )
    head_channels: int = key(
        0, "of its pyramid; 0: as published, 512 of upernet, 256 of the others", zero_or_at_least(8)
    )
    num_classes: int = key(1000, "number of classes", at_least(1))
    image_size: int | list[int] = key(
        224, "side of the square input, or its [height, width], pixels", each_of_two(at_least(1))
    )
    in_channels: int = key(3, "colour (3) or grey (1) input", one_of(1, 3))
    drop_path_rate: float = key(0.0, "stochastic depth of the last block", below(0, 1))
    options: dict = key({}, "further arguments of the model, e.g. {stem: small}")

    @property
    def size(self):
        """(H, W) of the input, pixels."""
        return sides(self.image_size)

    @property
    def title(self):
        """Its name: of its head, if it has one, and of what that stands on."""
        return f"{self.head}_{self.name}" if self.head else self.name


@dataclasses.dataclass(frozen=True)
class DataConfig:
    name: str = key(
        "image_folder",
        "data set; digits, and scenes for segmentation and detection, write themselves into data_dir; cifar10 and "
        "cifar100 are their binary files, mnist the IDX files of MNIST and its relatives",
        one_of("image_folder", "digits", "cifar10", "cifar100", "mnist", "scenes"),
    )
    data_dir: str = key(
        "", "folder with the train and val folders, as images or packed (scripts/create_mindrecord.py), or with files"
    )
    train_split: str = key(
        "train", "folder in data_dir to train on; of a CIFAR: train or test; of mnist: what its files begin with"
    )
    val_split: str = key("val", "folder in data_dir to evaluate on; of a CIFAR and mnist: as train_split")
    class_names: list[str] = key(
        [], "of mnist: names of the classes, by their labels 0, 1, ...; none: the labels", names()
    )
    train_limit: int = key(
        0, "training images of each class, the same for every seed, for small studies; 0: all", at_least(0)
    )
    damaged_list: str = key("", "file naming damaged images to leave out, made by --check_data; empty: they are errors")
    batch_size: int = key(32, "images per device and step", at_least(1))
    num_workers: int = key(0, "decoding threads per device; 0 or more than there are: all cores", at_least(0))
    crop_scale: list[float] = key([0.08, 1.0], "area of the random training crop, part of the image", ascending_pair(1))
    crop_ratio: list[float] = key(
        [0.75, 1.3333], "width / height of the random training crop, over that of the input", ascending_pair()
    )
    crop_padding: int = key(
        0, "instead of crop_scale: crop unscaled, from the image with so many black pixels around it", at_least(0)
    )
    interpolation: str = key(
        "bilinear", "how images are resized, antialiased as Pillow does it", one_of("bilinear", "bicubic")
    )
    orientation: str = key(
        "ignore",
        "EXIF orientation of images: ignored, as published evaluations do, or applied",
        one_of("ignore", "apply"),
    )
    hflip: float = key(0.5, "probability of a horizontal flip in training", between(0, 1))
    randaugment: int = key(0, "strength of two random colour or shape changes in training; 0: none", between(0, 10))
    random_erasing: float = key(0.0, "probability of noise in a rectangle of a training image", between(0, 1))
    mixup: float = key(0.0, "alpha of mixup, blending two training images; 0: none", at_least(0))
    cutmix: float = key(
        0.0, "alpha of cutmix, pasting one into another; with mixup: either by chance; 0: none", at_least(0)
    )
    resize: int = key(
        0,
        "shorter side before the centre crop in evaluation (of a rectangle: that the image covers); 0: that of "
        "image_size * 256/224; with crop_padding also less than image_size: black pixels around it",
        at_least(0),
    )
    mean: list[float] = key(IMAGENET_MEAN, "mean of each channel, pixels in 0..1", each(between(0, 1)))
    std: list[float] = key(IMAGENET_STD, "standard deviation of each channel, pixels in 0..1", each(between(1e-4, 1)))


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    name: str = key(
        "momentum",
        "momentum: SGD; adamw: Adam with decoupled weight decay; lamb: that by layer",
        one_of("momentum", "adamw", "lamb"),
    )
    lr: float = key(0.1, "peak learning rate for lr_batch images a step", at_least(0))
    lr_batch: int = key(256, "images a step, over all devices, that lr is meant for; 0: lr as given", at_least(0))
    momentum: float = key(0.9, "of momentum: share of the velocity kept", below(0, 1))
    beta1: float = key(0.9, "of adamw, lamb: share of the mean gradient kept", between(0.01, 0.999999))
    beta2: float = key(0.999, "of adamw, lamb: share of the mean square kept", between(0.01, 0.999999))
    epsilon: float = key(1e-8, "of adamw, lamb: added to the root of the mean square", between(1e-12, 1))
    weight_decay: float = key(1e-4, "decay of all parameters but those of no_decay", at_least(0))
    no_decay: str = key(
        "",
        "parameters without weight decay: shell patterns of names, or none; empty: norms, biases, alpha, beta and "
        "positions",
    )
    clip_norm: float = key(0.0, "largest norm of the gradients of all parameters together; 0: any", at_least(0))
    micro_batches: int = key(1, "parts of a batch computed one by one, to save memory, for one step", at_least(1))
    ema_decay: float = key(0.0, "share that a step keeps of the averaged weights; 0: no averaged weights", below(0, 1))


@dataclasses.dataclass(frozen=True)
class SchedulerConfig:
    name: str = key(
        "cosine", "learning rate after the warm-up", one_of("cosine", "poly", "step", "multi_step", "constant")
    )
    warmup_epochs: float = key(5.0, "epochs of linear warm-up", at_least(0))
    warmup_steps: int = key(
        0, "steps of linear warm-up, instead of warmup_epochs; 0: as many as these have", at_least(0)
    )
    warmup_ratio: float = key(
        0.0, "share of the rate that the first step of the warm-up has; 0: one step's share", below(0, 1)
    )
    min_lr: float = key(0.0, "of cosine and poly: learning rate at the end", at_least(0))
    power: float = key(1.0, "of poly: exponent of the part of the training that is left", between(0.01, 100))
    step_epochs: float = key(30.0, "of step: epochs from one drop to the next", at_least(1))
    milestones: list[float] = key([30.0, 60.0, 90.0], "of multi_step: epochs before each drop", each(at_least(0)))
    factor: float = key(0.1, "of step and multi_step: learning rate after a drop over that before", between(0, 1))


@dataclasses.dataclass(frozen=True)
class LossConfig:
    name: str = key(
        "cross_entropy",
        "of one class among all, or of each class by itself",
        one_of("cross_entropy", "binary_cross_entropy"),
    )
    label_smoothing: float = key(0.1, "probability spread evenly over all classes", below(0, 1))
    class_weights: str | list[float] = key(
        "none",
        "factor on the loss of each class, in the order of their folders; balanced: all images of a class together "
        "count as much as those of any other",
        listed_or(between(1e-6, 1e6), "none", "balanced"),
    )


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    pretrained: str = key("", "checkpoint to begin with; its head may be of another size")
    layer_decay: float = key(1.0, "learning rate of a layer over that of the next, up to the head", between(0.01, 1))
    freeze: str = key("", "parameters that stay as they are: shell patterns of names, e.g. 'stem.* layer1.*'")
    norm_eval: bool = key(False, "batch norms normalise by their averages, as in evaluation, and keep them")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    epochs: int = key(100, "passes over the training images", at_least(1))
    steps: int = key(0, "training steps, instead of epochs, the last of which may be cut short; 0: epochs", at_least(0))
    eval_epochs: int = key(1, "epochs from one evaluation to the next; the last is evaluated always", at_least(1))
    seed: int = key(0, "seed of weights, shuffling and augmentation", between(0, 2**32 - 1))
    log_interval: int = key(50, "steps between two lines of metrics.jsonl", at_least(1))
    save_steps: int = key(0, "steps between checkpoints inside an epoch; 0: one after each epoch only", at_least(0))
    keep_checkpoints: int = key(2, "newest checkpoints to keep: last.ckpt, last-1.ckpt, ...", at_least(1))
    skip_nonfinite: int = key(0, "steps to leave out whose loss is not finite, before the run stops", at_least(0))
    data_sink: bool = key(False, "on Ascend and GPU: the device takes the batches from a queue of its own")


@dataclasses.dataclass(frozen=True)
class DeviceConfig:
    target: str = key("CPU", "where to run", one_of("CPU", "GPU", "Ascend"))
    device_id: int = key(0, "number of the device when started alone", at_least(0))
    amp_level: str = key(
        "O0", "mixed precision as MindSpore names it; O0: none", one_of("O0", "O1", "O2", "O3", "auto")
    )
    amp_dtype: str = key("float16", "16-bit type of mixed precision", one_of("float16", "bfloat16"))
    kernels: str = key(
        "auto", "C++ kernels: fused where they can be built, on CPU, or portable", one_of("auto", "fused", "portable")
    )
    loss_scale: float = key(1024.0, "factor on the loss in float16; 0: found while training", zero_or_at_least(1))


@dataclasses.dataclass(frozen=True)
class Config:
    task: str = key(
        "classification", "what the network is trained for", one_of("classification", "segmentation", "detection")
    )
    model: ModelConfig = section(ModelConfig)
    data: DataConfig = section(DataConfig)
    segmentation: SegmentationConfig = section(SegmentationConfig)
    detection: DetectionConfig = section(DetectionConfig)
    optimizer: OptimizerConfig = section(OptimizerConfig)
    scheduler: SchedulerConfig = section(SchedulerConfig)
    loss: LossConfig = section(LossConfig)
    finetune: FinetuneConfig = section(FinetuneConfig)
    train: TrainConfig = section(TrainConfig)
    device: DeviceConfig = section(DeviceConfig)
    output_dir: str = key("", "folder for checkpoints, metrics and curves; empty: outputs/<name of the YAML file>")

    def to_dict(self):
        """Return the settings as nested mappings, as they stand in YAML."""
        return dataclasses.asdict(self)


ALIASES = {
    "data_dir": "data.data_dir",
    "device_target": "device.target",
    "pretrained": "finetune.pretrained",
    "epochs": "train.epochs",
}


def load_config(path, overrides=()):
    """Read a YAML file and apply the command line to it.

    Args:
        path: YAML file with the sections of `Config`; its key `base` names a file, from its own folder, whose keys
            hold where this one says nothing.
        overrides: words of the command line: `--section.key value` or `--section.key=value`; also
            `--output_dir`, those of `ALIASES`, and `--model.options.NAME value`.

    Returns:
        Config.

    Raises:
        UserError: a file that cannot be read, an unknown key, a wrong type or an impossible value.
    """
    settings = _read(path)
    for flag, text in _pairs(overrides):
        _override(settings, flag, text)
    config = build(Config, settings, str(path))
    _check_together(config, lambda name: settings[name][1] if name in settings else str(path))
    return config if config.output_dir else dataclasses.replace(config, output_dir=f"outputs/{Path(path).stem}")


def changed_model(model, overrides):
    """Return a `ModelConfig` with words `--model.KEY VALUE` of the command line over it.

    Raises:
        UserError: as `load_config`; or a key of another section.
    """
    settings = flatten(Config, {"model": dataclasses.asdict(model)}, "--model")
    for flag, text in _pairs(overrides):
        if not flag.startswith("--model."):
            raise UserError(f"unknown argument {flag}; keys of other sections than model need --config")
        _override(settings, flag, text)
    changed = build(ModelConfig, settings, "--model", "model.")
    _check_options(changed, lambda name: settings[name][1])
    return changed


def save_config(config, path):
    """Write `config` as YAML that `load_config` reads back equal."""
    write_yaml(config.to_dict(), path)


def describe_schema():
    """Return the text of `--help` on the keys: one line each with meaning, type, default and accepted values."""
    return describe(Config)


def _read(path, above=()):
    """Return `{dotted key: (value, source)}` of a file, over those of its base."""
    if Path(path).resolve() in above:
        raise UserError(f"{path}: is its own base; let base name another file")
    content = read_yaml(path)
    base = content.pop("base", None)
    if base is None:
        inherited = {}
    elif isinstance(base, str):
        inherited = _read(Path(path).parent / base, (*above, Path(path).resolve()))
    else:
        raise UserError(f"{path}: base is {base!r} but takes the path of a YAML file")
    return {**inherited, **flatten(Config, content, str(path))}


def _pairs(words):
    """Yield `(flag, text)` for `--flag text` and `--flag=text`."""
    words = iter(words)
    for word in words:
        if not word.startswith("--"):
            raise UserError(f"unexpected argument '{word}'; settings are given as --section.key value")
        flag, equals, text = word.partition("=")
        if not equals:
            text = next(words, None)
            if text is None or text.startswith("--"):
                raise UserError(f"{flag} takes a value: {flag} VALUE")
        yield flag, text


def _override(settings, flag, text):
    """Put one word pair of the command line into `settings`."""
    kinds = {name: kind for name, _, kind in walk(Config)}
    name = ALIASES.get(flag[2:], flag[2:])
    holder, _, option = name.rpartition(".")
    if name in kinds:
        settings[name] = (text if kinds[name] is str else parse_yaml(text, flag), flag)
    elif kinds.get(holder) is dict and option:
        options, _ = settings.get(holder, ({}, None))
        # What is no mapping stays as it is, for build to refuse with the file's name.
        if isinstance(options, dict):
            settings[holder] = ({**options, option: parse_yaml(text, flag)}, flag)
    else:
        raise UserError(f"unknown argument {flag}{suggest(name, [*kinds, *ALIASES])}")


def _check_together(config, source):
    """Refuse values that are each possible but not together."""
    model, data = config.model, config.data
    for name in ("mean", "std"):
        count = len(getattr(data, name))
        if count != model.in_channels:
            raise UserError(
                f"{source(f'data.{name}')}: data.{name} has {count} numbers but takes one for each "
                f"of the {model.in_channels} channels (model.in_channels)"
            )
    if 0 < data.resize < min(model.size) and not data.crop_padding:
        raise UserError(
            f"{source('data.resize')}: data.resize is {data.resize} but takes at least "
            f"the shorter side of model.image_size, {min(model.size)}, or 0"
        )
    weights = config.loss.class_weights
    if isinstance(weights, list) and len(weights) != model.num_classes:
        raise UserError(
            f"{source('loss.class_weights')}: loss.class_weights has {len(weights)} numbers but takes one for each of "
            f"the {model.num_classes} classes (model.num_classes)"
        )
    check_task(config, source)
    check_recipe(config, source)
    _check_options(model, source)


def _check_options(model, source):
    for field in dataclasses.fields(model):
        if field.name in model.options:
            raise UserError(
                f"{source('model.options')}: model.options.{field.name} is model.{field.name}; write it there"
            )
