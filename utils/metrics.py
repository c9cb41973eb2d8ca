"""Metrics of a run: unit conversions, metrics.csv, throughput."""

import io
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path

from utils.errors import UserError
from utils.files import decode_utf8, read_bytes, replace_path_in_errors, write_atomic


def perplexity(nats_per_token: float) -> float:
    """Return exp(mean loss); infinity if that overflows.

    >>> round(perplexity(math.log(50)), 6)
    50.0
    """
    try:
        return math.exp(nats_per_token)
    except OverflowError:
        return math.inf


def bits_per_byte(total_nats: float, total_bytes: int) -> float:
    """Return the total loss in bits per byte of the raw text: comparable across tokenizers.

    >>> bits_per_byte(math.log(2) * 30, 10)
    3.0
    """
    return total_nats / total_bytes / math.log(2) if total_bytes else math.nan


# Columns of metrics.csv, see docs/formats.md. COLUMNS are reproducible: equal whenever the same run
# is repeated. CLOCK_COLUMNS are not.
VAL_COLUMNS = ("val_loss", "val_ppl", "val_bpb")  # only in the rows of evaluations
COLUMNS = ("step", "tokens", "epoch", "lr", "train_loss", "grad_norm", *VAL_COLUMNS)
CLOCK_COLUMNS = ("tokens_per_s", "elapsed_s", "memory_bytes")
NUMBER = re.compile(r"-?(\d+(\.\d+)?(e[-+]?\d+)?|inf)|nan", re.ASCII)  # as repr writes it
STEP = re.compile(r"\d{1,18}", re.ASCII)  # 18 digits fit into 64 bits


class CsvLog:
    """Writer of metrics.csv: a header, then rows of increasing steps, each flushed when written."""

    def __init__(self, path: Path, *, after_step: int = -1) -> None:
        """Open the file. Drop rows after step `after_step` (-1: all), and an unfinished line."""
        self.path = path
        rows = read_rows(path) if path.exists() else []
        kept = [row for row in rows if int(row["step"]) <= after_step]
        lines = [COLUMNS + CLOCK_COLUMNS, *(row.values() for row in kept)]
        write_atomic(path, "".join(f"{','.join(line)}\n" for line in lines).encode())
        self.last_step = int(kept[-1]["step"]) if kept else -1

    def write(self, row: Mapping[str, float | int | None]) -> None:
        """Append a row. A column that is not given stays empty.

        Raises:
            OSError: the disk is full.
        """
        assert int(row["step"] or 0) > self.last_step, "steps must increase"
        self.last_step = int(row["step"] or 0)
        cells = [format_cell(row.get(name)) for name in COLUMNS + CLOCK_COLUMNS]
        append_text(self.path, ",".join(cells) + "\n")


def append_text(path: Path, text: str) -> None:
    """Append UTF-8 to a file, which is made if it is missing.

    Raises:
        OSError: no space or no permission.
    """
    with replace_path_in_errors(path, path), open(path, "ab") as file:
        file.write(text.encode())


def format_cell(value: float | int | None) -> str:
    """Return a number as text that parses to the same number; empty for None.

    >>> format_cell(3), format_cell(0.1), format_cell(None)
    ('3', '0.1', '')
    """
    return "" if value is None else repr(value)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the complete rows of a metrics.csv as text, without an incomplete last line.

    Raises:
        UserError: the file is missing or damaged, or is not a metrics.csv.
    """
    text = decode_utf8(read_bytes(path), path, hint="put the original back")
    # A line without a newline is incomplete: the writer was killed.
    lines = (line[:-1] for line in io.StringIO(text, newline="\n") if line.endswith("\n"))
    header = list(COLUMNS + CLOCK_COLUMNS)
    if (first := next(lines, None)) is None:
        return []
    if first != ",".join(header):
        raise UserError(
            f"{path}: not the metrics of a run: its header should be {','.join(header)}; "
            "put it back"
        )
    rows: list[dict[str, str]] = []
    for number, line in enumerate(lines, start=2):
        cells = line.split(",", len(header))
        row = dict(zip(header, cells, strict=False))  # the number of cells is checked below
        wrong = [name for name, cell in row.items() if cell and not NUMBER.fullmatch(cell)]
        if not STEP.fullmatch(row["step"]):
            problem = f"line {number}: step {row['step']!r} is not a number"
        elif wrong:
            problem = f"step {row['step']}: {wrong[0]} {row[wrong[0]]!r} is not a number"
        elif len(cells) != len(header):
            n_cells = line.count(",") + 1
            problem = f"step {row['step']}: {n_cells} cells instead of {len(header)}"
        elif rows and int(row["step"]) <= int(rows[-1]["step"]):
            problem = f"step {row['step']} follows step {rows[-1]['step']}"
        else:
            rows.append(row)
            continue
        raise UserError(f"{path}: damaged, {problem}; put the original back")
    return rows


def read_column(rows: list[dict[str, str]], name: str) -> tuple[list[int], list[float]]:
    """Return steps and values of the rows in which column `name` is not empty."""
    filled = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
    return [step for step, _ in filled], [value for _, value in filled]


class Throughput:
    """Tokens per second of training alone: the clock is stopped during evaluation and saving."""

    def __init__(self) -> None:
        self.tokens = 0
        self.seconds = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def stop(self, tokens: int) -> None:
        """Stop the clock and add the tokens that were processed since `start`."""
        assert self._since is not None, "start() first"
        self.seconds += time.perf_counter() - self._since
        self.tokens += tokens
        self._since = None

    def pop_rate(self) -> float:
        """Return tokens per second since the last call, and count from zero again."""
        rate = self.tokens / self.seconds if self.seconds else 0.0
        self.tokens, self.seconds = 0, 0.0
        return rate
