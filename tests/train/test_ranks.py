"""Training in several ranks: it equals one process, writes once, and all ranks stop together."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import train
from model.training import trainer as trainer
from tests.conftest import ROOT, clean_environment, run_program
from tests.helpers import ranks as launcher
from tests.helpers.runs import Child, assert_same_run, flags, last_step, rows_of, state_of
from utils.distributed import Distributed
from utils.run import folder as runs

pytestmark = pytest.mark.usefixtures("quick")

Settings = dict[str, object]
NUMBERS = ("train_loss", "grad_norm", "val_loss")

# Number of ranks and settings of the comparisons with one process. Together they cover both
# optimizers, accumulation steps that ranks share evenly or not, padded rows, document masks, shift,
# and the pointer and bigram features of the default model.
MODES: dict[str, tuple[int, Settings]] = {
    "adamw": (2, {"train.grad_accum_steps": 3}),
    "muon": (2, {"optim.name": "muon", "model.pointer": "true", "model.bigram_rows": 64}),
    "documents": (4, {"data.windows": "documents", "model.block_size": 64}),
    "masked": (2, {"data.mask_documents": "true", "data.stride": 20, "train.grad_accum_steps": 2}),
    "shift": (3, {"data.shift": "true", "train.batch_size": 6, "model.tie_weights": "true"}),
    "bf16": (2, {"train.amp": "bf16"}),
    "fp16": (2, {"train.amp": "fp16", "train.grad_accum_steps": 2}),
}

# Relative tolerance. Muon iterates in bf16 on CPUs that are fast at it.
ROUNDING = {"bf16": 1e-3, "fp16": 1e-3, "muon": 2e-5}


@pytest.fixture(scope="module")
def uninterrupted(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Path]]:
    """An uninterrupted run in two ranks, with dropout."""
    made: list[Path] = []

    def get() -> Path:
        if not made:
            folder = tmp_path_factory.mktemp("uninterrupted")
            ranks = launcher.start(flags(folder / "run", settings), folder / "log")
            assert launcher.statuses(ranks) == [0, 0], launcher.errors(ranks)
            made.append(folder / "run")
        return made[0]

    yield get


def assert_close(one: Path, other: Path, rel: float) -> None:
    """Check that losses and norms are equal up to rounding, all else in metrics.csv exactly."""
    found, wanted = rows_of(one), rows_of(other)
    assert [{**row, **dict.fromkeys((*NUMBERS, "val_ppl", "val_bpb"))} for row in found] == [
        {**row, **dict.fromkeys((*NUMBERS, "val_ppl", "val_bpb"))} for row in wanted
    ]
    for name in NUMBERS:
        mine, theirs = ([float(row[name] or 0) for row in rows] for rows in (found, wanted))
        # The norm of a gradient is small compared with the terms that are summed for it.
        assert mine == pytest.approx(theirs, rel=rel * (10 if name == "grad_norm" else 1)), name


def compare_with_one_process(mode: str, settings: Settings, tmp_path: Path, steps: int) -> None:
    size, changes = MODES[mode]
    settings = settings | changes | {"model.dropout": 0.0, "train.max_steps": steps}
    alone, together = tmp_path / "alone", tmp_path / "together"
    ranks = launcher.start(
        flags(together, settings, data__cache_dir=tmp_path), tmp_path / "log", size
    )
    assert train.main(flags(alone, settings)) == 0
    assert launcher.statuses(ranks) == [0] * size, launcher.errors(ranks)
    assert_close(together, alone, rel=ROUNDING.get(mode, 1e-6))
    assert {path.name for path in together.iterdir()} == {path.name for path in alone.iterdir()}
    main, *others = (child.errors() for child in ranks)
    assert f"{size} ranks, each takes" in main and main.count("encoding the train documents") == 1
    assert others == [""] * (size - 1)
    assert state_of(together / "last.pt")["ranks"] == size


def test_two_ranks_equal_one_process(settings: Settings, tmp_path: Path) -> None:
    compare_with_one_process("muon", settings, tmp_path, steps=6)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_twenty_steps_in_ranks_equal_one_process(
    mode: str, settings: Settings, tmp_path: Path
) -> None:
    compare_with_one_process(mode, settings, tmp_path, steps=20)


def test_a_signal_to_one_rank_stops_all_after_the_same_step(
    settings: Settings, uninterrupted: Callable[[], Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ranks = launcher.start(flags(run, settings), tmp_path / "log", hang=("step", 6))
    for child in ranks:
        child.wait_for(child.marker)
    ranks[1].send(signal.SIGTERM)
    for child in ranks:
        child.release()
    assert launcher.statuses(ranks) == [143, 143] and launcher.errors(ranks) == []
    assert state_of(run / "last.pt")["step"] == 6
    assert ranks[0].errors().count("stopped at step 6, not evaluated since step 4; continue") == 1
    ranks = launcher.start(flags(run, settings, "--resume"), tmp_path / "log")
    assert launcher.statuses(ranks) == [0, 0]
    assert_same_run(run, uninterrupted())


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_after_a_killed_rank_the_others_stop_and_the_run_resumes(
    victim: int, settings: Settings, uninterrupted: Callable[[], Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ranks = launcher.start(flags(run, settings), tmp_path / "log", hang=("step", 6))
    for child in ranks:
        child.wait_for(child.marker)
    ranks[victim].kill()
    ranks[1 - victim].release()
    assert ranks[1 - victim].join() == 2
    (line,) = launcher.errors(ranks)
    assert "has lost another rank" in line and "continue with --resume" in line
    # Rank 0 may be killed while it writes the checkpoint of step 4 in the background.
    assert state_of(run / "last.pt")["step"] in ((0, 4) if victim == 0 else (4,))
    ranks = launcher.start(flags(run, settings, "--resume"), tmp_path / "log")
    assert launcher.statuses(ranks) == [0, 0]
    assert_same_run(run, uninterrupted())


@pytest.mark.slow
def test_a_run_resumes_with_another_number_of_ranks(settings: Settings, tmp_path: Path) -> None:
    settings = settings | {"model.dropout": 0.0}
    assert train.main(flags(tmp_path / "alone", settings)) == 0
    run = tmp_path / "run"
    ranks = launcher.start(flags(run, settings), tmp_path / "log", hang=("step", 6))
    for child in ranks:
        child.wait_for(child.marker)
    for child in ranks:
        child.send(signal.SIGINT)
        child.release()
    assert launcher.statuses(ranks) == [130, 130]
    child = Child(flags(run, settings, "--resume"), tmp_path / "log")
    assert child.join() == 0
    assert child.errors().count("warning") == 1
    assert "warning: the run had 2 ranks, now it has 1: from this step on" in child.errors()
    assert_close(run, tmp_path / "alone", rel=1e-6)


def test_an_error_in_one_rank_is_reported_once(settings: Settings, tmp_path: Path) -> None:
    argv = flags(tmp_path / "run", settings)
    for wrong in ([argv, [*argv, "--nonsense"]], [[*argv, "--nonsense"]] * 2):
        ranks = [
            Child(words, tmp_path / f"log{rank}", environment=environment)
            for rank, (words, environment) in enumerate(zip(wrong, launcher.environments(2)))
        ]
        assert launcher.statuses(ranks) == [2, 2]
        (line,) = launcher.errors(ranks)
        assert "nonsense" in line
    assert not (tmp_path / "run").exists()


def test_rows_that_ranks_cannot_share_evenly_are_refused(
    settings: Settings, tmp_path: Path
) -> None:
    argv = flags(tmp_path / "run", settings, train__batch_size=3)
    ranks = launcher.start(argv, tmp_path / "log")
    assert launcher.statuses(ranks) == [2, 2]
    (line,) = launcher.errors(ranks)
    assert "is 3 rows a step, which 2 ranks can't share evenly" in line
    assert not (tmp_path / "run").exists()


def test_each_rank_has_different_dropout_masks(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(trainer.device, "seed_all", lambda *numbers: seen.append(numbers))
    monkeypatch.setattr(Distributed, "all_reduce_gradients", lambda self, weights, nats: nats)
    config, _, _ = train.parse(flags(tmp_path, settings))
    second, _ = train.build_trainer(
        config, runs.RunFolder(tmp_path), dist=Distributed(rank=1, size=2)
    )
    second.train_step()
    assert seen == [(1, 0), (1, 1, 1)], "the same initial weights, but different masks"


@pytest.mark.slow
def test_ranks_stop_and_save_when_torchrun_is_killed(settings: Settings, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    words = flags(run, settings, train__max_steps=10**6)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "train.py"]
    with open(log, "wb") as file:
        torchrun = subprocess.Popen(
            [*launch, *words], cwd=ROOT, env=clean_environment(), stderr=file
        )
    end = time.monotonic() + 600
    while not (run / "last.pt").exists():
        assert torchrun.poll() is None and time.monotonic() < end, log.read_text(encoding="utf-8")
        time.sleep(0.02)
    torchrun.kill()
    torchrun.wait()
    end = time.monotonic() + 60
    while "continue with --resume" not in log.read_text(encoding="utf-8"):
        assert time.monotonic() < end, log.read_text(encoding="utf-8")
        time.sleep(0.1)
    time.sleep(2)
    with contextlib.closing(runs.RunFolder(run)) as folder:
        folder.lock()  # no rank holds it any more
    assert state_of(run / "last.pt")["step"] > 0


@pytest.mark.slow
def test_the_documented_commands_for_several_devices_work(tmp_path: Path) -> None:
    """With a smaller model: the first command is interrupted, the second finishes the run."""
    config = (ROOT / "configs" / "tiny.yaml").read_text(encoding="utf-8")
    values = {"n_embd": 32, "bigram_rows": 64, "story_bytes": 100_000, "val_story_bytes": 10_000}
    for name, value in {**values, "max_steps": 60}.items():
        config, n = re.subn(rf"(?m)^  {name}: [\w]+", f"  {name}: {value}", config)
        assert n == 1
    config = config.replace("train:\n", "train:\n  log_every_steps: 2\n  sample_tokens: 0\n")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny.yaml").write_text(config, encoding="utf-8")
    (tmp_path / "train.py").symlink_to(ROOT / "train.py")
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Several devices")[1]
    first, second = section.split("```sh\n")[1].split("```")[0].splitlines()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run, log = tmp_path / "runs" / "two", tmp_path / "log"
    with open(log, "wb") as file:
        begun = subprocess.Popen(
            shlex.split(first), cwd=tmp_path, env=clean_environment(PATH=path), stderr=file
        )
    end = time.monotonic() + 600
    while not (run / "metrics.csv").exists() or last_step(run / "metrics.csv") < 6:
        assert begun.poll() is None and time.monotonic() < end, log.read_text(encoding="utf-8")
        time.sleep(0.02)
    begun.send_signal(signal.SIGTERM)
    begun.wait(120)
    assert log.read_text(encoding="utf-8").count("continue with --resume") == 1
    stopped = state_of(run / "last.pt")
    assert stopped["ranks"] == 2 and 6 <= stopped["step"] < 60
    done = run_program(shlex.split(second), cwd=tmp_path, env={"PATH": path}, timeout_s=600)
    assert done.returncode == 0, done.stderr
    assert state_of(run / "last.pt")["step"] == 60
