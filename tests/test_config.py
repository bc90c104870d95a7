# SPDX-License-Identifier: Apache-2.0
"""Settings: what YAML files and the command line may say, and how a mistake is answered."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.config import Config, ModelConfig, describe_schema, load_config, save_config
from src.errors import UserError
from src.models import list_models
from src.schema import walk

ROOT = Path(__file__).resolve().parent.parent
MINIMAL = "model: {name: acmix_resnet26}\n"


@pytest.fixture
def write(tmp_path):
    def write_yaml(text, name="run.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_yaml


def refusal(path, *words):
    with pytest.raises(UserError) as error:
        load_config(path, list(words))
    message = str(error.value)
    assert "\n" not in message
    return message


def test_defaults_and_output_dir(write):
    """A file with a model name alone gives the documented defaults and an output folder named after the file."""
    config = load_config(write(MINIMAL + "data:\n  # every key left out\n"))
    assert config.model == ModelConfig(name="acmix_resnet26")
    assert (config.data.batch_size, config.optimizer.lr, config.scheduler.warmup_epochs) == (32, 0.1, 5.0)
    assert config.output_dir == "outputs/run"


def test_command_line_wins_over_file(write):
    """Both spellings of a flag, the short names, lists and model options override the file."""
    path = write(MINIMAL + "optimizer: {lr: 0.2}\ndata: {data_dir: a}\n")
    words = ["--optimizer.lr", "5e-2", "--train.epochs=7", "--data_dir", "2012", "--device_target", "GPU"]
    words += [
        "--output_dir=o",
        "--data.crop_scale",
        "[0.5, 1]",
        "--model.options.stem",
        "small",
        "--model.options.width=16",
    ]
    config = load_config(path, words)
    assert (config.optimizer.lr, config.train.epochs) == (0.05, 7)
    assert (config.data.data_dir, config.device.target, config.output_dir) == ("2012", "GPU", "o")
    assert config.data.crop_scale == [0.5, 1.0]
    assert config.model.options == {"stem": "small", "width": 16}


def test_option_flag_adds_to_the_file(write):
    """`--model.options.x` keeps the options that the file sets."""
    path = write("model: {name: m, options: {stem: small}}\n")
    assert load_config(path, ["--model.options.width", "16"]).model.options == {"stem": "small", "width": 16}


def test_numbers_as_people_write_them(write):
    """1e-4 is a number (YAML 1.1 says string) and an integer does for a number."""
    config = load_config(write(MINIMAL + "optimizer: {weight_decay: 1e-4, lr: 1}\n"))
    assert config.optimizer.weight_decay == 1e-4
    assert isinstance(config.optimizer.lr, float)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("optimizer: {lrr: 0.1}", ["optimizer.lrr", "did you mean 'optimizer.lr'"]),
        ("optimiser: {lr: 0.1}", ["unknown key optimiser", "optimizer"]),
        ("lr: 0.1", ["unknown key lr", "did you mean 'optimizer.lr'"]),
        ("data: {batch_size: 0}", ["data.batch_size is 0", "at least 1"]),
        ("data: {batch_size: true}", ["data.batch_size is True", "an integer"]),
        ("data: {batch_size: 2.5}", ["data.batch_size is 2.5", "an integer"]),
        ("data: {batch_size: }", ["data.batch_size is None", "an integer"]),
        ("data: {hflip: 2}", ["data.hflip is 2", "from 0 to 1"]),
        ("data: {crop_scale: [1.0, 0.08]}", ["data.crop_scale", "the smaller first"]),
        ("data: {crop_scale: [0.08, a]}", ["data.crop_scale", "a list of numbers"]),
        ("data: {mean: [0.5]}", ["data.mean has 1 numbers", "3 channels"]),
        ("data: {resize: 100}", ["data.resize is 100", "224"]),
        ("data: {name: digit}", ["data.name is 'digit'", "did you mean 'digits'"]),
        ("data: {data_dir: 2012}", ["data.data_dir is 2012", "a string"]),
        ("data: [1, 2]", ["data is [1, 2]", "a section", "data.name"]),
        ("optimizer: {lr: -0.1}", ["optimizer.lr is -0.1", "at least 0"]),
        ("optimizer: {lr: .nan}", ["optimizer.lr is nan", "a number"]),
        ("optimizer: {lr: 1e999}", ["optimizer.lr is inf", "a number"]),
        ("scheduler: {warmup_epochs: 200}", ["scheduler.warmup_epochs is 200", "train.epochs, 100"]),
        ("device: {target: gpu}", ["device.target is 'gpu'", "one of CPU, GPU, Ascend"]),
        ("train: {seed: -1}", ["train.seed is -1", "from 0"]),
        ("train:\n  seed: 1\n  seed: 2", ["line 4", "seed is given twice"]),
        ("train: {seed: 2012-13-45}", ["not valid YAML"]),
        ("train: {seed: 1", ["line 3", "not valid YAML"]),
    ],
)
def test_mistakes_in_the_file(write, text, parts):
    """Each mistake is answered with the file, the full key, what it takes and the nearest key."""
    path = write(MINIMAL + text + "\n")
    message = refusal(path)
    for part in [str(path), *parts]:
        assert part in message


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--optimizer.lrr", "1"], ["--optimizer.lrr", "did you mean 'optimizer.lr'"]),
        (["--lr", "1"], ["unknown argument --lr", "optimizer.lr"]),
        (["--output-dir", "x"], ["unknown argument --output-dir", "output_dir"]),
        (["--optimizer.lr"], ["--optimizer.lr takes a value"]),
        (["--optimizer.lr", "--train.epochs", "3"], ["--optimizer.lr takes a value"]),
        (["--optimizer.lr", "fast"], ["--optimizer.lr: ", "'fast'", "a number"]),
        (["--data_dir", "x", "--data.mean", "[0.5"], ["--data.mean", "not valid YAML"]),
        (["--device_target", "TPU"], ["--device_target: device.target is 'TPU'", "CPU, GPU, Ascend"]),
        (["--data", "x"], ["unknown argument --data"]),
        (["--model.options.image_size", "32"], ["model.options.image_size", "model.image_size"]),
        (["outputs"], ["unexpected argument 'outputs'"]),
    ],
)
def test_mistakes_on_the_command_line(write, words, parts):
    """A mistake in a flag names the flag, not the file."""
    message = refusal(write(MINIMAL), *words)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "part"), [("- a\n", "holds a list"), ("just words\n", "holds a str"), ("", "model.name is missing")]
)
def test_files_that_are_no_config(write, text, part):
    """A YAML list, bare text or an empty file is refused by what it is."""
    assert part in refusal(write(text))


def test_unreadable_files(tmp_path):
    """A missing file, a folder and bytes that are no text are refused by name."""
    binary = tmp_path / "model.yaml"
    binary.write_bytes(b"\x89PNG\xff\xfe")
    for path in (tmp_path / "none.yaml", tmp_path, binary):
        assert str(path) in refusal(path)


def test_options_that_are_no_mapping(write):
    """A flag does not silently replace `options` of the wrong type in the file."""
    message = refusal(write("model: {name: m, options: small}\n"), "--model.options.width", "16")
    assert "model.options is 'small'" in message


TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
MODEL_KEYS = [field.name for field in dataclasses.fields(ModelConfig)]
SCALARS = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT)


@given(
    data_dir=st.one_of(TEXT, st.sampled_from(["1e5", "0x10", "no", "null", "1:30", "-"])),
    lr=st.floats(0, 1e6),
    options=st.dictionaries(TEXT.filter(lambda name: name not in MODEL_KEYS), SCALARS, max_size=3),
)
def test_saved_config_reads_back_equal(tmp_path_factory, data_dir, lr, options):
    """save_config and load_config are inverse, whatever the strings look like to YAML."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "a.yaml").write_text(MINIMAL)
    config = load_config(folder / "a.yaml")
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, options=options),
        data=dataclasses.replace(config.data, data_dir=data_dir),
        optimizer=dataclasses.replace(config.optimizer, lr=lr),
    )
    save_config(config, folder / "b.yaml")
    assert load_config(folder / "b.yaml") == config
    assert sorted(path.name for path in folder.iterdir()) == ["a.yaml", "b.yaml"]


