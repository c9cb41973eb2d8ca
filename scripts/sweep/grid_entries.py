"""Build a sweep from the entries (one setting each) of its file and its flags."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.sweep.grid import BASE, SEED, Sweep, format_setting, short_names
from scripts.sweep.random_search import Range
from utils.config.load import cast
from utils.config.schema import check_range, expand_paths, flat_fields
from utils.errors import UserError
from utils.suggest import leaf_of

PARTS = ("grid", "each", "random", "set")  # keys of a sweep's file that contain settings
# All other keys of a sweep's file. `points` and `random_seed` belong to `random`.
SWEEP_KEYS = {"config": str, "out": str, "seeds": tuple[int, ...], "points": int}
SWEEP_KEYS |= {"random_seed": int}


@dataclass(frozen=True)
class Entry:
    """One setting in a part of a sweep."""

    part: str  # one of PARTS
    change: str  # name of the change, if it is part of a named change of several settings; or ""
    name: str  # dotted
    value: Any  # as parsed from YAML, unchecked
    where: str  # file, line and key, or flag; for messages

    @property
    def key(self) -> tuple[str, str]:
        """Two entries with the same key contradict each other, even if in different parts.

        Not so in `each`: a setting may be part of several changes, and of `set`.
        """
        return (f"each {self.change}" if self.part == "each" else "", self.name)


def setting_fields(cls: type) -> tuple[dict[str, tuple[Any, Any]], dict[str, str]]:
    """Return the settings of a sweep: dotted name -> (type, field), and any name -> dotted name."""
    fields = flat_fields(cls)
    fields.pop("run_dir", None)  # the sweep names the folders
    return fields, {name: name for name in fields} | short_names(list(fields))


def check_given_once(entries: Sequence[Entry]) -> None:
    """Check that the entries of a file, or of the flags, give each setting once.

    Raises:
        UserError: a setting is given twice.
    """
    first: dict[tuple[str, str], Entry] = {}
    for one in entries:
        if (other := first.setdefault(one.key, one)) is not one:
            raise UserError(f"{one.where}: {one.name} is already given by {other.where}; drop one")


def make_sweep(
    entries: Sequence[Entry], plain: Mapping[str, Any], cls: type, path: str, named: Sequence[str]
) -> Sweep:
    """Return the sweep that the entries describe, with the settings of the dataclass `cls`.

    Args:
        plain: values of SWEEP_KEYS.
        path: of the file, for messages.
        named: the names of those changes that set several settings, in order.

    Raises:
        UserError: a value has the wrong type or is out of range, or parts can't be combined.
    """
    fields, names = setting_fields(cls)
    axes: dict[str, list[Any]] = {}
    fixed: dict[str, Any] = {}
    ranges: dict[str, Range] = {}
    changes: dict[str, dict[str, Any]] = {change: {} for change in named}
    for entry in entries:
        name, kind_and_field = entry.name, fields[entry.name]
        if entry.part == "random":
            ranges[name] = range_of(entry, kind_and_field)
        elif entry.change:
            changes[entry.change][name] = checked(entry.value, kind_and_field, entry.where)
        elif entry.part == "set":
            fixed[name] = checked(entry.value, kind_and_field, entry.where)
        elif entry.part == "grid":
            axes[name] = values_of(entry, kind_and_field)
        else:
            label = leaf_of(name) if names.get(leaf_of(name)) == name else name
            for value in values_of(entry, kind_and_field):
                change = f"{label}={format_setting(value)}"
                if change in changes:
                    raise UserError(f"{entry.where}: a change {change} already exists; rename it")
                changes[change] = {name: value}
    others = {"n_combinations" if key == "points" else key: value for key, value in plain.items()}
    sweep = Sweep(axes=axes, fixed=fixed, ranges=ranges, changes=changes, **others)
    check_sweep(sweep, path)
    return sweep


def checked(value: Any, kind_and_field: tuple[Any, Any], where: str) -> Any:
    """Return a value converted to the setting's type.

    Raises:
        UserError: the value has another type or is out of range.
    """
    kind, field = kind_and_field
    value = cast(value, kind, where)
    check_range(value, field.metadata, where)
    return expand_paths(value, field.metadata, where)


def values_of(entry: Entry, kind_and_field: tuple[Any, Any]) -> list[Any]:
    """Return the checked values of a list.

    Raises:
        UserError: not a list, an empty list, or a duplicate value.
    """
    given, where = entry.value, entry.where
    if not isinstance(given, list) or not given:
        raise UserError(f"{where}: expected a list of values, such as [1, 2]; got {given!r}")
    values = [checked(one, kind_and_field, where) for one in given]
    if any(one in values[:i] for i, one in enumerate(values)):
        raise UserError(f"{where}: a value is given twice; drop one")
    return values


def range_of(entry: Entry, kind_and_field: tuple[Any, Any]) -> Range:
    """Return the range of `[low, high]`, `[low, high, log]` or `[one, another, ..., choice]`.

    Raises:
        UserError: the value has another form, or the range is empty.
    """
    given, where = entry.value, entry.where
    how = given[-1] if isinstance(given, list) and given else None
    if how == "choice":
        values = values_of(dataclasses.replace(entry, value=given[:-1]), kind_and_field)
        return Range(choices=tuple(values))
    numbers = given[:-1] if how == "log" else given
    if kind_and_field[0] not in (int, float) or not isinstance(numbers, list) or len(numbers) != 2:
        raise UserError(
            f"{where}: expected [low, high] or [low, high, log] for numbers, or [one, another, "
            f"choice]; got {given!r}"
        )
    low, high = (checked(one, kind_and_field, where) for one in numbers)
    if not low < high:
        raise UserError(f"{where}: {low} is not below {high}; give the lower bound first")
    if how == "log" and low <= 0:
        raise UserError(f"{where}: a log range must start above 0, not at {low}")
    return Range(low, high, how == "log", kind_and_field[0] is int)


def check_sweep(sweep: Sweep, path: str) -> None:
    """Check the combination of the parts of a sweep.

    Raises:
        UserError: the parts can't be combined.
    """
    kinds = {"grid": sweep.axes, "each": sweep.changes, "random": sweep.ranges}
    given = [kind for kind, settings in kinds.items() if settings]
    if len(given) > 1:
        raise UserError(f"{path}: has {' and '.join(given)}; a sweep can have only one of them")
    for change, settings in sweep.changes.items():
        if not settings:
            raise UserError(f"{path}: each: {change}: a change without settings; add some")
        if change == BASE:
            raise UserError(
                f"{path}: each: {BASE} is the name of the point without a change; rename it"
            )
    if sweep.seeds and SEED in {*sweep.fixed, *sweep.setting_names}:
        raise UserError(f"{path}: {SEED}: seeds are already given by `seeds`; drop one of them")
    if any(SEED in settings for settings in sweep.changes.values()):
        raise UserError(f"{path}: each: {SEED}: a seed is not a change; give seeds: [1, 2]")
    if len(set(sweep.seeds)) != len(sweep.seeds) or any(seed < 0 for seed in sweep.seeds):
        raise UserError(f"{path}: seeds: must be different whole numbers of 0 or more")
    if sweep.ranges and sweep.n_combinations < 1:
        raise UserError(f"{path}: random needs the number of points, such as points: 20")
    if not sweep.ranges and (sweep.n_combinations or sweep.random_seed is not None):
        name = "points" if sweep.n_combinations else "random_seed"
        raise UserError(f"{path}: {name} has an effect only with random; drop it")
