"""The log of a run: metrics.csv and samples.txt, and a copy of both for TensorBoard."""

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import read_bytes, sync, write_atomic
from utils.metrics import CsvLog, append_text, read_rows
from utils.output import log
from utils.run.checkpoint import evaluated_step
from utils.run.folder import RunFolder
from utils.run.tensorboard import TensorBoardWriter

SAMPLE_HEADER = "=== step "


class RunLog:
    """Writer of a run's metrics and samples. On resume, it drops those after the resumed step."""

    def __init__(
        self,
        run: RunFolder,
        *,
        after_step: int = -1,
        elapsed_s: float = 0.0,
        tensorboard: bool = False,
    ) -> None:
        """Open the files.

        Args:
            after_step: the step that the run resumes from; -1 for a new run.
            elapsed_s: training time until that step.
            tensorboard: whether to write TensorBoard events.

        Raises:
            UserError: metrics.csv is damaged; the TensorBoard library is not installed.
        """
        self.run = run
        self.metrics = CsvLog(run.metrics, after_step=after_step)
        truncate_samples(run.samples, after_step, run.samples_size)
        self.tensorboard = TensorBoardWriter(run.tensorboard, elapsed_s) if tensorboard else None
        if self.tensorboard:
            for row in read_rows(run.metrics):
                numbers = {name: float(cell) for name, cell in row.items() if cell}
                self.tensorboard.add_scalars(numbers)
            for step, text in read_samples(run.samples):
                self.tensorboard.add_sample(step, text)

    def write(self, row: Mapping[str, float | int | None]) -> None:
        """Append a row to metrics.csv.

        Raises:
            OSError: the disk is full.
        """
        self.metrics.write(row)
        if self.tensorboard:
            self.tensorboard.add_scalars(row)

    def write_sample(self, step: int, text: str) -> None:
        """Append a sample to samples.txt."""
        append_sample(self.run.samples, step, text)
        if self.tensorboard:
            self.tensorboard.add_sample(step, text)

    def close(self) -> None:
        """Close the TensorBoard events."""
        if self.tensorboard:
            self.tensorboard.close()


def sync_logs(run: RunFolder) -> dict[str, list[Any]]:
    """Write metrics.csv and samples.txt to the disk; return size and sha256 of each, by name."""
    found = {}
    for path in (run.metrics, run.samples):
        if path.exists():
            with open(path, "rb+") as file:
                sync(file.fileno())
                raw = file.read()
            found[path.name] = [len(raw), hashlib.sha256(raw).hexdigest()]
    return found


def check_logs(run: RunFolder, state: Mapping[str, Any] | None) -> None:
    """Check, before anything is written, that the logs begin as when last.pt was saved.

    Checkpoints of older versions hold no digest of the logs; then metrics.csv must have the row of
    the checkpoint's evaluation.

    Args:
        state: the content of last.pt; None if there is none, because no step was completed.

    Raises:
        UserError: rows or samples are missing, or were changed.
    """
    for path in (run.metrics, run.samples):
        if not path.exists():
            if state and state.get("logs", {}).get(path.name):
                log(f"warning: {path} is missing: what it held is lost, a new file is started")
            continue
        steps = [int(row["step"]) for row in read_rows(path)] if path == run.metrics else []
        if state is None:
            intact = max(steps, default=0) == 0
        elif "logs" in state:
            size, digest = state["logs"].get(path.name, (0, hashlib.sha256().hexdigest()))
            intact = hashlib.sha256(read_bytes(path)[:size]).hexdigest() == digest
            run.samples_size = size if path == run.samples else None
        else:
            intact = path != run.metrics or evaluated_step(state) in (None, *steps)
        if not intact:
            raise UserError(
                f"{path}: not as it was when {run.last.name} was saved; put the original back, or "
                "move it away to continue without it"
            )


def worse_than_start(run: RunFolder, val_loss: float) -> str:
    """Return a note if a validation loss is above that of step 0 in metrics.csv, else ""."""
    rows = read_rows(run.metrics) if run.metrics.exists() else []
    losses = [row["val_loss"] for row in rows if row["step"] == "0" and row.get("val_loss")]
    start = float(losses[0]) if losses else math.inf  # the file may have been moved away
    return f" (worse than the starting model, {start:.4f})" if val_loss > start else ""


def append_sample(path: Path, step: int, text: str) -> None:
    """Append a sample under a header with its step. Indent lines that look like a header."""
    text = re.sub(f"(?m)^{SAMPLE_HEADER}", f" {SAMPLE_HEADER}", text)
    append_text(path, f"{SAMPLE_HEADER}{step}\n{text}\n\n")


def read_samples(path: Path) -> list[tuple[int, str]]:
    """Return (step, text) of each complete sample in samples.txt, or [] without the file."""
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8", errors="replace")
    text = text[: text.rfind("\n\n") + 2]  # a killed writer leaves an incomplete sample at the end
    _, *parts = re.split(f"(?m)^{SAMPLE_HEADER}(\\d{{1,18}})\n", text)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [(int(step), body.removesuffix("\n\n")) for step, body in pairs]


def truncate_samples(path: Path, last_step: int, size: int | None = None) -> None:
    """Remove the samples of steps after `last_step`, which a resumed run writes again.

    Args:
        size: of the file when the last checkpoint was saved; what follows is removed, too.
    """
    if path.exists():
        raw = path.read_bytes()[:size]
        end = raw.rfind(b"\n\n") + 2 if b"\n\n" in raw else 0  # without an incomplete sample
        headers = re.finditer(b"(?m)^%b(\\d{1,18})\n" % SAMPLE_HEADER.encode(), raw)
        later = (header.start() for header in headers if int(header[1]) > last_step)
        write_atomic(path, raw[: min(end, next(later, end))])
