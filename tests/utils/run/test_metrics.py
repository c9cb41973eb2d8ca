"""metrics.csv, unit conversions and throughput."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils import metrics
from utils.errors import UserError
from utils.metrics import (
    CLOCK_COLUMNS,
    COLUMNS,
    CsvLog,
    Throughput,
    append_text,
    bits_per_byte,
    perplexity,
    read_column,
    read_rows,
)
from utils.processes import peak_rss_bytes

HEADER = ",".join(COLUMNS + CLOCK_COLUMNS) + "\n"


def test_conversions() -> None:
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert perplexity(1e4) == math.inf and math.isnan(perplexity(math.nan))
    assert bits_per_byte(math.log(2) * 30, 10) == pytest.approx(3)
    assert math.isnan(bits_per_byte(1.0, 0))


@given(
    values=st.lists(st.floats(), min_size=1, max_size=6),
    gaps=st.lists(st.integers(1, 10**12), min_size=6, max_size=6),
)
def test_numbers_are_read_back_exactly(
    values: list[float], gaps: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("csv") / "metrics.csv"
    log, step, steps = CsvLog(path), 0, []
    for value, gap in zip(values, gaps, strict=False):
        step += gap
        steps.append(step)
        log.write({"step": step, "val_loss": value})
    rows = read_rows(path)
    read = read_column(rows, "val_loss")
    assert read[0] == steps and repr(read[1]) == repr(values)
    assert read_column(rows, "lr") == ([], [])
    assert path.read_text(encoding="utf-8").count("step") == 1


def filled(path: Path, steps: range) -> str:
    log = CsvLog(path)
    for step in steps:
        log.write({"step": step, "tokens": 3 * step, "lr": 0.1 * step, "elapsed_s": 1.5})
    return path.read_text(encoding="utf-8")


def test_rows_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    complete = filled(path, range(0, 10, 2))
    log = CsvLog(path, after_step=5)
    assert path.read_text(encoding="utf-8") == "".join(complete.splitlines(True)[:4])
    log.write({"step": 6})
    assert [row["step"] for row in read_rows(path)] == ["0", "2", "4", "6"]
    CsvLog(path)
    assert path.read_text(encoding="utf-8") == HEADER


def test_an_incomplete_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    whole = filled(path, range(3))
    first = whole.index("2,6")
    for length in range(first, len(whole)):
        path.write_text(whole[:length], encoding="utf-8")
        assert [row["step"] for row in read_rows(path)] == ["0", "1"], length
        CsvLog(path, after_step=9).write({"step": 2})
        assert path.read_text(encoding="utf-8").splitlines()[-1].startswith("2,,")
        assert path.read_text(encoding="utf-8").startswith(whole[:first])


def test_an_incomplete_header_counts_as_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    for text in ("", "step,tok"):
        path.write_text(text, encoding="utf-8")
        assert read_rows(path) == []
        CsvLog(path, after_step=3)
        assert path.read_text(encoding="utf-8") == HEADER


def test_steps_must_increase(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "metrics.csv")
    log.write({"step": 3})
    for step in (3, 2):
        with pytest.raises(AssertionError):
            log.write({"step": step})


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    with pytest.raises(UserError, match="No such file"):
        read_rows(path)
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(UserError, match="its header should be step,tokens"):
        read_rows(path)
    path.write_text(
        HEADER + "x" + "," * (len(COLUMNS + CLOCK_COLUMNS) - 1) + "\n", encoding="utf-8"
    )
    with pytest.raises(UserError, match="step 'x' is not a number"):
        read_rows(path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(UserError, match="not UTF-8 at .*; put the original back$"):
        read_rows(path)


@pytest.mark.parametrize("cell", ["val_loss", "elapsed_s"])
def test_a_non_numeric_cell_is_named(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = CsvLog(path)
    log.write({"step": 0, "val_loss": 1.0})
    log.write({"step": 3, "val_loss": 1.0, "elapsed_s": 2.0, cell: 77.5})
    path.write_text(path.read_text(encoding="utf-8").replace("77.5", "7x"), encoding="utf-8")
    with pytest.raises(UserError, match=f"metrics.csv: damaged, step 3: {cell} '7x' is not a num"):
        read_rows(path)


@pytest.mark.parametrize("line", ["\n" * 20_000_000, "1" + "," * 20_000_000 + "\n"])
def test_a_hostile_file_needs_little_memory(line: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(",".join(COLUMNS + CLOCK_COLUMNS) + "\n" + line, encoding="utf-8", newline="")
    before = peak_rss_bytes()
    with pytest.raises(UserError, match="damaged"):
        read_rows(path)
    assert peak_rss_bytes() - before < 200e6


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_append_on_a_full_disk_names_the_file() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        append_text(Path("/dev/full"), "1,2\n")
    assert caught.value.filename == "/dev/full"


def test_throughput_counts_only_running_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 2.0, 100.0, 103.0])
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: next(now))
    meter = Throughput()
    assert meter.pop_rate() == 0
    for _ in range(2):
        meter.start()
        meter.stop(50)
    assert meter.pop_rate() == 100 / 5 and meter.pop_rate() == 0


@pytest.mark.parametrize(
    "old, new, problem",
    [
        ("3,", "3\r,", r"line 3: step '3\\r' is not a number"),
        ("3,", "9" * 5000 + ",", "line 3: step '9.*9' is not a number"),
        ("3,", "0,", "step 0 follows step 0"),
        ("77.5", "77.5\r", r"step 3: val_loss '77.5\\r' is not a number"),
        ("77.5", "7" * 200_000 + "x", "step 3: val_loss '7.*x' is not a number"),
        ("77.5", "1_0", "step 3: val_loss '1_0' is not a number"),
        ("77.5", '"77.5"', "step 3: val_loss .* is not a number"),
        ("77.5", "77.5,", "step 3: 13 cells instead of 12"),
        (",77.5", "", "step 3: 11 cells instead of 12"),
    ],
)
def test_damaged_rows_are_neither_dropped_nor_end_in_a_traceback(
    old: str, new: str, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.csv"
    log = CsvLog(path)
    log.write({"step": 0, "tokens": 5, "val_loss": 1.0})
    log.write({"step": 3, "tokens": 5, "val_loss": 77.5})
    text = path.read_bytes().decode()
    assert text.count(f"\n{old}" if old == "3," else old) == 1
    changed = text.replace(f"\n{old}", f"\n{new}") if old == "3," else text.replace(old, new)
    path.write_bytes(changed.encode())
    with pytest.raises(UserError, match=f"metrics.csv: damaged, {problem}; put the or") as error:
        read_rows(path)
    assert len(str(error.value)) < 700


def test_a_huge_incomplete_line_is_dropped_in_linear_time(tmp_path: Path) -> None:
    """A search that starts again at each character would take hours."""
    path = tmp_path / "metrics.csv"
    path.write_text("step," + "#" * 5_000_000, encoding="utf-8")
    assert read_rows(path) == []
