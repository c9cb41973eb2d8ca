"""The points of a sweep: all combinations of a grid, one change at a time, or random samples."""

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.sweep.random_search import Range, sample_combinations
from utils.config.strict_yaml import format_value
from utils.run.figure import FORMATS
from utils.suggest import SYNONYMS, leaf_of

SEED = "train.seed"
BASE = "base"  # the point without a change
# Names in a sweep's folder that are not runs.
PICTURES = ("curves", "axes", "changes")
FILES = ("logs", "lock", "results.csv", *(f"{x}.{y}" for x in PICTURES for y in FORMATS))
RESERVED = (*FILES, "con", "nul", "aux", "prn")  # Windows has devices of these names
MAX_NAME_LENGTH = 120  # characters of a folder's name; file systems allow 255 bytes


@dataclass(frozen=True)
class Point:
    """One run: the name of its folder, and the settings that differ from the base config."""

    name: str
    values: dict[str, Any]  # of the grid, the change or the random sample; dotted name -> value
    seed: int | None  # None: the seed of the base config
    settings: dict[str, Any]  # all settings given to the run, including the seed
    change: str = ""  # name of the change (or `base`), if the sweep makes one change at a time


@dataclass(frozen=True)
class Sweep:
    """A sweep as its file describes it. Settings have dotted names."""

    config: str = ""  # the base config, not the sweep's own file
    out: str = ""  # folder of the runs; "": the default
    axes: dict[str, list[Any]] = field(default_factory=dict)  # of a grid: setting -> values
    fixed: dict[str, Any] = field(default_factory=dict)  # settings of every point
    seeds: tuple[int, ...] = ()
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> settings
    ranges: dict[str, Range] = field(default_factory=dict)
    n_combinations: int = 0  # to sample from the ranges; each gives a point for each seed
    random_seed: int | None = None

    @property
    def setting_names(self) -> list[str]:
        """The names of the settings in which points differ, without duplicates."""
        changed = [name for change in self.changes.values() for name in change]
        return list(dict.fromkeys([*self.axes, *self.ranges, *changed]))

    def combinations(self) -> list[tuple[str, dict[str, Any]]]:
        """Return (name of the change or "", settings without the seed) for each combination."""
        if self.changes:
            return [(BASE, {}), *self.changes.items()]
        if self.ranges:
            seed = 1 if self.random_seed is None else self.random_seed
            sampled = sample_combinations(self.ranges, self.n_combinations, seed)
            return [("", values) for values in sampled]
        products = itertools.product(*self.axes.values())
        return [("", dict(zip(self.axes, values, strict=True))) for values in products]

    def points(self) -> list[Point]:
        """Return all points, one for each combination and seed. The seed varies fastest.

        >>> sweep = Sweep(axes={"model.n_layer": [1, 2], "optim.lr": [0.1]}, seeds=(1, 2))
        >>> [point.name for point in sweep.points()][:2]
        ['n_layer=1_lr=0.1_seed=1', 'n_layer=1_lr=0.1_seed=2']
        """
        found: list[Point] = []
        for change, values in self.combinations():
            for seed in self.seeds or (None,):
                seed_setting = {} if seed is None else {SEED: seed}
                name = folder_name(seed_setting if change else values | seed_setting, change)
                # Windows and macOS ignore case.
                taken = (*RESERVED, *(other.name.lower() for other in found))
                if len(name) > MAX_NAME_LENGTH or name.lower() in taken:
                    name = f"{name[:MAX_NAME_LENGTH]}_point={len(found)}"
                settings = {**self.fixed, **values, **seed_setting}
                found.append(Point(name, values, seed, settings, change))
        return found


def folder_name(values: Mapping[str, Any], change: str = "") -> str:
    """Return a folder's name made of the settings, or of the change and the seed.

    >>> folder_name({"model.n_embd": 64, "optim.betas": (0.9, 0.95), "data.files": ("a/b.txt",)})
    'n_embd=64_betas=0.9+0.95_files=a-b.txt'
    >>> folder_name({"train.seed": 1}, "no pointer")
    'no-pointer_seed=1'
    """
    words = [safe_name(change, keep="_=")] if change else []
    words += [f"{leaf_of(name)}={value_name(value)}" for name, value in values.items()]
    return "_".join(words) or BASE


def value_name(value: Any) -> str:
    """Return a value as a part of a folder's name."""
    if isinstance(value, tuple):
        return "+".join(map(value_name, value))
    return safe_name(format_setting(value))


def safe_name(text: str, keep: str = "") -> str:
    """Return text as a part of a folder's name: unusual characters, except `keep`, become dashes.

    >>> safe_name("../a b_c"), safe_name("a b_c", keep="_")
    ('a-b-c', 'a-b_c')
    """
    return re.sub(f"[^A-Za-z0-9.+{keep}-]+", "-", text).strip("-.") or "empty"


def format_setting(value: Any) -> str:
    """Return a setting's value as text: YAML, but a string without quotes."""
    return value if isinstance(value, str) else format_value(value)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return short name -> dotted name for unambiguous last parts, and the synonyms.

    >>> names = short_names(["model.n_embd", "optim.lr", "a.x", "b.x"])
    >>> names["lr"], names["d_model"], "x" in names
    ('optim.lr', 'model.n_embd', False)
    """
    leaves = Counter(map(leaf_of, names))
    short = {leaf_of(name): name for name in names if leaves[leaf_of(name)] == 1}
    return short | {other: name for other, name in SYNONYMS if name in names}
