# SPDX-License-Identifier: Apache-2.0
"""Weights for another image size or window: by the conversion both ways, and by loading a checkpoint."""

import dataclasses

import numpy as np
import pytest
from conversion_files import PVT, SWIN, SWIN_PLAIN, archives, checkpoint, published_file, weights  # noqa: F401

from src.config import changed_model
from src.convert.conversion import to_checkpoint, to_pytorch
from src.errors import UserError
from src.models import pvt
from src.ops.window_attention import WindowAttention, relative_positions, roll_mask
from src.training.checkpoint import load_weights, save_weights
from src.training.network import build_network

pytestmark = pytest.mark.usefixtures("archives")


def notes(report):
    return [row[0] for row in report.rows if row[-1] == "interpolated"]


def test_pvt_at_another_image_size(tmp_path):
    """Positions are interpolated, by the conversion as by loading a checkpoint; all else stays."""
    file = published_file(tmp_path, PVT)
    larger = dataclasses.replace(PVT, image_size=96)
    report = to_checkpoint(file, tmp_path / "b.ckpt", larger)
    assert [row[0] for row in report.rows if row[-1] == "interpolated"] == [f"embedding{i}.position" for i in "1234"]
    network = build_network(larger)
    load_weights(network, tmp_path / "made.ckpt")
    made, converted = weights(tmp_path / "made.ckpt"), weights(tmp_path / "b.ckpt")
    for parameter in network.get_parameters():
        expected = made[parameter.name]
        if "position" in parameter.name:
            stage = int(parameter.name[len("embedding")])
            side = 16 >> stage
            expected = pvt.resize_position(expected, (side, side), (3 * side, 3 * side))
        assert np.array_equal(parameter.asnumpy(), expected) and np.array_equal(converted[parameter.name], expected)


def test_the_constants_of_the_published_swin(tmp_path):
    """The mask parts what the roll brought together; the published code cannot hold maps of no whole windows."""
    tensors = np.load(published_file(tmp_path, SWIN))
    index = tensors["layers.0.blocks.1.attn.relative_position_index"]
    assert index.dtype == np.int64 and index[0, 0] == 24 and index[0, -1] == 0 and index[-1, 0] == 48
    assert "layers.0.blocks.0.attn_mask" not in tensors and "layers.2.blocks.0.attn_mask" not in tensors
    ends = np.repeat(np.repeat(np.arange(9).reshape(3, 3), [4, 2, 2], 0), [4, 2, 2], 1)  # of the 8x8 map, rolled by 2
    windows = ends.reshape(2, 4, 2, 4).transpose(0, 2, 1, 3).reshape(4, 16)
    expected = np.where(windows[:, :, None] == windows[:, None], 0, -100)
    assert np.array_equal(tensors["layers.1.blocks.1.attn_mask"], expected)
    filled_up = dataclasses.replace(SWIN, image_size=40)
    checkpoint(tmp_path / "b.ckpt", filled_up)
    with pytest.raises(UserError, match="--image_size 64"):
        to_pytorch(tmp_path / "b.ckpt", tmp_path / "b.pth", filled_up)


@pytest.mark.parametrize("model", [SWIN, PVT], ids=lambda model: model.name)
def test_rectangles_there_and_back(model, tmp_path):
    """A file of a rectangular size comes back bit for bit at that size."""
    model = dataclasses.replace(model, image_size=[64, 128])
    values = checkpoint(tmp_path / "a.ckpt", model)
    to_pytorch(tmp_path / "a.ckpt", tmp_path / "a.pth", model)
    report = to_checkpoint(tmp_path / "a.pth", tmp_path / "b.ckpt", model)
    returned = weights(tmp_path / "b.ckpt")
    assert not notes(report) and all(np.array_equal(returned[name], value) for name, value in values.items())


