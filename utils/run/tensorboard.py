"""TensorBoard: write the metrics and samples of a run as event files, which TensorBoard reads."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

from utils.errors import missing_package

EVENTS = "events.out.tfevents.*"  # the file names that TensorBoard looks for


def import_library() -> SimpleNamespace:
    """Import and return what writes events: parts of the package tensorboard, and of torch.

    Raises:
        UserError: tensorboard is not installed.
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
    """Writer of one event file per start of a run; end it with `close`.

    Events of earlier starts are discarded. The caller rewrites them from metrics.csv and
    samples.txt, so the events can neither duplicate these files nor disagree with them. torch's
    SummaryWriter is not used: it writes from a thread, where a full disk ends in a traceback.
    """

    def __init__(self, folder: Path, elapsed_s: float) -> None:
        """Discard the events in the folder and open a new file.

        Args:
            elapsed_s: training time of the run until now.
        """
        self.library = import_library()
        folder.mkdir(exist_ok=True)
        for old in folder.glob(EVENTS):
            # Truncate now and remove at the next start: a running TensorBoard that has the file
            # open would not continue after a missing file.
            if old.stat().st_size:
                os.truncate(old, 0)
            else:
                old.unlink()
        now = time.time()
        self.run_started = now - elapsed_s
        # TensorBoard reads files in the order of their names, so a name holds the time.
        self.file = open(folder / EVENTS.replace("*", f"{now:017.6f}"), "wb")
        self.records = self.library.RecordWriter(self.file)
        self._add(0, now, file_version="brain.Event:2")
        # After START, TensorBoard drops the events it has read from older files, from step 0 on.
        start = self.library.SessionLog(status=self.library.SessionLog.START)
        self._add(0, now, session_log=start)

    def _add(self, step: int, wall_time: float, **content: object) -> None:
        event = self.library.Event(wall_time=wall_time, step=step, **content)
        self.records.write(event.SerializeToString())

    def add_scalars(self, row: Mapping[str, float | int | None]) -> None:
        """Write each number in a row of metrics.csv as a scalar with the name of its column.

        Scalars are in single precision, as TensorBoard shows no others. The time of an event is the
        row's elapsed_s, so TensorBoard's axis RELATIVE shows the time spent training.

        Raises:
            OSError: the disk is full.
        """
        wall_time = self.run_started + (row.get("elapsed_s") or 0.0)
        for name, value in row.items():
            if name != "step" and value is not None:
                summary = self.library.summary.scalar(name, value)
                self._add(int(row["step"] or 0), wall_time, summary=summary)
        self.file.flush()

    def add_sample(self, step: int, text: str) -> None:
        """Write a sample as Markdown, in which two spaces before a newline keep the line break."""
        summary = self.library.summary.text("sample", text.replace("\n", "  \n"))
        self._add(step, time.time(), summary=summary)
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()
