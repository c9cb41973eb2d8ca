"""Run folders and devices: the files of a run, locking, compilation, log lines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import sample
import train
from model.gpt import TinyGPT
from model.training.trainer import Trainer
from tests.conftest import ROOT
from tests.helpers.runs import Child, build, flags, make_corpus, rows_of, state_of, step
from train import Config
from utils.config.load import load
from utils.errors import UserError
from utils.run import checkpoint, plot
from utils.run.environment import VERSION
from utils.run.folder import RunFolder

pytestmark = pytest.mark.usefixtures("quick")

Settings = dict[str, object]


def test_the_files_of_a_run(settings: Settings, tmp_path: Path) -> None:
    run = tmp_path / "deep" / "run"
    assert train.main(flags(run, settings, optim__betas=(0.8, 0.99))) == 0
    names = {path.name for path in run.iterdir()}
    expected = {"config.yaml", "run.json", "tokenizer.json", "metrics.csv", "samples.txt"}
    assert names == expected | {"last.pt", "best.pt", "lock"}
    config, _ = load(Config, [str(run / "config.yaml")], {})
    wanted, _, _ = train.parse(flags(run, settings, optim__betas=(0.8, 0.99)))
    assert config == wanted
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["seed"] == 1 and record["parameters"] == sum(
        p.numel() for p in TinyGPT(config.model).parameters()
    )
    assert record["starts"][0].keys() >= {"argv", "python", "torch", "commit", "threads", "device"}
    assert (run / "samples.txt").read_text(encoding="utf-8").count("=== step ") == 4
    state = torch.load(run / "last.pt", weights_only=True)
    assert not [key for key in state["model"] if "_orig_mod" in key or "module" in key]


def test_a_second_run_over_the_first_is_refused(settings: Settings, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train.main(flags(run, settings, train__max_steps=1)) == 0
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(UserError, match="holds a run; add --resume"):
        train.main(flags(run, settings, train__max_steps=1))
    assert before == {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(UserError, match="no run to resume"):
        train.main(flags(tmp_path / "none", settings, "--resume"))
    assert not (tmp_path / "none").exists()


def test_a_locked_folder_is_refused(settings: Settings, tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = Child(flags(run, settings), tmp_path / "log", hang=("step", 2))
    child.wait_for(child.marker)
    with pytest.raises(UserError, match="another process is writing"):
        train.main(flags(run, settings, "--resume"))
    loaded = sample.load_run(run, "last", "cpu")  # reading is allowed
    assert loaded.state["step"] == 0
    child.release()
    assert child.join() == 0


def test_a_run_started_meanwhile_is_not_overwritten(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, original = tmp_path / "run", Trainer.__init__

    def slow(self: Trainer, *args: Any, **named: Any) -> None:
        original(self, *args, **named)
        monkeypatch.undo()
        assert train.main(flags(run, settings, train__max_steps=1)) == 0

    monkeypatch.setattr(Trainer, "__init__", slow)
    with pytest.raises(UserError, match="holds a run"):
        train.main(flags(run, settings, train__max_steps=2))
    assert checkpoint.load(run / "last.pt")["step"] == 1


def test_other_data_or_another_tokenizer_is_refused_on_resume(
    settings: Settings, tmp_path: Path
) -> None:
    corpus = dict(make_corpus(tmp_path))
    run = tmp_path / "run"
    assert train.main(flags(run, corpus, train__max_steps=2)) == 0
    text = Path(str(corpus["data.files"]))
    text.write_text(text.read_text(encoding="utf-8") + "more", encoding="utf-8")
    with pytest.raises(UserError, match="another (data|tokenizer) than the run's: .*expected"):
        train.main(["--run_dir", str(run), "--resume", "--train.max_steps", "3"])


def test_a_bad_device_is_refused(settings: Settings, tmp_path: Path) -> None:
    assert train.main(flags(tmp_path / "run", settings, train__max_steps=20)) == 0
    for name in ("nonsense", "cuda:99", "meta", ""):
        with pytest.raises(UserError, match="not available"):
            train.main(flags(tmp_path / "bad", settings, train__device=name))
    assert not (tmp_path / "bad").exists()


def test_a_failing_compiler_prints_one_warning(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(model: torch.nn.Module) -> torch.nn.Module:
        raise RuntimeError("no compiler\nsecond line")

    monkeypatch.setattr(torch, "compile", fails)
    assert train.main(flags(tmp_path / "run", settings, train__compile="true")) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1 and "without it: RuntimeError: no compiler" in warnings[0]
    assert len(rows_of(tmp_path / "run")) == 10


@pytest.mark.slow
@pytest.mark.parametrize("mode", [{}, {"data__mask_documents": "true", "train__amp": "bf16"}])
def test_a_compiled_run_saves_the_parameter_names_of_the_eager_model(
    mode: Settings,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    run = tmp_path / "run"
    more = {"train__compile": "true", "train__max_steps": 3, "model__dropout": 0.0, **mode}
    assert train.main(flags(run, settings, **more)) == 0
    if "torch.compile failed" in capsys.readouterr().err:
        pytest.skip("oracle: no C++ compiler")
    names = list(checkpoint.load(run / "last.pt")["model"])
    assert not [name for name in names if "_orig_mod" in name or "module" in name]
    assert sample.load_run(run, "last", "cpu").state["step"] == 3
    eager = tmp_path / "eager"
    assert train.main(flags(eager, settings, **{**more, "train__compile": "false"})) == 0
    ends = [float(rows_of(one)[-1]["val_loss"]) for one in (run, eager)]
    assert ends[0] == pytest.approx(ends[1], abs=5e-3)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_checkpoint_loads_in_compiled_and_eager_mode(
    compiled: bool, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = torch.compile  # traces as usual, but needs no C++ compiler with this backend
    monkeypatch.setattr(torch, "compile", lambda model: original(model, backend="eager"))
    one = build(tmp_path, settings, train__compile=str(compiled).lower())
    one.train_step()
    path = tmp_path / "last.pt"
    checkpoint.save(path, one.state())
    config, _, _ = train.parse(flags(tmp_path, settings, train__compile=str(not compiled).lower()))
    other, _ = train.build_trainer(config, RunFolder(tmp_path), checkpoint.load(path))
    assert (one.compiled, other.compiled) == (compiled, not compiled)
    assert checkpoint.digest(other.state()["model"]) == checkpoint.digest(one.state()["model"])
    assert other.step == 1 and other.evaluate() == one.evaluate()
    losses = [step(trained)["train_loss"] for trained in (one, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_best_state_is_hashed_once_and_written_twice(
    tmp_path: Path, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, hashed = checkpoint.digest, []
    monkeypatch.setattr(
        checkpoint, "digest", lambda value: (hashed.append(value), digest(value))[1]
    )
    run = tmp_path / "run"
    changes = {"train__max_steps": 2, "train__eval_every_steps": 2}
    assert train.main(flags(run, settings, **changes)) == 0
    assert len(hashed) == 2  # of step 0 and step 2
    assert (run / "best.pt").read_bytes() == (run / "last.pt").read_bytes()


def test_the_plot_has_the_floor_of_run_json(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plots = tmp_path / "run", []
    monkeypatch.setattr(plot, "plot_losses", lambda *args, **kwargs: plots.append(kwargs))
    run_metadata = train.run_metadata
    monkeypatch.setattr(
        train,
        "run_metadata",
        lambda trainer: run_metadata(trainer) | {"floor_nats_per_token": 1.25},
    )
    assert train.main(flags(run, settings, train__max_steps=1)) == 0
    assert plots == [{"floor": 1.25}]
    assert state_of(run / "last.pt")["step"] == 1


@pytest.mark.parametrize("accum", [1, 3])
def test_the_log_shows_device_and_tokens_per_step(
    accum: int, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"train__max_steps": 1, "train__grad_accum_steps": accum, "optim__warmup_steps": 2}
    batch = build(tmp_path, settings, **more).batches.get_batch("train", 0)
    capsys.readouterr()  # drops the output of preparing the data
    assert train.main(flags(tmp_path / "run", settings, **more, train__device="cpu")) == 0
    first, second, _, third, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith("device cpu (1 thread), amp off, ")
    assert second.startswith(f"{batch.x_BT.numel()} tokens a step (batch_size 4 x ")
    assert f"x grad_accum_steps {accum} x block_size 32)" in second
    assert third.startswith("warning: optim.warmup_steps 2 does not fit in train.max_steps 1")


def test_without_a_terminal_progress_is_logged_as_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, corpus = tmp_path / "run", make_corpus(tmp_path)
    assert train.main(flags(run, corpus, train__max_steps=3, train__log_every_steps=2)) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "training a tokenizer of 300 tokens on the text" in lines[0]
    assert lines[1:3] == ["encoding the train documents", "encoding the val documents"]
    (line,) = [line for line in lines if line.startswith("step 2")]
    epoch = float(rows_of(run)[1]["epoch"])
    assert epoch > 0 and line.startswith(f"step 2/3, epoch {epoch:.2f}: loss ")
    assert re.search(r" tokens/s, \d\d:\d\d left$", line)
    assert train.main(flags(tmp_path / "again", corpus, train__max_steps=1)) == 0
    assert "encoding" not in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train.main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"llm-tiny {VERSION}\n"
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^## (\d\S*) ", changes)[0] == VERSION  # after what is unreleased


def test_print_config_shows_parameters_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--print_config"]) == 0
    out = capsys.readouterr().out
    assert (
        f"# {'parameters':<36} {sum(p.numel() for p in TinyGPT(Config().model).parameters()):,}"
        in out
    )
