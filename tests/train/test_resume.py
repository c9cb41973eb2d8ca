"""A resumed run equals an uninterrupted one bit for bit, after a stop at any point."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import train
from model.training import trainer as trainer
from model.training.optim import OptimConfig
from tests.helpers.crashes import crashes
from tests.helpers.runs import Child, assert_same_run, flags, last_step, rows_of, state_of
from utils.errors import UserError
from utils.run import checkpoint, plot

pytestmark = pytest.mark.usefixtures("quick")

Settings = dict[str, object]

# Together they cover packed and whole documents, overlap, masks, accumulation, several epochs and
# three number formats.
MODES: dict[str, Settings] = {
    "packed": {"train.grad_accum_steps": 3, "data.stride": 20, "data.mask_documents": "true"},
    "bf16": {
        "train.amp": "bf16",
        "data.windows": "documents",
        "train.batch_size": 9,
        "model.block_size": 64,
    },
    "muon": {
        "optim.name": "muon",
        "train.batch_size": 9,
        "train.amp": "off",
        "model.n_kv_head": 1,
        "model.head_size": 10,
        "optim.average_fraction": 0.3,
    },
    "fp16": {"train.amp": "fp16", "train.grad_accum_steps": 4, "data.shift": "true"},
}


@pytest.fixture(scope="module")
def uninterrupted(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Path]]:
    """A function that returns an uninterrupted run with these settings; each is trained once."""
    made: dict[str, Path] = {}

    def get(**changes: object) -> Path:
        key = repr(sorted(changes.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("uninterrupted") / "run"
            assert train.main(flags(made[key], settings, **changes)) == 0
        return made[key]

    yield get


def changes_of(mode: str, **more: object) -> dict[str, object]:
    return {name.replace(".", "__"): value for name, value in MODES[mode].items()} | more


def test_resume_after_a_crash_at_every_write_and_step(
    settings: Settings, uninterrupted: Callable[..., Path], tmp_path: Path
) -> None:
    changes = {"train__max_steps": 3, "train__eval_every_steps": 3}
    whole = uninterrupted(**changes)
    change = 0
    while True:
        change += 1
        run = tmp_path / str(change)
        argv = flags(run, settings, **changes)
        if not crashes(argv, change):
            break
        resume = ["--resume"] if (run / "run.json").exists() else []
        # Every third run crashes once more after it is resumed.
        if change % 3 == 0 and crashes([*argv, *resume], 9):
            resume = ["--resume"] if (run / "run.json").exists() else []
        assert train.main([*argv, *resume]) == 0
        assert_same_run(run, whole)
    assert change > 15  # each write and each step of the run is a change


@pytest.mark.parametrize("mode", MODES)
def test_kill_9_then_resume_is_the_same_run(
    mode: str, settings: Settings, uninterrupted: Callable[..., Path], tmp_path: Path
) -> None:
    changes = changes_of(mode, train__max_steps=40, train__eval_every_steps=7)
    whole, run = uninterrupted(**changes), tmp_path / "run"
    assert float(rows_of(whole)[-1]["epoch"]) > 1.2, "the run must have several epochs"
    for number, step in enumerate((10, 27)):  # kill at step 10, then 27 steps after the resume
        more = ["--resume"] if number else []
        argv = flags(run, settings, *more, **changes)
        child = Child(argv, tmp_path / f"log{number}", hang=("step", step))
        child.wait_for(child.marker)
        child.kill()
        assert 0 < last_step(run / "metrics.csv") < 40
        assert state_of(run / "last.pt")["step"] < 40
    assert train.main(flags(run, settings, "--resume", **changes)) == 0
    assert_same_run(run, whole)
    if mode == "fp16":
        assert state_of(run / "last.pt")["scaler"]["scale"] > 0


@pytest.mark.parametrize(("where", "call"), [("evaluate", 1), ("replace", 7), ("save", 4)])
def test_kill_9_before_the_first_checkpoint_and_inside_a_save(
    where: str, call: int, settings: Settings, uninterrupted: Callable[..., Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    child = Child(flags(run, settings), tmp_path / "log", hang=(where, call))
    child.wait_for(child.marker)
    child.kill()
    if where == "evaluate":
        assert not (run / "last.pt").exists() and not (run / "best.pt").exists()
    else:
        assert checkpoint.load(run / "best.pt")["step"] <= 9
    if where == "replace":
        assert list(run.glob(".*.tmp-*")), "the kill came inside the save"
    assert train.main(flags(run, settings, "--resume")) == 0
    assert_same_run(run, uninterrupted())


def test_the_hint_for_a_damaged_last_checkpoint_works(
    settings: Settings, uninterrupted: Callable[..., Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert crashes(flags(run, settings), 25)
    (run / "last.pt").write_bytes(b"")
    with pytest.raises(UserError, match="last.pt: damaged, the file is empty; copy .*best.pt"):
        train.main(["--run_dir", str(run), "--resume"])
    shutil.copy(run / "best.pt", run / "last.pt")
    assert train.main(["--run_dir", str(run), "--resume"]) == 0
    assert_same_run(run, uninterrupted())


def test_missing_metrics_are_reported_on_resume(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "my run"
    assert train.main(flags(run, settings, train__max_steps=1)) == 0
    assert f"--run '{run}'`" in capsys.readouterr().err
    (run / "metrics.csv").unlink()
    assert train.main(["--run_dir", str(run), "--resume", "--train.max_steps", "2"]) == 0
    assert "metrics.csv is missing" in capsys.readouterr().err


def test_kill_9_at_random_moments(
    settings: Settings, uninterrupted: Callable[..., Path], tmp_path: Path
) -> None:
    changes = {"train__max_steps": 60, "train__eval_every_steps": 5}
    run, rng, kills = tmp_path / "run", random.Random(), 0
    for attempt in range(3):
        resume = ["--resume"] if (run / "run.json").exists() else []
        log = tmp_path / f"log{attempt}"
        child = Child(flags(run, settings, *resume, **changes), log, pause_s=0.03)
        before = last_step(run / "metrics.csv") if (run / "metrics.csv").exists() else -1
        child.wait_for(run / "metrics.csv", min(before, 35) + rng.randint(1, 6))
        child.process.join(rng.random() / 20)
        child.kill()
        kills += 1
        for name in ("last.pt", "best.pt"):
            assert not (run / name).exists() or checkpoint.load(run / name)["step"] < 60
    assert kills == 3
    assert train.main(flags(run, settings, "--resume", **changes)) == 0
    assert_same_run(run, uninterrupted(**changes))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_a_checkpoint_that_resumes_to_the_same_run(
    number: int, status: int, settings: Settings, uninterrupted: Callable[..., Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    child = Child(flags(run, settings), tmp_path / "log", hang=("step", 6))
    child.wait_for(child.marker)
    child.send(number)
    child.release()
    assert child.join() == status
    assert state_of(run / "last.pt")["step"] == 6 == last_step(run / "metrics.csv")
    assert "continue with --resume" in child.errors() and "Traceback" not in child.errors()
    assert train.main(flags(run, settings, "--resume")) == 0
    assert_same_run(run, uninterrupted())


def test_a_second_signal_ends_the_run_immediately(settings: Settings, tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = Child(flags(run, settings), tmp_path / "log", hang=("step", 2))
    child.wait_for(child.marker)
    child.send(signal.SIGTERM)
    child.process.join(0.2)
    assert child.process.is_alive(), "the first signal waits for the end of the step"
    child.send(signal.SIGTERM)
    assert child.join() == -signal.SIGTERM


def test_metrics_hold_the_learning_rate_of_the_schedule(
    settings: Settings, uninterrupted: Callable[..., Path]
) -> None:
    for row in rows_of(uninterrupted())[1:]:
        step = int(row["step"])
        expected = OptimConfig(lr=3e-3, warmup_steps=3).lr_at(step - 1, 9)
        assert float(row["lr"]) == expected
    groups = state_of(uninterrupted() / "last.pt")["optimizer"]["param_groups"]
    assert {group["lr"] for group in groups} == {float(rows_of(uninterrupted())[-1]["lr"])}


def test_resuming_a_finished_run_changes_nothing(
    settings: Settings, uninterrupted: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = uninterrupted()
    (run / "loss.png").touch()

    def files() -> dict[str, tuple[int, bytes]]:
        found = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.iterdir()}
        return found | {"lock": (0, found["lock"][1])}  # taking the lock may touch its file

    before = files()
    assert train.main(flags(run, settings, "--resume")) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert files() == before


def test_a_missing_plot_of_a_finished_run_is_written_on_resume(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plots = tmp_path / "run", []
    assert train.main(flags(run, settings, train__max_steps=1)) == 0
    monkeypatch.setattr(plot, "plot_losses", lambda *args, **kwargs: plots.append(args))
    assert train.main(flags(run, settings, "--resume", train__max_steps=1)) == 0
    assert len(plots) == 1


def test_max_steps_may_grow_with_a_warning(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train.main(flags(run, settings, train__max_steps=3)) == 0
    capsys.readouterr()
    assert train.main(["--run_dir", str(run), "--resume", "--train.max_steps", "6"]) == 0
    warning = capsys.readouterr().err.splitlines()[0]
    assert "warning" in warning and "from 3 to 6" in warning
    assert [int(row["step"]) for row in rows_of(run)] == list(range(7))
    assert "max_steps: 6" in (run / "config.yaml").read_text(encoding="utf-8")
    capsys.readouterr()
    with pytest.raises(UserError, match=r"optim\.lr was"):
        more = ["--train.max_steps", "7", "--optim.lr", "0.5"]
        train.main(["--run_dir", str(run), "--resume", *more])
    assert "warning" not in capsys.readouterr().err
    with pytest.raises(UserError, match=r"train\.max_steps was 6.*not 2"):
        train.main(["--run_dir", str(run), "--resume", "--train.max_steps", "2"])


def test_a_setting_that_affects_completed_steps_is_refused(
    settings: Settings, uninterrupted: Callable[..., Path]
) -> None:
    run = uninterrupted()
    before = (run / "config.yaml").read_bytes()
    for name, value in [("optim.lr", "0.5"), ("train.seed", "2"), ("model.n_layer", "2")]:
        with pytest.raises(UserError, match=rf"{name} was .*, not {value}"):
            train.main(["--run_dir", str(run), "--resume", f"--{name}", value])
    assert (run / "config.yaml").read_bytes() == before


def test_a_config_that_was_edited_after_the_run_began_is_refused(
    settings: Settings, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert train.main(flags(run, settings, train__max_steps=4)) == 0
    path = run / "config.yaml"
    text = path.read_text(encoding="utf-8")
    assert "dropout: 0.1" in text and "max_steps: 4" in text
    edited = text.replace("dropout: 0.1", "dropout: 0.3").replace("max_steps: 4", "max_steps: 5")
    path.write_text(edited, encoding="utf-8")
    with pytest.raises(UserError, match=r"model\.dropout was 0\.1 in .*, not 0\.3"):
        train.main(["--run_dir", str(run), "--resume"])


def test_settings_that_do_not_affect_results_may_change(settings: Settings, tmp_path: Path) -> None:
    run = tmp_path / "run"
    argv = flags(run, settings, train__max_steps=5)
    assert crashes(argv, 20)
    moved = tmp_path / "moved"
    run.rename(moved)
    more = ["--resume", "--train.sample_tokens", "0", "--train.log_every_steps", "5"]
    assert train.main(["--run_dir", str(moved), *more]) == 0
    text = (moved / "config.yaml").read_text(encoding="utf-8")
    assert str(moved) in text and "sample_tokens: 0" in text and not run.exists()


def test_the_number_of_threads_is_restored(settings: Settings, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert crashes(flags(run, settings), 20)
    assert checkpoint.load(run / "last.pt")["threads"] == 1
    torch.set_num_threads(2)
    assert train.main(["--run_dir", str(run), "--resume"]) == 0
    assert torch.get_num_threads() == 1
