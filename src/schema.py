# SPDX-License-Identifier: Apache-2.0
"""Typed settings from plain mappings: each dataclass field says what it is for and which values it takes."""

import contextlib
import dataclasses
import math
import types
import typing

from src.errors import UserError, did_you_mean

_KIND_TEXT = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    dict: "a mapping",
    list[float]: "a list of numbers",
    list[str]: "a list of strings",
    int | list[int]: "an integer or two in a list",
    str | list[float]: "a string or a list of numbers",
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which values a key takes: `text` as messages and `--help` print it, `accepts(value) -> bool`."""

    text: str
    accepts: typing.Callable[[typing.Any], bool]
    choices: tuple = ()


def at_least(low):
    return Rule(f"at least {low}", lambda value: value >= low)


def zero_or_at_least(low):
    return Rule(f"0 or at least {low}", lambda value: value == 0 or value >= low)


def between(low, high):
    return Rule(f"from {low} to {high}", lambda value: low <= value <= high)


def below(low, high):
    return Rule(f"from {low} to below {high}", lambda value: low <= value < high)


def one_of(*choices):
    return Rule(f"one of {', '.join(map(str, choices))}", lambda value: value in choices, choices)


def ascending_pair(high=math.inf):
    limit = "" if math.isinf(high) else f" and at most {high}"
    return Rule(
        f"two above 0{limit}, the smaller first",
        lambda value: len(value) == 2 and 0 < value[0] <= value[1] <= high,
    )


def each(rule):
    return Rule(f"one or more, each {rule.text}", lambda value: value and all(map(rule.accepts, value)))


def each_if_any(rule):
    return Rule(f"none or more, each {rule.text}", lambda value: all(map(rule.accepts, value)))


def names():
    return Rule("none or more, each not empty and none twice", lambda value: all(value) and len({*value}) == len(value))


def each_of_two(rule):
    """One value, or a list of two."""
    return Rule(
        rule.text,
        lambda value: (
            len(value) == 2 and all(map(rule.accepts, value)) if isinstance(value, list) else rule.accepts(value)
        ),
    )


def listed_or(rule, *choices):
    """One of `choices`, or a list of values that `rule` takes."""
    return Rule(
        f"{' or '.join(choices)}, or a list with each {rule.text}",
        lambda value: all(map(rule.accepts, value)) and bool(value) if isinstance(value, list) else value in choices,
        choices,
    )


def key(default, help_text, rule=None):
    """Return a dataclass field with its help text and `Rule`; a list or mapping as `default` is copied."""
    metadata = {"help": help_text, "rule": rule}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: default.copy(), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def section(schema):
    """Return a dataclass field that holds the keys of the dataclass `schema`."""
    return dataclasses.field(default_factory=schema, metadata={"section": schema})


def walk(schema, prefix=""):
    """Yield `(dotted key, field, type)` for every key of `schema` and of its sections."""
    types = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        name = prefix + field.name
        if "section" in field.metadata:
            yield from walk(field.metadata["section"], name + ".")
        else:
            yield name, field, types[field.name]


def suggest(name, keys):
    """Return `"; did you mean 'x'?"` for the nearest of the dotted `keys`, or `""`."""
    same_leaf = [known for known in keys if known.rpartition(".")[2] == name.rpartition(".")[2]]
    return f"; did you mean '{same_leaf[0]}'?" if len(same_leaf) == 1 else did_you_mean(name, keys)


def describe(schema):
    """Return one line a key: its name, type, default, meaning and the values it takes."""
    lines = []
    for name, field, kind in walk(schema):
        takes = _takes(kind, field.metadata["rule"])
        if field.default is not dataclasses.MISSING:
            takes += f"; default {field.default!r}"
        elif field.default_factory is not dataclasses.MISSING:
            takes += f"; default {field.default_factory()!r}"
        lines.append(f"  {name:28} {field.metadata['help']} ({takes})")
    return "\n".join(lines)


def flatten(schema, nested, source):
    """Turn nested mappings into `{dotted key: (value, source)}`.

    Args:
        nested: sections and keys as YAML gives them; an empty section (None) sets nothing.
        source: name of the file, for messages.

    Raises:
        UserError: an unknown key, or a value where a section belongs.
    """
    keys = [name for name, _, _ in walk(schema)]
    settings = {}

    def add(mapping, prefix):
        for name, value in mapping.items():
            full = f"{prefix}{name}"
            inside = [known for known in keys if known.startswith(full + ".")]
            if full in keys:
                settings[full] = (value, source)
            elif not inside:
                raise UserError(f"{source}: unknown key {full}{suggest(full, keys)}")
            elif isinstance(value, dict):
                add(value, full + ".")
            elif value is not None:
                raise UserError(f"{source}: {full} is {value!r} but takes a section with keys such as {inside[0]}")

    add(nested, "")
    return settings


def build(schema, settings, source, prefix=""):
    """Make a `schema` object from `{dotted key: (value, source)}`; keys left out keep their defaults.

    Raises:
        UserError: a wrong type, a value the key does not take, or (naming `source`) a key without default left out.
    """
    types = typing.get_type_hints(schema)
    values = {}
    for field in dataclasses.fields(schema):
        full = prefix + field.name
        if "section" in field.metadata:
            values[field.name] = build(field.metadata["section"], settings, source, full + ".")
        elif full in settings:
            values[field.name] = _checked(full, *settings[full], types[field.name], field.metadata["rule"])
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise UserError(f"{source}: {full} is missing ({field.metadata['help']})")
    return schema(**values)


def _checked(full, value, source, kind, rule):
    try:
        converted = _convert(value, kind)
    except (TypeError, OverflowError):
        accepted = False
    else:
        accepted = rule is None or rule.accepts(converted)
    if not accepted:
        near = did_you_mean(value, rule.choices) if rule and isinstance(value, str) else ""
        raise UserError(f"{source}: {full} is {value!r} but takes {_takes(kind, rule)}{near}")
    return converted


def _takes(kind, rule):
    return f"{_KIND_TEXT[kind]}, {rule.text}" if rule else _KIND_TEXT[kind]


def _convert(value, kind):
    """Return `value` as `kind` (an integer is a number too, a boolean is not), or raise TypeError."""
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if isinstance(kind, types.UnionType):
        for option in typing.get_args(kind):
            with contextlib.suppress(TypeError):
                return _convert(value, option)
    if typing.get_origin(kind) is list and isinstance(value, list):
        return [_convert(item, *typing.get_args(kind)) for item in value]
    if kind is dict and isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return value
    if kind in (bool, int, str) and type(value) is kind:
        return value
    raise TypeError
