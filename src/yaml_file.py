# SPDX-License-Identifier: Apache-2.0
"""YAML as people write it: 1e-4 is a number, a key given twice is an error, and errors name the line."""

import os
import re
from pathlib import Path

import yaml

from src.errors import UserError


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node, deep=False):
        seen = set()
        for name, _ in node.value:
            if str(name.value) in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{name.value} is given twice", problem_mark=name.start_mark
                )
            seen.add(str(name.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    pass


# YAML 1.1 takes 1e-4 for a string; the dumper must know too, to quote a string that looks like it.
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


def parse_yaml(text, source):
    """Return what `text` says; `UserError` naming `source` and the line if it is not YAML."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{source}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error


def read_yaml(path):
    """Return the mapping in a YAML file, {} for an empty one; `UserError` if it cannot be read or is no mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"no config file {path}; the project's are in config/") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read config file {path}: {getattr(error, 'strerror', 'not UTF-8 text')}") from error
    content = parse_yaml(text, path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__} but takes sections such as 'model:' with their keys")
    return content


def write_yaml(mapping, path):
    """Write `mapping`; the file appears whole or not at all. `UserError` if it cannot be written."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        partial.write_text(yaml.dump(mapping, Dumper=_Dumper, sort_keys=False), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
