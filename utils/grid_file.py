"""A sweep's YAML file: what it may say, and its mistakes with file and line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from utils.config import cast, check_range, flat_fields
from utils.errors import UserError
from utils.grid import BASE, SEED, Grid, plain_text, short_names
from utils.nearest import leaf_of
from utils.strict_yaml import mappings_in, read_yaml

PLAIN_KEYS = {"config": str, "out": str, "seeds": tuple[int, ...]}
LISTS = ("grid", "each")  # a setting there has a list of values


def load_grid(path: str, cls: type) -> Grid:
    """Reads a sweep's file; its settings are those of the dataclass `cls`.

    Keys: config (base file), out (folder of the runs), seeds (list), set (setting: value, for every
    run), and either grid (setting: list of values, all combinations) or each (one change at a time:
    setting: list of values, or name: {setting: value, ...} for several settings at once). A setting
    goes by its dotted name, nested or not, or by its last part where no other setting ends in it.

    Raises:
        UserError: the first mistake, with file and line.
    """
    fields = flat_fields(cls)
    fields.pop("run_dir", None)  # the sweep names the folders
    names = {name: name for name in fields} | short_names(list(fields))
    places = {
        f"{part}.{name}": (part, "", names[name]) for part in (*LISTS, "set") for name in names
    }
    named = mappings_in(path, "each")
    for change in named:
        places |= {f"each.{change}.{name}": ("each", change, names[name]) for name in names}
    plain: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {"grid": {}, "set": {}}
    changes: dict[str, dict[str, Any]] = {change: {} for change in named}
    lines: dict[tuple[str, str], int] = {}
    for key, (value, line) in read_yaml(path, {**PLAIN_KEYS, **places}).items():
        where = f"{path}:{line}: {key}"
        if key in PLAIN_KEYS:
            plain[key] = cast(value, PLAIN_KEYS[key], where)
            continue
        part, change, name = places[key]
        once = (part if part == "each" else "", change), name
        if once in lines:
            raise UserError(f"{where}: {name} is given already, on line {lines[once]}")
        lines[once] = line
        wanted = axis_values(value, where) if part in LISTS and not change else [value]
        values = [checked(one, fields[name], where) for one in wanted]
        if any(one in values[:i] for i, one in enumerate(values)):
            raise UserError(f"{where}: a value stands there twice")
        if change:
            changes[change][name] = values[0]
        elif part == "each":
            label = leaf_of(name) if names.get(leaf_of(name)) == name else name
            for one in values:
                change_name = f"{label}={plain_text(one)}"
                if change_name in changes:
                    raise UserError(f"{where}: a change is named {change_name} already; rename it")
                changes[change_name] = {name: one}
        else:
            parts[part][name] = values if part == "grid" else values[0]
    grid = Grid(axes=parts["grid"], fixed=parts["set"], changes=changes, **plain)
    check_grid(grid, path)
    return grid


def checked(value: Any, kind_and_field: tuple[Any, Any], where: str) -> Any:
    """A value of the setting's type and in its range.

    Raises:
        UserError: it is not.
    """
    kind, field = kind_and_field
    value = cast(value, kind, where)
    check_range(value, field.metadata, where)
    return value


def axis_values(value: Any, where: str) -> list[Any]:
    """The values of one axis.

    Raises:
        UserError: not a list, or an empty one.
    """
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: expected a list of values, such as [1, 2]; got {value!r}")
    return value


def check_grid(grid: Grid, path: str) -> None:
    """Checks what the parts of a sweep say together.

    Raises:
        UserError: they don't go together.
    """
    if grid.axes and grid.changes:
        raise UserError(
            f"{path}: has both grid and each; all combinations, or one change at a time"
        )
    for change, settings in grid.changes.items():
        if not settings:
            raise UserError(f"{path}: each: {change}: a change without settings; give it some")
        if change == BASE:
            raise UserError(f"{path}: each: {BASE} names the point without a change; name it anew")
    given: Mapping[str, Any] = {**grid.fixed, **dict.fromkeys(grid.settings)}
    if grid.seeds and SEED in given:
        raise UserError(f"{path}: {SEED}: seeds are given already, by `seeds`; drop one of them")
    if len(set(grid.seeds)) != len(grid.seeds) or any(seed < 0 for seed in grid.seeds):
        raise UserError(f"{path}: seeds: must be different whole numbers of 0 or more")
