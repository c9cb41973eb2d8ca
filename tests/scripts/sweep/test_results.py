"""scripts.sweep.points and scripts.sweep.pools: figures, results.csv, and logs of processes."""

from __future__ import annotations

import csv
import io
import sys

from scripts.report import last_line, run_figures
from scripts.sweep.points import to_csv
from scripts.sweep.pools import LocalPool
from utils.metrics import CsvLog
from utils.run.folder import RunFolder


def test_figures_are_those_of_the_best_validation_loss(tmp_path):
    run = RunFolder(tmp_path)
    assert run_figures(run.metrics) == {}
    log = CsvLog(run.metrics)
    assert run_figures(run.metrics) == {}
    log.write({"step": 0, "val_loss": 2.0, "val_bpb": 1.0, "elapsed_s": 1.0})  # not a result
    log.write({"step": 4, "train_loss": 3.5, "val_loss": 3.0, "val_bpb": 1.5, "elapsed_s": 2.0})
    log.write({"step": 8, "train_loss": 2.5, "val_loss": 4.0, "val_bpb": 2.0, "elapsed_s": 3.0})
    log.write(
        {"step": 9, "train_loss": 2.0, "elapsed_s": 4.0, "tokens_per_s": 7.0, "memory_bytes": 8}
    )
    assert run_figures(run.metrics) == {
        "step": "9",
        "best_step": "4",
        "val_loss": "3.0",
        "val_bpb": "1.5",
        "train_loss": "2.0",
        "tokens_per_s": "7.0",
        "elapsed_s": "4.0",
        "memory_bytes": "8",
    }


def row(name: str, bpb: float | str, status: str = "done") -> dict[str, object]:
    return {"point": name, "a.x": name, "val_bpb": bpb, "val_loss": 2, "status": status}


def test_the_csv_has_the_clock_columns_last_and_empty_cells_for_missing_values():
    text = to_csv([row("p", 1.0), row("q", "", "failed")], ["a.x"]).decode()
    header = text.splitlines()[0]
    assert header.endswith("status,tokens_per_s,elapsed_s,memory_bytes")
    assert header.startswith("point,a.x,seed,step,best_step,val_loss,val_bpb,train_loss")
    assert "change" not in header
    named = [row("p", 1.0) | {"change": "base"}, row("q", 2.0) | {"change": "no pointer"}]
    assert to_csv(named, []).decode().splitlines()[2].startswith("q,no pointer,,")
    second = list(csv.DictReader(io.StringIO(text)))[1]
    assert second["status"] == "failed" and second["val_bpb"] == ""


def test_output_of_a_process_is_logged(tmp_path):
    pool, log = LocalPool(1), tmp_path / "log"
    program = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"
    assert pool.submit([sys.executable, "-c", program], log).result(60) == 3
    pool.close()
    assert sorted(log.read_text(encoding="utf-8").split()) == ["one", "two"]
    log.write_bytes(b"error: x\r 10%\r 20%\n\n")
    assert last_line(log.read_bytes()) == "20%" and last_line(b"") == ""