def test_save_into_missing_folder(tmp_path, write):
    """A place that cannot be written is named."""
    with pytest.raises(UserError, match=r"none/run\.yaml"):
        save_config(load_config(write(MINIMAL)), tmp_path / "none" / "run.yaml")


def test_help_lists_every_key():
    """`--help` explains each key."""
    lines = describe_schema().splitlines()
    assert [line.split()[0] for line in lines] == [name for name, _, _ in walk(Config)]


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.stem)
def test_project_configs_load(path):
    """Every YAML of the project is valid."""
    assert load_config(path).model.name


RECIPES = {
    "resnet": ("momentum", 0.1, 256, 1e-4, 0.0, 5, 100, (0, 0.0, 0.0, 0.0)),
    "san": ("momentum", 0.1, 256, 1e-4, 0.0, 0, 100, (0, 0.0, 0.2, 0.0)),
    "swin": ("adamw", 5e-4, 512, 0.05, 5.0, 20, 300, (9, 0.25, 0.8, 1.0)),
    "pvt": ("adamw", 5e-4, 512, 0.05, 5.0, 5, 300, (9, 0.25, 0.8, 1.0)),
}
DROP_PATH = {"swin_tiny": 0.2, "swin_small": 0.3, "pvt_tiny": 0.1, "pvt_small": 0.1}


