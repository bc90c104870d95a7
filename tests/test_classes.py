# SPDX-License-Identifier: Apache-2.0
"""Classes meet folders by name: renamed, in another order, some without images, or known by numbers only."""

import dataclasses
import shutil

import numpy as np
import pytest
from data_folder import epoch, photo, trained_classes
from hypothesis import given
from hypothesis import strategies as st
from mindspore import Tensor
from tiny_training import changed

from src.data.classes import Classes, numbers_of_split
from src.data.image_folder import list_split
from src.device import World
from src.errors import UserError
from src.tasks import create_task
from src.training import trainer
from src.training.checkpoint import read_checkpoint, save_weights
from src.training.evaluate import evaluate_checkpoint
from src.training.network import build_network


@given(st.data())
def test_numbers_follow_names(data):
    """Whatever the order of both, and whichever of a network's classes a folder has: its names decide."""
    known = data.draw(st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=8, unique=True))
    there = data.draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
    readable = [f"the {name}" for name in known]
    numbers = Classes(known, readable).numbers_of(Classes(there, there), "val", "x.ckpt")
    assert [known[number] for number in numbers] == there
    translated = [f"le {name}" for name in there]
    names = [f"the {name}" for name in there]
    np.testing.assert_array_equal(Classes(known, readable).numbers_of(Classes(translated, names), "val", ""), numbers)
    with pytest.raises(UserError, match=r"is none of x\.ckpt"):
        Classes(known, known).numbers_of(Classes([*there, "long enough"], [*there, "long enough"]), "val", "x.ckpt")


def test_numbers_without_names(data, folder):
    """Weights that were converted know numbers only: as many folders as they have classes, taken in their order."""
    numbers = Classes.recorded({}, 3)
    assert numbers.folders is None
    np.testing.assert_array_equal(numbers_of_split(numbers, data, list_split(data, "val"), "x.ckpt")[0], [0, 1, 2])
    with pytest.raises(
        UserError, match=r"val has 3 classes but x\.ckpt has 4 and does not say their names; give a folder"
    ):
        numbers_of_split(Classes.recorded({}, 4), data, list_split(data, "val"), "x.ckpt")


@pytest.mark.parametrize(("names", "first"), [(["1", "2", "10"], "10"), (["01", "02", "10"], None), (["9", "8"], None)])
def test_folders_that_are_numbers(data, folder, names, first):
    """ "10" sorts before "2": said where it happens, with what it may mean for weights that know numbers only."""
    for old, new in zip(("ant", "bee", "cat"), names):
        (folder / "val" / old).rename(folder / "val" / new)
    if len(names) == 2:
        shutil.rmtree(folder / "val" / "cat")
    _, notes = numbers_of_split(Classes.recorded({}, len(names)), data, list_split(data, "val"), "x.ckpt")
    assert [f"'{first}' is class 1; is it that in the checkpoint?" in note for note in notes] == [True] * (
        first is not None
    )


def test_classes_without_images(data, folder):
    """An evaluation counts what is there, under its own number, and says what is not."""
    shutil.rmtree(folder / "val" / "ant")
    (folder / "val" / "bee").rename(folder / "elsewhere")
    (folder / "val" / "bee").mkdir()
    known = trained_classes(data, 3)
    numbers, notes = numbers_of_split(known, data, list_split(data, "val"), "x.ckpt")
    assert any("val has no image of 2 of 3 classes: ant, bee" in note for note in notes)
    _, labels = epoch(dataclasses.replace(data, batch_size=5), 16, 3, "val", numbers=numbers)
    np.testing.assert_array_equal(labels, [2] * 5)


