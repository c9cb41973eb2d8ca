"""What several scripts report: the main results of a run, the end of a log, text tables."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.metrics import CLOCK_COLUMNS, read_rows


def run_figures(metrics: Path) -> dict[str, str]:
    """Return a run's main results as its metrics.csv has them, without those not written yet.

    They are `step` and `train_loss`, the last ones; `val_loss`, the lowest after step 0, with its
    `val_bpb` and `best_step`; and the last row's `CLOCK_COLUMNS`.
    """
    rows = read_rows(metrics) if metrics.exists() else []
    found = {"step": rows[-1]["step"]} if rows else {}
    if val := [row for row in rows if row["val_loss"] and row["step"] != "0"]:
        best = min(val, key=lambda row: float(row["val_loss"]))
        found |= {"best_step": best["step"]}
        found |= {name: best[name] for name in ("val_loss", "val_bpb")}
    if train := [row["train_loss"] for row in rows if row["train_loss"]]:
        found["train_loss"] = train[-1]
    return found | ({name: rows[-1][name] for name in CLOCK_COLUMNS} if rows else {})


def last_line(output: bytes) -> str:
    """Return the last line that a program printed, of a progress bar its last state; "" if none.

    >>> last_line(b"a\\n b \\n\\n"), last_line(b"10%\\r20%")
    ('b', '20%')
    """
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned table: the first column flush left, the others flush right.

    >>> print(table(["point", "loss"], [["a", "0.5"], ["long name", "12.25"]]))
    point       loss
    a            0.5
    long name  12.25
    """
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def cell(value: float, style: str = ".4f") -> str:
    """Return a figure for a table, or a dash for NaN.

    >>> cell(0.25), cell(math.nan)
    ('0.2500', '-')
    """
    return "-" if math.isnan(value) else format(value, style)


def worth_table(results: Sequence[Mapping[str, Any]], steps: int) -> str:
    """Return the worths of a sweep's results as a text table, and its notes."""
    rows = []
    for label, worth in ((one["label"], one["worth"]) for one in results if one["worth"]):
        cells = [cell(worth[name], "+.0f") for name in ("steps", "low", "high")]
        rows.append([label, *cells, str(worth["seeds"])])
    lines = [table(["", "worth in steps", "95% from", "to", "seeds"], rows)]
    lines += [f"{one['label']}: {one['worth_note']}" for one in results if one["worth_note"]]
    note = f"with that many steps more than {steps}, the ladder's recipe has the same loss"
    return "\n".join([*lines, f"{note} (inf: beyond the ladder)"])
