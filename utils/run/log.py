"""What a run writes down as it goes: metrics.csv and samples.txt, for TensorBoard too if wanted."""

from __future__ import annotations

from collections.abc import Mapping

from utils.metrics import CsvLog, read_rows
from utils.run.folder import RunFolder, append_sample, keep_samples
from utils.run.tensorboard import Board


class RunLog:
    """Rows and samples of a run; those later than the step it goes on from are dropped."""

    def __init__(
        self, run: RunFolder, *, after_step: int = -1, elapsed_s: float = 0.0, board: bool = False
    ) -> None:
        """Opens the files.

        Args:
            after_step: where the run goes on from; -1 where it begins.
            elapsed_s: training time until then.
            board: whether to write events for TensorBoard.

        Raises:
            UserError: metrics.csv is damaged; the library for TensorBoard is not installed.
        """
        self.run = run
        self.metrics = CsvLog(run.metrics, after_step=after_step)
        samples = keep_samples(run.samples, after_step)
        self.board = Board(run.board, elapsed_s) if board else None
        if self.board:
            for row in read_rows(run.metrics):
                numbers = {name: float(cell) for name, cell in row.items() if cell}
                self.board.scalars(numbers)
            for step, text in samples:
                self.board.sample(step, text)
            self.board.flush()

    def write(self, row: Mapping[str, float | int | None]) -> None:
        """Adds a row of metrics.csv.

        Raises:
            OSError: the disk is full.
        """
        self.metrics.write(row)
        if self.board:
            self.board.scalars(row)
            self.board.flush()

    def sample(self, step: int, text: str) -> None:
        """Adds a sample."""
        append_sample(self.run.samples, step, text)
        if self.board:
            self.board.sample(step, text)
            self.board.flush()

    def close(self) -> None:
        """Ends the events."""
        if self.board:
            self.board.close()