def test_folders_that_are_no_text(data, folder):
    """Class folders named in another encoding train and evaluate; their names are text wherever they are written."""
    name = "caf\udce9"
    for split in ("train", "val"):
        (folder / split / "bee").rename(folder / split / name)
        photo(7).save(folder / split / name / "\udcff.png")
    classes = trained_classes(data, 3)
    assert classes.names == ["ant", "caf\\xe9", "cat"]
    _, labels = epoch(dataclasses.replace(data, batch_size=16), 16, 3, "val")
    np.testing.assert_array_equal(np.bincount(labels), [5, 6, 5])
    (folder / "val" / name / "\udcff.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"val/caf\\xe9/\\xff\.png is empty"):
        epoch(data, 16, 3, "val")


@pytest.fixture
def judged(config, tmp_path):
    """A checkpoint of weights by chance, the same each time, of class0, class1, class2; and its accuracy."""
    network = build_network(config.model)
    rng = np.random.default_rng(1)
    for weight in (network.conv.weight, network.fc.weight):
        weight.set_data(Tensor(rng.standard_normal(weight.shape).astype("f")))
    names = ["class0", "class1", "class2"]
    save_weights(tmp_path / "x.ckpt", network, Classes(names, names).to_record())
    result, _ = evaluate_checkpoint(create_task(config), tmp_path / "x.ckpt", World())
    assert result["top1"] not in (0, 100)
    return tmp_path / "x.ckpt", result


def moved(config, folder, **names):
    """Copy the images to `folder` with other names of classes, and return the configuration that reads them."""
    shutil.copytree(config.data.data_dir, folder)
    for split in ("train", "val"):
        for old, new in names.items():
            (folder / split / old).rename(folder / split / new)
    return changed(config, data={"data_dir": str(folder)})


def test_a_checkpoint_knows_its_classes(config, judged, tmp_path, capsys):
    """The same images score the same in folders that read alike, and are refused in folders that do not."""
    checkpoint, result = judged
    renamed = moved(config, tmp_path / "renamed", class0="zwei", class1="eins", class2="null")
    with pytest.raises(UserError, match=rf"class 'eins' of .*renamed/val is none of checkpoint {checkpoint}, "):
        evaluate_checkpoint(create_task(renamed), checkpoint, World())
    (tmp_path / "renamed" / "class_names.txt").write_text("zwei\tclass0\neins\tclass1\nnull\tclass2\n")
    assert evaluate_checkpoint(create_task(renamed), checkpoint, World())[0] == result
    shutil.rmtree(tmp_path / "renamed" / "val" / "eins")
    part, _ = evaluate_checkpoint(create_task(renamed), checkpoint, World())
    assert part["samples"] == 10 and "has no image of 1 of 3 classes: class1" in capsys.readouterr().err


def test_a_resumed_run_knows_its_classes(config, tmp_path, monkeypatch):
    """A run goes on with the labels it had, whatever the folders are called now, or not at all."""
    config = changed(config, train={"epochs": 1})
    trainer.train(create_task(config), World())
    longer = changed(config, train={"epochs": 2})
    renamed = moved(longer, tmp_path / "renamed", class0="zwei", class1="eins", class2="null")
    with pytest.raises(UserError, match=r"class 'eins' of .*renamed/train is none of checkpoint .*last\.ckpt"):
        trainer.train(create_task(renamed), World(), resume="auto")
    (tmp_path / "renamed" / "class_names.txt").write_text("zwei\tclass0\neins\tclass1\nnull\tclass2\n")
    seen = []
    iterate = trainer.iterate
    monkeypatch.setattr(trainer, "iterate", lambda images: [seen.append(batch) or batch for batch in iterate(images)])
    trainer.train(create_task(renamed), World(), resume="auto")
    # Brightness tells the class, see `write_images`: 80 grey levels from one to the next.
    for image, label in seen:
        grey = (image.asnumpy().mean((1, 2, 3)) * 0.5 + 0.5) * 255
        np.testing.assert_array_equal(np.round((grey - 30) / 80), label.asnumpy())
    assert read_checkpoint(f"{config.output_dir}/last.ckpt")[1]["classes"] == ["class0", "class1", "class2"]
