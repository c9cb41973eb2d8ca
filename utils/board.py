"""A run's curves and samples for TensorBoard, which reads files of events in a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.extras import missing

EVENTS = "events.out.tfevents.*"  # how the library names its files


def writer_class() -> Any:
    """The writer of torch, which needs the package tensorboard.

    Raises:
        UserError: it is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise missing("tensorboard", "train.tensorboard") from None
    return SummaryWriter


class Board:
    """One file of events, begun anew with each start of the run; `close` ends it.

    What earlier starts wrote is dropped: whoever opens a board tells it again, from metrics.csv and
    samples.txt, so nothing can stand there twice or say anything else than they do.
    """

    def __init__(self, folder: Path, elapsed_s: float) -> None:
        """Empties the folder of events; `elapsed_s`: the training time of the run until now."""
        writer = writer_class()
        for old in folder.glob(EVENTS):
            # Removed a start later: a TensorBoard that reads it would not get past a missing file.
            if old.stat().st_size:
                os.truncate(old, 0)
            else:
                old.unlink()
        # purge_step: such a TensorBoard drops what it has read.
        self.writer = writer(str(folder), purge_step=0)
        self.began = time.time() - elapsed_s

    def scalars(self, row: Mapping[str, float | int | None]) -> None:
        """The numbers of a row of metrics.csv under its names.

        In single precision: TensorBoard shows no doubles. An event's clock is the row's elapsed_s,
        so the axis RELATIVE shows time spent training.
        """
        step, clock = int(row["step"] or 0), self.began + (row.get("elapsed_s") or 0.0)
        for name, value in row.items():
            if name != "step" and value is not None:
                self.writer.add_scalar(name, value, step, walltime=clock)

    def sample(self, step: int, text: str) -> None:
        """A sample. TensorBoard shows Markdown, in which two blanks keep the end of a line."""
        self.writer.add_text("sample", text.replace("\n", "  \n"), step)

    def flush(self) -> None:
        """Sees to it that all told so far is in the file.

        Raises:
            OSError: the disk is full.
        """
        self.writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self.writer.close()
