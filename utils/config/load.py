"""Fill dataclasses of settings from YAML files and flags, strictly.

`load(cls, paths, overrides)` fills a tree of dataclasses (see utils.config.schema) from YAML, then
from `--section.name value` flags. A setting that is unknown, of the wrong type or out of range
raises a UserError that names the file and line (or the flag) and suggests the nearest name.
"""

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from utils.config.schema import check_range, describe, expand_paths, flat_fields, flatten
from utils.config.strict_yaml import format_value, parse_value, read_yaml, unknown_key
from utils.errors import UserError

T = TypeVar("T")


def load(
    cls: type[T],
    paths: Sequence[str],
    overrides: Mapping[str, str | list[str]],
    more: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda given: {},
) -> tuple[T, dict[str, Any]]:
    """Fill `cls` from its defaults, then each YAML file, then flags. Later values override.

    Args:
        overrides: flags, as dotted name -> text.
        more: returns settings, by name, that follow from those that files or flags have set.

    Returns:
        The config, and the settings that files or flags have set, as dotted name -> value.

    Raises:
        UserError: the first mistake, with file and line or flag.
    """
    fields = flat_fields(cls)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}

    def override(found: Mapping[str, Any]) -> None:
        """Add the settings of one source. One replaces the setting that it is set instead of."""
        for name, (_, field) in fields.items():
            if not (other := field.metadata["instead_of"]):
                continue
            if found.get(name) and other in found:
                raise UserError(f"{origins[name]}{name}: {other} is set, too; drop one of them")
            if found.get(name) or other in found:
                values.pop(name, None)
            if found.get(name):
                values.pop(other, None)
        values.update(found)

    for path in paths:
        found: dict[str, Any] = {}
        for name, (node_value, line) in read_yaml(path, fields).items():
            found[name] = cast(node_value, fields[name][0], f"{path}:{line}: {name}")
            origins[name] = f"{path}:{line}: "
        override(found)
    found = {}
    for name, text in overrides.items():
        if name not in fields:
            raise UserError(f"--{name}: {unknown_key(name, fields)}")
        found[name] = cast_flag(text, fields[name][0], f"--{name}")
        origins[name] = "--"
    override(found)
    for name, value in values.items():
        metadata, where = fields[name][1].metadata, origins.get(name, "") + name
        check_range(value, metadata, where)
        values[name] = expand_paths(value, metadata, where)
    return build(cls, {**values, **more(values)}), values


def build(cls: type[T], flat: Mapping[str, Any], prefix: str = "") -> T:
    """Build the dataclass tree from dotted names. A missing name keeps its default."""
    hints = typing.get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        name = prefix + field.name
        if dataclasses.is_dataclass(hints[field.name]):
            arguments[field.name] = build(typing.cast(type, hints[field.name]), flat, name + ".")
        elif name in flat:
            arguments[field.name] = flat[name]
    return cls(**arguments)


def cast(value: Any, kind: Any, where: str, text: str | None = None) -> Any:
    """Convert `value` to the declared type.

    >>> cast(3, float, "optim.lr")
    3.0

    Args:
        kind: the declared type.
        where: the name of the setting and its origin, for messages.
        text: the value as it was typed, for a flag.

    Raises:
        UserError: the value is not of that type; text in quotes is never a number.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):  # X | None
        if value is None:
            return None
        (kind,) = [option for option in inner if option is not type(None)]
        return cast(value, kind, where, text)
    if origin is tuple:
        variable = len(inner) == 2 and inner[1] is Ellipsis
        if variable and value is not None and not isinstance(value, list):
            value = [value]
        if not isinstance(value, list) or (not variable and len(value) != len(inner)):
            raise UserError(f"{where}: expected {_type_name(kind)}, got {value!r}")
        kinds = [inner[0]] * len(value) if variable else inner
        return tuple(cast(item, one, where) for item, one in zip(value, kinds, strict=True))
    if kind is str and text is not None:
        # A flag's text is taken literally, except for quotes around it: `--name 1` is the text "1".
        return value if isinstance(value, str) and text[:1] in ("'", '"') else text
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) <= sys.float_info.max else math.inf
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)  # YAML reads 1e4 as a float
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise UserError(f"{where}: expected {_type_name(kind)}, got {value!r}")


def cast_flag(text: str | list[str], kind: Any, where: str) -> Any:
    """Convert the words of a flag to the declared type; a list is `a b`, or `[a, b]` in one word.

    >>> cast_flag(["0.9", "0.95"], tuple[float, float], "--optim.betas")
    (0.9, 0.95)

    Raises:
        UserError: the value is not of that type.
    """
    if not isinstance(text, list):
        return cast(parse_value(text), kind, where, text)
    # In YAML, - is a list of nothing; as a word, it is often meant as standard input.
    if text != ["-"] and len(text) == 1 and isinstance(items := parse_value(text[0]), list):
        return cast(items, kind, where)
    words = text if typing.get_args(kind)[0] is str else [parse_value(word) for word in text]
    return cast(words, kind, where)


def dump(config: Any, *, comments: bool = False) -> str:
    """Return the settings as YAML, which `load` reads back to an equal config.

    Args:
        comments: add the help text of each setting.
    """
    lines: list[str] = []
    section = ""
    fields = flat_fields(type(config))
    for name, value in flatten(config).items():
        head, _, leaf = name.rpartition(".")
        if head != section:
            lines += [f"{head}:"] if head else []
            section = head
        text = f"{'  ' if head else ''}{leaf}: {format_value(value)}"
        if comments:
            text = f"{text:<38}  # {describe(fields[name][1].metadata)}"
        lines.append(text)
    return "\n".join(lines) + "\n"


def _type_name(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        if inner[1:] == (Ellipsis,):
            return f"a list of {_type_name(inner[0])}"
        return f"a list of {len(inner)} {_type_name(inner[0])}s"
    names = {int: "int", float: "number", bool: "true or false", str: "text"}
    return names.get(kind, str(kind))