def test_pvt_of_a_rectangle_at_another(tmp_path):
    """A checkpoint says its size: 4 x 6 patches become 3 x 8, which are as many."""
    old, new = (dataclasses.replace(PVT, image_size=size) for size in ([128, 192], [96, 256]))
    values = checkpoint(tmp_path / "a.ckpt", old)
    report = to_pytorch(tmp_path / "a.ckpt", tmp_path / "a.pth", new)
    assert notes(report) == [f"embedding{i}.position" for i in "1234"]
    expected = pvt.resize_position(values["embedding4.position"], (4, 6), (3, 8))
    assert np.array_equal(np.load(tmp_path / "a.pth")["pos_embed4"], expected)
    assert expected.shape == values["embedding4.position"].shape


@pytest.mark.parametrize("change", [["--model.options.window", "8"], ["--model.image_size", "16"]])
def test_swin_with_another_window(change, tmp_path):
    """Tables of wider windows, and of those that shrink to the maps of a small image; all else stays."""
    other = changed_model(SWIN_PLAIN, change)
    file = published_file(tmp_path, SWIN_PLAIN)
    report = to_checkpoint(file, tmp_path / "b.ckpt", other)
    there = to_pytorch(tmp_path / "made.ckpt", tmp_path / "c.pth", dataclasses.replace(other, image_size=64))
    network = build_network(other)
    load_weights(network, tmp_path / "made.ckpt")
    made, converted = weights(tmp_path / "made.ckpt"), weights(tmp_path / "b.ckpt")
    changed = []
    cells = {cell.position.name: cell for _, cell in network.cells_and_names() if isinstance(cell, WindowAttention)}
    for parameter in network.get_parameters():
        expected = made[parameter.name]
        if parameter.name in cells:
            expected = cells[parameter.name].resized(expected)
            changed += [parameter.name] * (expected.shape != made[parameter.name].shape)
        assert np.array_equal(parameter.asnumpy(), expected) and np.array_equal(converted[parameter.name], expected)
    assert changed == notes(report) and len(changed) >= 2
    if other.options["window"] == 8:
        assert len(notes(there)) == len(cells)
    back = np.load(tmp_path / "c.pth")
    window = other.options["window"]
    assert back["layers.0.blocks.1.attn.relative_position_bias_table"].shape == ((2 * window - 1) ** 2, 3)
    assert np.array_equal(back["layers.0.blocks.1.attn.relative_position_index"], relative_positions(window))
    mask = roll_mask(32, 32, window, window // 2)[:, 0]
    assert np.array_equal(back["layers.0.blocks.1.attn_mask"], mask)


def test_masks_of_rectangles(tmp_path):
    """At 32 x 64 pixels the first map is 16 x 32, and the roll brings together other parts of it down than across."""
    model = dataclasses.replace(SWIN_PLAIN, image_size=[32, 64])
    tensors = np.load(published_file(tmp_path, model))
    ends = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]]).repeat([12, 2, 2], 0).repeat([28, 2, 2], 1)
    windows = ends.reshape(4, 4, 8, 4).transpose(0, 2, 1, 3).reshape(32, 16)
    expected = np.where(windows[:, :, None] == windows[:, None], 0, -100)
    assert np.array_equal(tensors["layers.0.blocks.1.attn_mask"], expected)
    assert "layers.2.blocks.0.attn_mask" not in tensors


def test_what_is_no_table_is_refused(tmp_path):
    """By the conversion and by loading, with the file, the table and the windows in the message."""
    file = published_file(tmp_path, SWIN_PLAIN)
    tensors = dict(np.load(file))
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    tensors[name] = tensors[name][1:]
    with open(file, "wb") as stream:
        np.savez(stream, **tensors)
    with pytest.raises(UserError, match=rf"made\.pth does not fit swin_tiny: {name}: .*\(48, 3\) .*windows of 4 x 4"):
        to_checkpoint(file, tmp_path / "b.ckpt", SWIN_PLAIN)
    wide = build_network(dataclasses.replace(PVT, image_size=[16 * 4, 64 * 4]))
    save_weights(tmp_path / "w.ckpt", wide, {})
    with pytest.raises(UserError, match=r"w\.ckpt does not fit this model: embedding1.position: .*16 x 64 or 32 x 32"):
        load_weights(wide, tmp_path / "w.ckpt")
