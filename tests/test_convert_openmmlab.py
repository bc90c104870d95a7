# SPDX-License-Identifier: Apache-2.0
"""Files of mmsegmentation and mmdetection to checkpoints and back; archives of NumPy stand for them."""

import dataclasses
import json

import numpy as np
import pytest
from conversion_files import archives, checkpoint, weights  # noqa: F401  archives is a fixture
from golden_network import GOLDEN

from src.config import ModelConfig
from src.convert.conversion import model_of, to_checkpoint, to_pytorch
from src.convert.forms import OPENMMLAB, form_of
from src.errors import UserError
from src.models.published import to_published
from src.models.segmenter import create_segmenter
from src.ops.window_attention import relative_positions
from src.training.network import build_on_features

pytestmark = pytest.mark.usefixtures("archives")

NARROW = {"resnet50": {"width": 8}, "swin": {"width": 6, "heads": 1}, "pvt": {"width": 8}}


def segmenter(head, backbone, **settings):
    """A narrow one, as deep as was published."""
    options = NARROW[backbone.partition("_")[0]]
    size = {"image_size": 224, **settings}
    return ModelConfig(backbone, head, num_classes=7, options=options, **size)


FPN_PVT = segmenter("fpn", "pvt_tiny")


@pytest.mark.parametrize(
    ("head", "backbone"),
    [
        *(("fpn", name) for name in OPENMMLAB),
        *(("upernet", name) for name in ("swin_tiny", "pvt_tiny")),
        *(("retinanet", name) for name in ("resnet50", "pvt_tiny", "swin_tiny")),
        ("maskrcnn", "swin_tiny"),
        ("cascade_maskrcnn", "swin_tiny"),
    ],
)
def test_there_and_back_is_the_same(head, backbone, tmp_path):
    """Every value comes back bit for bit, under the names that the reference has; its buffers are made and left out."""
    model = segmenter(head, backbone, drop_path_rate=0.1)
    values = checkpoint(tmp_path / "a.ckpt", model)
    there = to_pytorch(tmp_path / "a.ckpt", tmp_path / "a.pth", model)
    back = to_checkpoint(tmp_path / "a.pth", tmp_path / "b.ckpt", dataclasses.replace(model, num_classes=150))
    assert back.model.num_classes == 7
    returned = weights(tmp_path / "b.ckpt")
    assert returned.keys() == values.keys()
    assert all(np.array_equal(returned[name], value) for name, value in values.items())
    assert model_of(tmp_path / "b.ckpt", backbone) == back.model == model
    tensors = np.load(tmp_path / "a.pth")
    names = {row[2] for row in there.rows}
    golden = GOLDEN / "downstream" / f"{head}_{backbone}.json"
    if golden.exists():
        assert names == {name for name, _ in json.loads(golden.read_text())["tensors"]}
    buffers = {name for name in tensors if name not in names}
    norms = {name.removesuffix("running_mean") for name in names if name.endswith("running_mean")}
    tables = {name.removesuffix("relative_position_bias_table") for name in names if name.endswith("bias_table")}
    assert buffers == {
        *(f"{norm}num_batches_tracked" for norm in norms),
        *(f"{table}relative_position_index" for table in tables),
    }
    assert len(tables) == (12 if backbone == "swin_tiny" else 24 if backbone == "swin_small" else 0)
    for table in tables:
        assert np.array_equal(tensors[f"{table}relative_position_index"], relative_positions(7))


