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
    "recipe_checks",
    "device",
    "cli",
    "mindspore_version",
}
MAY_IMPORT = {
    "ops": {"ops"},
    "heads": {"heads", "ops"},
    "models": {"models", "heads", "ops", "image_size"},
    "data": {"data"} | GROUND,
    "training": {"training", "data", "models", "ops"} | GROUND,
    "figures": {"figures", "training", "data", "models", "ops"} | GROUND,
    "convert": {"convert", "training", "models", "ops"} | GROUND,
    "measure": {"measure", "deploy", "training", "models", "ops"} | GROUND,
    "study": {"study", "measure", "training", "models", "ops"} | GROUND,
    "deploy": {"deploy", "training", "data", "models", "ops"} | GROUND,
    **{name: GROUND for name in GROUND},
}
FILES = sorted((ROOT / "src").rglob("*.py"))


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_layer_imports_only_what_lies_below_it(path):
    """Data flows one way, from config to deployment; an import against it is a cycle to come."""
    layer = path.relative_to(ROOT / "src").parts[0].removesuffix(".py")
    for module in imported_modules(path):
        if module.startswith("src."):
            assert layer == "__init__" or module.split(".")[1] in MAY_IMPORT[layer], f"{path} imports {module}"
        assert module.split(".")[0] not in {"train", "eval", "export", "infer", "scripts"}, f"{path} imports {module}"


def test_no_module_is_many_ideas():
    """300 lines are a habit; beyond 400 a file is more than one idea."""
    lines = {path.name: len(path.read_text().splitlines()) for path in [*FILES, *ROOT.glob("*.py")]}
    assert max(lines.values()) <= 400, max(lines, key=lines.get)
