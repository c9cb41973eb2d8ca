"""The log of a run: metrics.csv and samples.txt, and a copy of both for TensorBoard."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from utils.files import write_atomic
from utils.metrics import CsvLog, read_rows
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
        truncate_samples(run.samples, after_step)
        self.tensorboard = TensorBoardWriter(run.tensorboard, elapsed_s) if tensorboard else None
        if self.tensorboard:
            for row in read_rows(run.metrics):
                self.tensorboard.add_scalars(
                    {name: float(cell) for name, cell in row.items() if cell}
                )
            for step, text in read_samples(run.samples):
                self.tensorboard.add_sample(step, text)
            self.tensorboard.flush()

    def write(self, row: Mapping[str, float | int | None]) -> None:
        """Append a row to metrics.csv.

        Raises:
            OSError: the disk is full.
        """
        self.metrics.write(row)
        if self.tensorboard:
            self.tensorboard.add_scalars(row)
            self.tensorboard.flush()

    def write_sample(self, step: int, text: str) -> None:
        """Append a sample to samples.txt."""
        append_sample(self.run.samples, step, text)
        if self.tensorboard:
            self.tensorboard.add_sample(step, text)
            self.tensorboard.flush()

    def close(self) -> None:
        """Close the TensorBoard events."""
        if self.tensorboard:
            self.tensorboard.close()


def append_sample(path: Path, step: int, text: str) -> None:
    """Append a sample under a header with its step. Indent lines that look like a header."""
    text = re.sub(f"(?m)^{SAMPLE_HEADER}", f" {SAMPLE_HEADER}", text)
    with open(path, "a", encoding="utf-8", newline="") as file:
        file.write(f"{SAMPLE_HEADER}{step}\n{text}\n\n")


def read_samples(path: Path) -> list[tuple[int, str]]:
    """Return (step, text) of each complete sample in samples.txt, or [] without the file."""
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8", errors="replace")
    text = text[: text.rfind("\n\n") + 2]  # a killed writer leaves an incomplete sample at the end
    _, *parts = re.split(f"(?m)^{SAMPLE_HEADER}(\\d+)\n", text)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [(int(step), body.removesuffix("\n\n")) for step, body in pairs]


def truncate_samples(path: Path, last_step: int) -> None:
    """Remove the samples of steps after `last_step`, which a resumed run writes again."""
    if path.exists():
        kept = [(step, text) for step, text in read_samples(path) if step <= last_step]
        content = "".join(f"{SAMPLE_HEADER}{step}\n{text}\n\n" for step, text in kept)
        write_atomic(path, content.encode())
