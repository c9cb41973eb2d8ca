"""Results of many runs: one row a run as CSV, and a ranking with mean and spread over seeds."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils.metrics import read_column, read_rows
from utils.report import table
from utils.runs import RunFolder

MEASURED = ("step", "best_step", "val_loss", "val_bpb", "train_loss")
CLOCK = ("tokens_per_s", "elapsed_s", "memory_bytes")
NOISE_ERRORS = 2.0  # standard errors that a difference must exceed to count; about 95%


def measured(run: RunFolder) -> dict[str, str]:
    """A run's figures, as they stand in its metrics.csv; what is not there yet is left out.

    The last step and training loss, the best validation loss with its bits per byte, and the clock.
    """
    rows = read_rows(run.metrics) if run.metrics.exists() else []
    found = {"step": rows[-1]["step"]} if rows else {}
    if val := [row for row in rows if row["val_loss"]]:
        best = min(val, key=lambda row: float(row["val_loss"]))
        found |= {"best_step": best["step"]}
        found |= {name: best[name] for name in ("val_loss", "val_bpb")}
    if read_column(rows, "train_loss")[0]:
        found["train_loss"] = [row["train_loss"] for row in rows if row["train_loss"]][-1]
    return found | ({name: rows[-1][name] for name in CLOCK} if rows else {})


def to_csv(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> bytes:
    """The CSV file: point, settings, seed, figures, status, and the wall-clock columns last."""
    header = ("point", *settings, "seed", *MEASURED, "status", *CLOCK)
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@dataclass(frozen=True)
class Rank:
    """One combination of settings over its seeds."""

    label: str
    bpb: list[float]  # val bits per byte of each seed
    loss: list[float]  # val nats per token of each seed

    @property
    def mean(self) -> float:
        """Mean bits per byte."""
        return statistics.fmean(self.bpb)

    @property
    def error(self) -> float:
        """Standard error of the mean; NaN with one seed."""
        if len(self.bpb) < 2:
            return math.nan
        return statistics.stdev(self.bpb) / math.sqrt(len(self.bpb))


def rank(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> list[Rank]:
    """The combinations of settings that have finished runs, best mean first.

    Ranked by bits per byte, which compares across tokenizers as the loss per token does not.

    >>> rows = [{"x": "1", "val_bpb": "2", "val_loss": "3", "status": "done"}]
    >>> rank([*rows, {"x": "2", "val_bpb": "1", "val_loss": "2", "status": "done"}], ["x"])[0]
    Rank(label='x=2', bpb=[1.0], loss=[2.0])
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["status"] == "done" and row.get("val_bpb"):
            label = ", ".join(f"{name.rpartition('.')[2]}={row[name]}" for name in settings)
            groups.setdefault(label or "base", []).append(row)
    ranks = [
        Rank(
            label,
            [float(row["val_bpb"]) for row in group],
            [float(row["val_loss"]) for row in group],
        )
        for label, group in groups.items()
    ]
    return sorted(ranks, key=lambda one: (math.isnan(one.mean), one.mean))


def verdict(ranks: Sequence[Rank]) -> str:
    """Whether the first is better than the second by more than the noise between seeds.

    The difference of two means has the standard error sqrt(a^2 + b^2).

    >>> verdict([Rank("a", [1.0, 1.1], [1, 1]), Rank("b", [1.1, 1.2], [1, 1])])
    'no winner: the first two differ by 0.1000, the noise between seeds is 0.1414'
    """
    if len(ranks) < 2:
        return ""
    first, second = ranks[:2]
    gap, noise = second.mean - first.mean, NOISE_ERRORS * math.hypot(first.error, second.error)
    if math.isnan(noise):
        return "one seed each: small differences may be noise; `seeds: [1, 2, 3]` tells"
    if gap <= noise:
        return (
            f"no winner: the first two differ by {gap:.4f}, the noise between seeds is {noise:.4f}"
        )
    return f"best: {first.label}, by {gap:.4f} where the noise between seeds is {noise:.4f}"


def ranking(ranks: Sequence[Rank]) -> str:
    """The table for people: mean and standard deviation over seeds."""
    rows = [
        [
            one.label,
            f"{one.mean:.4f}",
            f"{statistics.stdev(one.bpb):.4f}" if len(one.bpb) > 1 else "-",
            f"{statistics.fmean(one.loss):.4f}",
            str(len(one.bpb)),
        ]
        for one in ranks
    ]
    return table(["settings", "val bits/byte", "+-", "val nats/token", "seeds"], rows)
