"""scripts.bench.gpu_check without a GPU: the error, and its runner with small programs."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from scripts.bench import gpu_check as script
from utils.errors import UserError
from utils.metrics import CLOCK_COLUMNS, COLUMNS


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_without_a_gpu_the_error_is_one_line(tmp_path, run_python):
    out = tmp_path / "x.json"
    done = run_python("-m", "scripts.bench.gpu_check", "--corpus", __file__, "--out", out)
    assert done.returncode == 2 and done.stdout == "" and not out.exists()
    assert len(done.stderr.splitlines()) == 1 and "no CUDA device" in done.stderr


def test_user_errors_are_reported_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="--corpus .*no such file"):
        script.main(["--corpus", str(tmp_path / "none")])
    with pytest.raises(UserError, match="not a nanoGPT checkout"):
        script.main(["--corpus", __file__, "--nanogpt", str(tmp_path)])


def test_a_part_that_fails_or_times_out_does_not_stop_the_others(tmp_path, monkeypatch):
    metrics = "step,tokens,epoch,lr,train_loss,grad_norm,val_loss,val_ppl,val_bpb"
    metrics += ",tokens_per_s,elapsed_s,memory_bytes\n5,1,1,1,1,1,1,1,2.5,1,3.5,1\n"
    write = "import pathlib,sys; p=pathlib.Path(sys.argv[1]); p.parent.mkdir(exist_ok=True); "
    write += "p.write_text(sys.argv[2])"

    def fake(corpus, nanogpt, scratch):
        python = [sys.executable, "-c"]
        return {
            "fails": [*python, "print('so much for that'); raise SystemExit(3)"],
            "gpt2": [*python, write, str(scratch / "gpt2"), '{"a": 1}'],
            "shakespeare": [*python, write, str(scratch / "run" / "metrics.csv"), metrics],
            "slow": [*python, "import time; time.sleep(60)"],
            "never": [*python, ""],
        }

    monkeypatch.setattr(script, "parts", fake)
    monkeypatch.setattr(script, "LIMIT_S", 2.0)
    out = tmp_path / "x.json"
    assert script.check(tmp_path, "", out) == 1
    parts = json.loads(out.read_text(encoding="utf-8"))["parts"]
    assert [part["status"] for part in parts.values()] == [3, 0, 0, None, None]
    assert parts["fails"]["tail"].strip() == "so much for that"
    assert parts["gpt2"]["record"] == {"a": 1}
    assert parts["shakespeare"]["val_bpb"] == [2.5] and parts["shakespeare"]["elapsed_s"] == [3.5]
    assert parts["shakespeare"]["memory_bytes"] == 1.0
    assert parts["never"]["tail"] == "no time was left"


def test_a_run_that_ended_before_its_first_row_has_no_figures(tmp_path):
    metrics = tmp_path / "run" / "metrics.csv"
    metrics.parent.mkdir()
    metrics.write_text(",".join(COLUMNS + CLOCK_COLUMNS) + "\n", encoding="utf-8")
    found = script.figures("shakespeare", tmp_path)
    assert found == {"steps": [], "val_bpb": [], "elapsed_s": []}


def test_the_commands_of_the_parts(tmp_path):
    parts = script.parts(tmp_path / "c.txt", "/peer", tmp_path)
    assert list(parts) == ["tests", "sample", "shakespeare", "gpt2", "nanogpt-gpu"]
    assert "/peer" in parts["gpt2"] and str(tmp_path / "c.txt") in parts["shakespeare"]
    assert "--nanogpt" not in script.parts(tmp_path / "c.txt", "", tmp_path)["gpt2"]
