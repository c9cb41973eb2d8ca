"""A run's curves and samples for TensorBoard, which reads files of events in a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

from utils.errors import missing_package

EVENTS = "events.out.tfevents.*"  # the names that TensorBoard looks for


def import_library() -> SimpleNamespace:
    """What writes events; torch makes them, and needs the package tensorboard for it.

    Raises:
        UserError: it is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter
        from torch.utils.tensorboard import summary
    except ImportError:
        raise missing_package("tensorboard", "train.tensorboard") from None
    return SimpleNamespace(
        Event=Event, SessionLog=SessionLog, RecordWriter=RecordWriter, summary=summary
    )


class TensorBoardWriter:
    """One file of events, begun anew with each start of the run; `close` ends it.

    What earlier starts wrote is dropped: whoever opens a board tells it again, from metrics.csv and
    samples.txt, so nothing can stand there twice or say anything else than they do. torch's own
    SummaryWriter is not used: it writes from a thread, where a full disk ends in a traceback.
    """

    def __init__(self, folder: Path, elapsed_s: float) -> None:
        """Empties the folder of events; `elapsed_s`: the training time of the run until now."""
        self.library = import_library()
        folder.mkdir(exist_ok=True)
        for old in folder.glob(EVENTS):
            # Removed a start later: a TensorBoard that reads it would not get past a missing file.
            if old.stat().st_size:
                os.truncate(old, 0)
            else:
                old.unlink()
        now = time.time()
        self.began = now - elapsed_s
        # Files are read in the order of their names.
        self.file = open(folder / EVENTS.replace("*", f"{now:017.6f}"), "wb")
        self.records = self.library.RecordWriter(self.file)
        self._add(0, now, file_version="brain.Event:2")
        # A TensorBoard that has read older files drops what they told of this step and later ones.
        start = self.library.SessionLog(status=self.library.SessionLog.START)
        self._add(0, now, session_log=start)

    def _add(self, step: int, clock: float, **what: object) -> None:
        event = self.library.Event(wall_time=clock, step=step, **what)
        self.records.write(event.SerializeToString())

    def add_scalars(self, row: Mapping[str, float | int | None]) -> None:
        """The numbers of a row of metrics.csv under its names.

        In single precision: TensorBoard shows no doubles. An event's clock is the row's elapsed_s,
        so the axis RELATIVE shows time spent training.
        """
        clock = self.began + (row.get("elapsed_s") or 0.0)
        for name, value in row.items():
            if name != "step" and value is not None:
                told = self.library.summary.scalar(name, value)
                self._add(int(row["step"] or 0), clock, summary=told)

    def add_sample(self, step: int, text: str) -> None:
        """A sample. TensorBoard shows Markdown, in which two blanks keep the end of a line."""
        told = self.library.summary.text("sample", text.replace("\n", "  \n"))
        self._add(step, time.time(), summary=told)

    def flush(self) -> None:
        """Sees to it that all told so far is in the file.

        Raises:
            OSError: the disk is full.
        """
        self.file.flush()

    def close(self) -> None:
        """Ends the file."""
        self.file.close()
