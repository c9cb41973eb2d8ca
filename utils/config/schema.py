"""Settings as dataclass fields: help text, range, and dependencies between them.

A setting is a field made with `setting(default, help)`. The `__post_init__` of a dataclass of
settings calls `check`.
"""

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from utils.cli import expand_home
from utils.errors import UserError

# Setting -> the settings that it depends on, each with the condition under which it has an effect:
# True = must be set, False = must not be set, or a tuple of values.
Dependencies = Mapping[str, Mapping[str, bool | tuple[Any, ...]]]


def setting(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[str] | None = None,
    may_change_on_resume: bool = False,
    is_path: bool = False,
    instead_of: str = "",
    only_at_start: bool = False,
) -> Any:
    """Return a dataclass field with its help text (unit included) and its range.

    Args:
        may_change_on_resume: the setting does not affect the results of a run, so a resumed run may
            change it.
        is_path: the value is a path (or paths), in which ~ is the home folder.
        instead_of: the dotted name of another setting, which must not be set together with it.
        only_at_start: a new run derives other settings from it; a resumed run ignores it.
    """
    metadata = locals().copy()  # all arguments, by name
    return dataclasses.field(default=metadata.pop("default"), metadata=metadata)


def path_setting(default: Any, help: str) -> Any:
    """Return the field of a path or paths that a resumed run may change."""
    return setting(default, help, may_change_on_resume=True, is_path=True)


def flat_fields(cls: type, prefix: str = "") -> dict[str, tuple[Any, dataclasses.Field[Any]]]:
    """Return dotted name -> (type, field) for every setting of a dataclass and its sections."""
    found: dict[str, tuple[Any, dataclasses.Field[Any]]] = {}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name, kind = prefix + field.name, hints[field.name]
        if dataclasses.is_dataclass(kind):
            found.update(flat_fields(typing.cast(type, kind), name + "."))
        else:
            found[name] = (kind, field)
    return found


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return dotted name -> value of a dataclass tree, in the order of the fields."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat.update(flatten(value, f"{prefix}{field.name}."))
        else:
            flat[prefix + field.name] = value
    return flat


def check(config: Any) -> None:
    """Check each field of a dataclass against its range. Call it in `__post_init__`.

    Raises:
        UserError: names the first setting out of range.
    """
    for field in dataclasses.fields(config):
        if "help" in field.metadata:
            check_range(getattr(config, field.name), field.metadata, field.name)


def check_dependencies(config: Any, dependencies: Dependencies, section: str) -> None:
    """Refuse a setting that differs from its default but has no effect given the others.

    Args:
        config: one dataclass of settings.
        dependencies: of the settings in `config`.
        section: the section's name, for the message.

    Raises:
        UserError: names the setting, and the one that it depends on.
    """
    for field in dataclasses.fields(config):
        if getattr(config, field.name) == field.default:
            continue
        for other, condition in dependencies.get(field.name, {}).items():
            value = getattr(config, other)
            if bool(value) is condition or isinstance(condition, tuple) and value in condition:
                continue
            choices = " or ".join(map(str, condition)) if isinstance(condition, tuple) else ""
            needed = f"{section}.{other}{choices and ' ' + choices}"
            preposition, hint = "with", f"drop it, or set {section}.{other}"
            if condition is False:
                preposition, hint = "without", "drop one of them"
            raise UserError(
                f"{section}.{field.name} has an effect only {preposition} {needed}; {hint}"
            )


def check_range(value: Any, metadata: Mapping[str, Any], where: str) -> None:
    """Check a value (or each item of a tuple) against the limits of its setting.

    Raises:
        UserError: out of range, not finite, or not one of the choices.
    """
    if isinstance(value, tuple):
        for item in value:
            check_range(item, metadata, where)
        return
    if value is None:
        return
    if isinstance(value, str):
        try:
            value.encode("utf-8", "surrogateescape")  # odd bytes of a path or separator are allowed
        except UnicodeEncodeError as error:
            raise UserError(
                f"{where}: character {error.start} is half of a surrogate pair, which is not text; "
                "write the whole character"
            ) from None
    if (choices := metadata.get("choices")) and value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(f"{where}: expected one of {', '.join(choices)}; got {value!r}{hint}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: must be a finite number, got {value}")
    # torch's integers have 64 bits
    largest = 2**63 - 1 if isinstance(value, int) and metadata.get("minimum") is not None else None
    for limit, holds, words in (
        (metadata.get("minimum"), lambda a, b: a >= b, "at least"),
        (metadata.get("maximum"), lambda a, b: a <= b, "at most"),
        (metadata.get("above"), lambda a, b: a > b, "above"),
        (metadata.get("below"), lambda a, b: a < b, "below"),
        (largest, lambda a, b: a <= b, "at most"),
    ):
        if limit is not None and not holds(value, limit):
            raise UserError(f"{where}: must be {words} {limit}, got {value}")


def expand_paths(value: Any, metadata: Mapping[str, Any], where: str) -> Any:
    """Return the value of a setting with ~ replaced by the home folder, if it is a path or paths.

    Raises:
        UserError: there is no such user.
    """
    if not metadata.get("is_path") or not value:
        return value
    if isinstance(value, tuple):
        return tuple(expand_home(path, where) for path in value)
    return expand_home(value, where)


def describe(metadata: Mapping[str, Any]) -> str:
    """Return the help text and range of a setting."""
    notes = []
    if metadata.get("choices"):
        notes.append("one of " + ", ".join(metadata["choices"]))
    for key, sign in (("minimum", ">="), ("maximum", "<="), ("above", ">"), ("below", "<")):
        if metadata.get(key) is not None:
            notes.append(f"{sign} {metadata[key]}")
    return metadata["help"] + (f" ({'; '.join(notes)})" if notes else "")
