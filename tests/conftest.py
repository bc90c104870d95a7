# SPDX-License-Identifier: Apache-2.0
"""Set before MindSpore and onnx are imported: what `src/__init__.py` sets, import path.

And what several files of tests share; its imports stand inside, so that the settings come first.
"""

import gc
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("GLOG_v", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import src  # noqa: F401

# Graphs are compiled inside of properties, and machines are shared: how long an example takes says nothing.
settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")

# Files of a minute and more: a worker that began one last would leave the others idle.
LONGEST = {
    "test_ascend_readiness",
    "test_detector",
    "test_families_learn",
    "test_mask_rcnn",
    "test_readme_commands",
    "test_resume",
    "test_scene_training",
    "test_swin",
    "test_training",
}


def pytest_configure():
    """Give each of several workers cores of its own, before MindSpore counts them.

    MindSpore's threads wait for each other by spinning: two sets of them on the same cores take twice as long.
    """
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER", "gw0"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[int(worker.removeprefix("gw")) :: int(workers)] or cores)


def pytest_collection_modifyitems(items):
    """Let the longest files begin; `--no-loadscope-reorder` keeps them there."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def pytest_collection_finish():
    """Take all that is imported by now out of the garbage collector's sight.

    MindSpore has it look at every object before it compiles a graph: a tenth of a second each time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded():
    """Weights that a test leaves to chance are the same in every run, and whatever ran before."""
    import mindspore as ms

    ms.set_seed(0)


@contextmanager
def tiny_registered():
    """Within it there are `tiny_for_tests`, a model for tests of training alone, which takes less time than curves do:
    none are drawn; and `tiny_backbone`."""
    from mindspore import nn
    from tiny_training import Tiny, TinyBackbone

    from src.models import registry
    from src.training import trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_MODELS", registry._MODELS.copy())
        registry.register_model("tiny_for_tests", Tiny, nn.Conv2d)
        registry.register_model("tiny_backbone", TinyBackbone, nn.Conv2d)
        patch.setattr(trainer, "plot_curves", lambda *_: None)
        yield


@pytest.fixture
def built_for(monkeypatch):
    """`built_for(device)`: Cells built from then on take the form they have there; it runs on the CPU just as well."""
    import mindspore as ms

    from src.ops.split_sizes import SplitSizes

    def build_for(device):
        if device != "CPU" and SplitSizes(0).by_slices:
            pytest.skip("this MindSpore has no SplitWithSize on CPU")
        monkeypatch.setattr(ms, "get_context", {"device_target": device}.__getitem__)

    return build_for


@pytest.fixture(scope="module")
def tiny_model():
    """See `tiny_registered`."""
    with tiny_registered():
        yield


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """A data folder, see `write_images`."""
    from tiny_training import write_images

    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def config(tiny_model, image_folder, tmp_path):
    """A training of seconds, see `tiny_config`."""
    import mindspore as ms
    from tiny_training import tiny_config

    ms.set_context(mode=ms.GRAPH_MODE)
    return tiny_config(image_folder, tmp_path)


@pytest.fixture
def thorough(config):
    """`config` with all that a stopped run has to find again (`with_all`)."""
    from same_run import with_all

    return with_all(config)


@pytest.fixture(scope="session")
def whole(image_folder, tmp_path_factory):
    """The `Config` of the training `thorough`, done in one go."""
    import mindspore as ms
    from same_run import with_all
    from tiny_training import tiny_config

    from src.device import World
    from src.tasks import create_task
    from src.training import trainer

    ms.set_context(mode=ms.GRAPH_MODE)
    config = with_all(tiny_config(image_folder, tmp_path_factory.mktemp("whole")))
    with tiny_registered():
        trainer.train(create_task(config), World())
    return config


@pytest.fixture
def folder(tmp_path):
    """A data folder of colour images, see `write_folder`."""
    from data_folder import write_folder

    return write_folder(tmp_path)


@pytest.fixture
def data(folder):
    """The `DataConfig` of `folder`."""
    from src.config import DataConfig

    return DataConfig(data_dir=str(folder), batch_size=4)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A data folder of few scenes, see `src.data.scenes`."""
    from src.data.scenes import write_scenes

    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(folder, {"training": 8, "validation": 3})
    return folder


@pytest.fixture
def coco_folder(tmp_path):
    """A data folder of images with boxes and masks, see `coco_data`."""
    import coco_data

    return coco_data.write(tmp_path)


@pytest.fixture
def infer_call(monkeypatch, capsys):
    """`infer_call(*words)` runs `infer.py` and returns its exit code and what it prints to the two streams."""
    import infer
    from src.errors import UserError

    monkeypatch.setattr(infer, "survive_crashes", lambda message: None)
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["infer.py", *map(str, words)])
        code, mistake = 0, ""
        try:
            infer.main.__wrapped__()
        except SystemExit as end:
            code = end.code
        except UserError as error:
            code, mistake = 2, f"error: {error}"
        said = capsys.readouterr()
        return code, said.out, said.err + mistake

    return call
