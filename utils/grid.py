"""Grids of settings from a YAML file: every combination of the values given, as points to run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from utils.config import cast, check_range, flat_fields
from utils.errors import UserError
from utils.nearest import SYNONYMS
from utils.strict_yaml import format_value, read_yaml

SEED = "train.seed"
PLAIN_KEYS = {"config": str, "out": str, "seeds": tuple[int, ...]}
LONGEST_NAME = 120  # characters of a folder's name; file systems stop at 255


@dataclass(frozen=True)
class Point:
    """One run: where its folder goes, and the settings it has beside the base's."""

    name: str
    values: dict[str, Any]  # the grid's settings, dotted name -> value
    seed: int | None  # None: the base's
    settings: dict[str, Any]  # all that are given to the run, the seed too


@dataclass(frozen=True)
class Grid:
    """A sweep as its file describes it. Axes and fixed settings go by dotted names."""

    config: str = ""
    out: str = ""
    axes: dict[str, list[Any]] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()

    def points(self) -> list[Point]:
        """Every combination, the last axis fastest, and every seed of a combination in a row.

        >>> grid = Grid(axes={"model.n_layer": [1, 2], "optim.lr": [0.1]}, seeds=(1, 2))
        >>> [point.name for point in grid.points()][:2]
        ['n_layer=1_lr=0.1_seed=1', 'n_layer=1_lr=0.1_seed=2']
        """
        found: list[Point] = []
        for combination in itertools.product(*self.axes.values()):
            values = dict(zip(self.axes, combination, strict=True))
            for seed in self.seeds or (None,):
                own = {} if seed is None else {SEED: seed}
                name = point_name(values | own)
                if len(name) > LONGEST_NAME or any(name == other.name for other in found):
                    name = f"{name[:LONGEST_NAME]}_point={len(found)}"
                found.append(Point(name, values, seed, {**self.fixed, **values, **own}))
        return found


def point_name(values: Mapping[str, Any]) -> str:
    """A folder's name that tells the settings.

    >>> point_name({"model.n_embd": 64, "optim.betas": (0.9, 0.95), "data.files": ("a/b.txt",)})
    'n_embd=64_betas=0.9+0.95_files=a-b.txt'
    """
    words = [
        f"{name.rpartition('.')[2]}={value_name(value)}" for name, value in values.items()
    ] or ["base"]
    return "_".join(words)


def value_name(value: Any) -> str:
    """A value as a part of a folder's name."""
    if isinstance(value, tuple):
        return "+".join(map(value_name, value))
    text = value if isinstance(value, str) else format_value(value)
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", text).strip("-.") or "empty"


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Short name -> dotted name, where only one setting ends in it; and the synonyms.

    >>> names = short_names(["model.n_embd", "optim.lr", "a.x", "b.x"])
    >>> names["lr"], names["d_model"], "x" in names
    ('optim.lr', 'model.n_embd', False)
    """
    leaves = [name.rpartition(".")[2] for name in names]
    short = {
        leaf: name
        for leaf, name in zip(leaves, names, strict=True)
        if leaves.count(leaf) == 1 and leaf != name
    }
    return short | {other: name for other, name in SYNONYMS.items() if name in names}


def load_grid(path: str, cls: type) -> Grid:
    """Reads a sweep's file; its settings are those of the dataclass `cls`.

    Keys: config (base file), out (folder of the runs), grid (setting: list of values), set
    (setting: value, for every run), seeds (list). A setting goes by its dotted name, nested or not,
    or by the last part of it.

    Raises:
        UserError: the first mistake, with file and line.
    """
    fields = flat_fields(cls)
    fields.pop("run_dir", None)  # the sweep names the folders
    names = {name: name for name in fields} | short_names(list(fields))
    known = {f"{part}.{name}": 0 for part in ("grid", "set") for name in names}
    plain: dict[str, Any] = {}
    settings: dict[str, dict[str, Any]] = {"grid": {}, "set": {}}
    lines: dict[str, int] = {}
    for key, (value, line) in read_yaml(path, {**PLAIN_KEYS, **known}).items():
        where = f"{path}:{line}: {key}"
        if key in PLAIN_KEYS:
            plain[key] = cast(value, PLAIN_KEYS[key], where)
            continue
        part, _, given = key.partition(".")
        name = names[given]
        if name in lines:
            raise UserError(f"{where}: {name} is given already, on line {lines[name]}")
        lines[name] = line
        kind, metadata = fields[name][0], fields[name][1].metadata
        values = axis_values(value, where) if part == "grid" else [value]
        values = [cast(one, kind, where) for one in values]
        for one in values:
            check_range(one, metadata, where)
        if any(one in values[:i] for i, one in enumerate(values)):
            raise UserError(f"{where}: a value stands there twice")
        settings[part][name] = values if part == "grid" else values[0]
    seeds = plain.get("seeds", ())
    if seeds and SEED in lines:
        raise UserError(f"{path}:{lines[SEED]}: {SEED}: seeds are given already, by `seeds`")
    if len(set(seeds)) != len(seeds) or any(seed < 0 for seed in seeds):
        raise UserError(f"{path}: seeds: must be different whole numbers of 0 or more")
    return Grid(
        plain.get("config", ""), plain.get("out", ""), settings["grid"], settings["set"], seeds
    )


def axis_values(value: Any, where: str) -> list[Any]:
    """The values of one axis.

    Raises:
        UserError: not a list, or an empty one.
    """
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: expected a list of values, such as [1, 2]; got {value!r}")
    return value
