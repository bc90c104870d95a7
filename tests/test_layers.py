# SPDX-License-Identifier: Apache-2.0
"""The house: which folder may import which."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GROUND = {
    "errors",
    "crash",
    "interrupt",
    "schema",
    "yaml_file",
    "image_size",
    "config",
    "task_config",
    "recipe_checks",
    "device",
    "cli",
    "mindspore_version",
}
ROOMS_OF_DEPLOY = {"deploy.running", "deploy.onnx", "deploy.folding"}
MAY_IMPORT = {
    "ops": {"ops"},
    "boxes": {"boxes", "ops"},
    "heads": {"heads", "boxes", "ops"},
    "models": {"models", "heads", "boxes", "ops", "image_size"},
    "data": {"data"} | GROUND,
    "training": {"training", "data", "models", "boxes", "ops"} | GROUND,
    "tasks": {"tasks", "training", "data", "models", "boxes", "ops"} | GROUND,
    "figures": {"figures", "training", "data", "models", "ops"} | GROUND,
    "convert": {"convert", "training", "models", "ops"} | GROUND,
    "measure": {"measure", "deploy", "deploy.onnx", "deploy.folding", "tasks", "training", "models", "ops"} | GROUND,
    "study": {"study", "measure", "tasks", "training", "models", "ops"} | GROUND,
    "deploy": {"deploy", *ROOMS_OF_DEPLOY, "tasks", "training", "data", "models", "ops"} | GROUND,
    "deploy.running": {"deploy.running", "deploy.card", "tasks", "training", "data", "models"} | GROUND,
    "deploy.onnx": {"deploy.onnx", "deploy.card", "ops.resize"} | GROUND,
    "deploy.folding": {"deploy.folding", "models", "heads", "ops"},
    **{name: GROUND for name in GROUND},
}
FILES = sorted((ROOT / "src").rglob("*.py"))


def layer_of(module):
    """The folder of a module, or the room in it, or the module itself where it lies in `src`."""
    parts = module.split(".")[1:]
    room = ".".join(parts[:2])
    return room if room in MAY_IMPORT else parts[0]


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_layer_imports_only_what_lies_below_it(path):
    """Data flows one way, from config to deployment; an import against it is a cycle to come."""
    layer = layer_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for module in imported_modules(path):
        if module.startswith("src."):
            may = MAY_IMPORT.get(layer, ())
            is_below = layer == "__init__" or layer_of(module) in may or module.removeprefix("src.") in may
            assert is_below, f"{path} imports {module}"
        assert module.split(".")[0] not in {"train", "eval", "export", "infer", "scripts"}, f"{path} imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "src" / "deploy").rglob("*.py")), ids=lambda path: path.stem)
def test_deployment_knows_no_task(path):
    """It asks for a task by its name; what is of one task alone is said in `src/tasks`."""
    assert not [module for module in imported_modules(path) if module.startswith("src.tasks.")]


def test_no_module_is_many_ideas():
    """300 lines are a habit; beyond 400 a file is more than one idea."""
    lines = {path.name: len(path.read_text().splitlines()) for path in [*FILES, *ROOT.glob("*.py")]}
    assert max(lines.values()) <= 400, max(lines, key=lines.get)
