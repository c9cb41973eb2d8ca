"""Results of many runs: one row a run as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from utils.metrics import read_column, read_rows
from utils.run.folder import RunFolder

MEASURED = ("step", "best_step", "val_loss", "val_bpb", "train_loss")
CLOCK = ("tokens_per_s", "elapsed_s", "memory_bytes")


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
    """The CSV file: point, its change if it has one, settings, seed, figures, status, the clock.

    The wall-clock columns come last: all before them repeat exactly.
    """
    change = ["change"] if any(row.get("change") for row in rows) else []
    header = ("point", *change, *settings, "seed", *MEASURED, "status", *CLOCK)
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n", restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