@pytest.mark.parametrize("backbone", ["swin_tiny", "pvt_tiny"])
def test_backbones_by_the_names_of_their_authors(backbone, tmp_path):
    """Files of the authors' own code for mmsegmentation: other names, PVT's last table with the class token's row."""
    model = segmenter("fpn", backbone)
    values = checkpoint(tmp_path / "a.ckpt", model)
    tensors = to_published(values, form_of(model).namings[1])
    if backbone == "pvt_tiny":
        last = tensors["backbone.pos_embed4"]
        tensors["backbone.pos_embed4"] = np.concatenate([last[:, :1], last], axis=1)
    assert {"swin_tiny": "backbone.layers.0.blocks.0.attn.qkv.weight", "pvt_tiny": "backbone.block1.0.attn.q.weight"}[
        backbone
    ] in tensors
    with open(tmp_path / "a.pth", "wb") as stream:
        np.savez(stream, **tensors)
    to_checkpoint(tmp_path / "a.pth", tmp_path / "b.ckpt", model)
    returned = weights(tmp_path / "b.ckpt")
    assert all(np.array_equal(returned[name], value) for name, value in values.items())


def published_file(folder):
    """Write the file of `FPN_PVT`; return its tensors."""
    checkpoint(folder / "a.ckpt", FPN_PVT)
    to_pytorch(folder / "a.ckpt", folder / "a.pth", FPN_PVT)
    return dict(np.load(folder / "a.pth"))


@pytest.mark.parametrize("kind", ["missing", "left over", "different"])
def test_a_file_that_does_not_fit_is_refused(kind, tmp_path):
    """One line names the tensor and what is wrong with it; nothing is written."""
    tensors = published_file(tmp_path)
    name = "decode_head.scale_heads.2.2.conv.weight"
    if kind == "missing":
        del tensors[name]
    elif kind == "different":
        tensors[name] = tensors[name][:-1]
    else:
        name = "decode_head.scale_heads.2.9.conv.weight"
        tensors[name] = np.zeros(1, np.float32)
    with open(tmp_path / "a.pth", "wb") as stream:
        np.savez(stream, **tensors)
    with pytest.raises(UserError, match=rf"a\.pth does not fit fpn_pvt_tiny: 1 {kind}: {name}") as refusal:
        to_checkpoint(tmp_path / "a.pth", tmp_path / "b.ckpt", FPN_PVT)
    assert "\n" not in str(refusal.value) and not (tmp_path / "b.ckpt").exists()


def test_other_classes_and_positions(tmp_path):
    """A new classifier where it is asked for, and tables for images of another size; all else is the file's."""
    published_file(tmp_path)
    with pytest.raises(UserError, match=r"has 7 classes, not the 3 .*--drop_head"):
        to_checkpoint(tmp_path / "a.pth", tmp_path / "b.ckpt", FPN_PVT, num_classes=3)
    larger = dataclasses.replace(FPN_PVT, image_size=256)
    report = to_checkpoint(tmp_path / "a.pth", tmp_path / "b.ckpt", larger, num_classes=3, drop_head=True)
    notes = {note: [row[0] for row in report.rows if row[-1] == note] for note in ("initial value", "interpolated")}
    assert notes["initial value"] == ["head.classifier.linear.weight", "head.classifier.linear.bias"]
    assert notes["interpolated"] == [f"backbone.embedding{stage}.position" for stage in "1234"]
    made, converted = weights(tmp_path / "a.ckpt"), weights(tmp_path / "b.ckpt")
    same = {name for name, value in converted.items() if np.array_equal(value, made[name])}
    assert {*converted} - same == {name for names in notes.values() for name in names}
    assert build_on_features(create_segmenter, report.model).head.classifier.linear.bias.shape == (3,)


@pytest.mark.parametrize(
    ("model", "published_code", "message"),
    [
        (segmenter("fpn", "pvt_tiny"), "", "--verify runs no mmsegmentation; leave it out"),
        (ModelConfig("acmix_pvt_tiny", "fpn"), None, "nobody published fpn_acmix_pvt_tiny for PyTorch; published"),
    ],
)
def test_what_cannot_be_done_is_refused(model, published_code, message, tmp_path):
    with pytest.raises(UserError, match=message):
        to_checkpoint(tmp_path / "a.pth", tmp_path / "b.ckpt", model, published_code=published_code)
