"""The points of a sweep: all combinations of a grid, one change at a time, or random draws."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.sweep.random_search import Range, sample_points
from utils.config.strict_yaml import format_value
from utils.suggest import SYNONYMS, leaf_of

SEED = "train.seed"
BASE = "base"  # the point without a change
# What a sweep's folder holds beside its runs.
PICTURES = ("curves.png", "axes.png", "changes.png")
RESERVED = ("logs", "lock", "results.csv", *PICTURES)
MAX_NAME_LENGTH = 120  # characters of a folder's name; file systems stop at 255


@dataclass(frozen=True)
class Point:
    """One run: where its folder goes, and the settings it has beside the base's."""

    name: str
    values: dict[str, Any]  # the grid's or the change's settings, dotted name -> value
    seed: int | None  # None: the base's
    settings: dict[str, Any]  # all that are given to the run, the seed too
    change: str = ""  # its name, where the sweep makes one change at a time; the base's too


@dataclass(frozen=True)
class Grid:
    """A sweep as its file describes it. Axes and settings go by dotted names."""

    config: str = ""
    out: str = ""
    axes: dict[str, list[Any]] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> settings
    ranges: dict[str, Range] = field(default_factory=dict)
    n_points: int = 0  # drawn from the ranges
    random_seed: int | None = None

    @property
    def settings(self) -> list[str]:
        """The settings in which points differ, each once."""
        changed = [name for change in self.changes.values() for name in change]
        return list(dict.fromkeys([*self.axes, *self.ranges, *changed]))

    def combinations(self) -> list[tuple[str, dict[str, Any]]]:
        """Name of the change and settings of every point, whatever its seed."""
        if self.changes:
            return [(BASE, {}), *self.changes.items()]
        if self.ranges:
            seed = 1 if self.random_seed is None else self.random_seed
            return [("", point) for point in sample_points(self.ranges, self.n_points, seed)]
        products = itertools.product(*self.axes.values())
        return [("", dict(zip(self.axes, values, strict=True))) for values in products]

    def points(self) -> list[Point]:
        """Every combination, the last axis fastest, and every seed of a combination in a row.

        >>> grid = Grid(axes={"model.n_layer": [1, 2], "optim.lr": [0.1]}, seeds=(1, 2))
        >>> [point.name for point in grid.points()][:2]
        ['n_layer=1_lr=0.1_seed=1', 'n_layer=1_lr=0.1_seed=2']
        """
        found: list[Point] = []
        for change, values in self.combinations():
            for seed in self.seeds or (None,):
                own = {} if seed is None else {SEED: seed}
                name = folder_name(own if change else values | own, change)
                taken = (*RESERVED, *(other.name for other in found))
                if len(name) > MAX_NAME_LENGTH or name in taken:
                    name = f"{name[:MAX_NAME_LENGTH]}_point={len(found)}"
                found.append(Point(name, values, seed, {**self.fixed, **values, **own}, change))
        return found


def folder_name(values: Mapping[str, Any], change: str = "") -> str:
    """A folder's name that tells the settings, or the change.

    >>> folder_name({"model.n_embd": 64, "optim.betas": (0.9, 0.95), "data.files": ("a/b.txt",)})
    'n_embd=64_betas=0.9+0.95_files=a-b.txt'
    >>> folder_name({"train.seed": 1}, "no pointer")
    'no-pointer_seed=1'
    """
    words = [f"{leaf_of(name)}={value_name(value)}" for name, value in values.items()]
    return "_".join([file_name(change, keep="_=")] * bool(change) + words) or BASE


def value_name(value: Any) -> str:
    """A value as a part of a folder's name."""
    if isinstance(value, tuple):
        return "+".join(map(value_name, value))
    return file_name(format_setting(value))


def file_name(text: str, keep: str = "") -> str:
    """Text as a part of a folder's name; of other characters than the usual, those in `keep` stay.

    >>> file_name("../a b_c"), file_name("a b_c", keep="_")
    ('a-b-c', 'a-b_c')
    """
    return re.sub(f"[^A-Za-z0-9.+{keep}-]+", "-", text).strip("-.") or "empty"


def format_setting(value: Any) -> str:
    """A setting as text: without quotes where it is text."""
    return value if isinstance(value, str) else format_value(value)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Short name -> dotted name, where only one setting ends in it; and the synonyms.

    >>> names = short_names(["model.n_embd", "optim.lr", "a.x", "b.x"])
    >>> names["lr"], names["d_model"], "x" in names
    ('optim.lr', 'model.n_embd', False)
    """
    leaves = [leaf_of(name) for name in names]
    short = {
        leaf: name
        for leaf, name in zip(leaves, names, strict=True)
        if leaves.count(leaf) == 1 and leaf != name
    }
    return short | {other: name for other, name in SYNONYMS.items() if name in names}