@pytest.mark.parametrize("name", [name for name in list_models() if name not in ("sasa_resnet38", "sasa_resnet50")])
def test_imagenet_recipes(name):
    """Each model of the paper has a config that carries the published recipe of its family."""
    config = load_config(ROOT / "config" / f"{name}_imagenet.yaml")
    assert config.model.name == name
    assert (config.model.num_classes, config.model.image_size) == (1000, 224)
    assert config.model.drop_path_rate == DROP_PATH.get(name.removeprefix("acmix_"), 0.0)
    optimizer, data = config.optimizer, config.data
    assert (config.loss.label_smoothing, config.scheduler.name) == (0.1, "cosine")
    assert (
        optimizer.name,
        optimizer.lr,
        optimizer.lr_batch,
        optimizer.weight_decay,
        optimizer.clip_norm,
        config.scheduler.warmup_epochs,
        config.train.epochs,
        (data.randaugment, data.random_erasing, data.mixup, data.cutmix),
    ) == next(recipe for family, recipe in RECIPES.items() if family in name)


def test_base(tmp_path):
    """A file's keys win over its base's, which are found from the file's folder and named in errors."""
    (tmp_path / "recipes").mkdir()
    base = tmp_path / "recipes" / "base.yaml"
    base.write_text("model: {name: a, num_classes: 5}\ntrain: {epochs: 7}\n")
    child = tmp_path / "child.yaml"
    child.write_text("base: recipes/base.yaml\nmodel: {name: b}\n")
    config = load_config(child, ["--train.seed", "3"])
    assert (config.model.name, config.model.num_classes) == ("b", 5)
    assert (config.train.epochs, config.train.seed, config.output_dir) == (7, 3, "outputs/child")
    base.write_text("model: {num_classes: many}\n")
    with pytest.raises(UserError, match=r"base\.yaml: model\.num_classes is 'many'"):
        load_config(child)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: 3", "base is 3 but takes the path"),
        ("base: none.yaml", r"no config file .*none\.yaml"),
        ("base: child.yaml", r"child\.yaml: is its own base"),
    ],
)
def test_bad_base(tmp_path, text, message):
    """A base that is no path, missing or the file itself is named."""
    (tmp_path / "child.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(tmp_path / "child.yaml")


@pytest.mark.parametrize(("name", "key"), [("momentum", "beta1"), ("adamw", "momentum")])
def test_number_of_the_other_optimizer(tmp_path, name, key):
    """A number that the chosen optimiser does not have would do nothing: it is refused."""
    path = tmp_path / "x.yaml"
    path.write_text(f"model: {{name: m}}\noptimizer: {{name: {name}}}\n")
    with pytest.raises(UserError, match=rf"--optimizer\.{key}: optimizer\.{key} belongs to"):
        load_config(path, [f"--optimizer.{key}", "0.5"])
