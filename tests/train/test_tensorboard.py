"""train.tensorboard: each row and sample is one event, also after kills and resumes."""

from __future__ import annotations

import builtins
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import train
from tests.helpers.crashes import crashes
from tests.helpers.runs import Child, assert_same_run, flags
from utils.errors import UserError
from utils.metrics import read_rows
from utils.run.folder import RunFolder
from utils.run.log import RunLog, read_samples
from utils.run.tensorboard import EVENTS, TensorBoardWriter

pytestmark = pytest.mark.usefixtures("quick")

ORACLE = "oracle: TensorBoard's own reader"
ON = {"train__tensorboard": True, "train__max_steps": 2}
Settings = dict[str, object]


def events_of(run: Path) -> list[tuple[str, int, float | str]]:
    """(name, step, value) of all events in the order of the files; this reader drops none."""
    loader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_file_loader", reason=ORACLE
    )
    found: list[tuple[str, int, float | str]] = []
    for path in sorted((run / "tensorboard").glob(EVENTS)):
        for event in loader.LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                text = value.tensor.string_val
                content = text[0].decode() if text else value.simple_value
                found.append((value.tag, event.step, content))
    return found


def expected_events(run: Path) -> list[tuple[str, int, float | str]]:
    """(name, step, value) of metrics.csv, in single precision, and of samples.txt."""
    found: list[tuple[str, int, float | str]] = [
        (name, int(row["step"]), float(np.float32(float(cell))))
        for row in read_rows(run / "metrics.csv")
        for name, cell in row.items()
        if name != "step" and cell
    ]
    for step, text in read_samples(run / "samples.txt"):
        found.append(("sample/text_summary", step, text.replace("\n", "  \n")))
    return found


def assert_complete(run: Path) -> None:
    """Check that the events equal metrics.csv and samples.txt, each point once."""
    found = events_of(run)
    assert len(found) == len({event[:2] for event in found}), "a point is written twice"
    assert sorted(found) == sorted(expected_events(run))


def test_events_equal_rows_and_samples(settings: Settings, tmp_path: Path) -> None:
    assert train.main(flags(tmp_path / "run", settings, train__tensorboard=True)) == 0
    assert_complete(tmp_path / "run")
    names = {name for name, _, _ in events_of(tmp_path / "run")}
    assert names >= {"train_loss", "val_loss", "val_bpb", "lr", "tokens", "sample/text_summary"}


def test_without_the_setting_there_are_no_events(settings: Settings, tmp_path: Path) -> None:
    assert train.main(flags(tmp_path / "run", settings, train__max_steps=1)) == 0
    assert not (tmp_path / "run" / "tensorboard").exists()


@pytest.mark.slow
def test_resume_after_a_crash_at_every_write(settings: Settings, tmp_path: Path) -> None:
    """Crashes also occur between a row or sample and its event, and before the checkpoint."""
    pytest.importorskip("tensorboard", reason=ORACLE)
    whole = tmp_path / "whole"
    assert train.main(flags(whole, settings, **ON)) == 0
    change, incomplete = 0, 0
    while True:
        change += 1
        run = tmp_path / str(change)
        argv = flags(run, settings, **ON)
        if not crashes(argv, change):
            break
        resume = ["--resume"] if (run / "run.json").exists() else []
        if (run / "samples.txt").exists() and (run / "tensorboard").exists():
            incomplete += sorted(events_of(run)) != sorted(expected_events(run))
        assert train.main([*argv, *resume]) == 0
        assert_same_run(run, whole)
        assert_complete(run)
    assert change > 15 and incomplete > 3  # some crashes came between a row and its events


def test_rows_after_the_last_checkpoint_are_replaced_on_resume(
    settings: Settings, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason=ORACLE)
    run, argv = tmp_path / "run", flags(tmp_path / "run", settings, train__tensorboard=True)
    child = Child(argv, tmp_path / "log", hang=("step", 7))
    child.wait_for(child.marker)
    child.kill()
    assert (
        max(step for _, step, _ in events_of(run)) == 6
    ), "rows are written after the checkpoint of step 4"
    assert_complete(run)
    assert train.main([*argv, "--resume"]) == 0
    assert_complete(run)


def test_a_running_tensorboard_reads_no_point_twice(settings: Settings, tmp_path: Path) -> None:
    """TensorBoard's reader stays open during kill and resume, and drops replaced events."""
    module = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason=ORACLE
    )
    run, argv = tmp_path / "run", flags(tmp_path / "run", settings, train__tensorboard=True)
    child = Child(argv, tmp_path / "log", hang=("step", 7))
    child.wait_for(child.marker)
    watcher = module.EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in watcher.Scalars("lr")] == [1, 2, 3, 4, 5, 6]
    child.kill()
    assert train.main([*argv, "--resume"]) == 0
    steps = [event.step for event in watcher.Reload().Scalars("lr")]
    assert steps == list(range(1, 10))


def test_enabled_on_resume_it_has_all_earlier_rows(settings: Settings, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason=ORACLE)
    run = tmp_path / "run"
    assert train.main(flags(run, settings, train__max_steps=3)) == 0
    more = ["--resume", "--train.max_steps", "6", "--train.tensorboard", "true"]
    assert train.main(["--run_dir", str(run), *more]) == 0
    assert_complete(run)


def test_only_event_files_are_removed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason=ORACLE)
    (tmp_path / "mine.txt").touch()
    for _ in range(4):
        TensorBoardWriter(tmp_path, 0.0).close()
    sizes = [path.stat().st_size > 0 for path in tmp_path.glob(EVENTS)]
    assert sorted(sizes) == [False, True] and (tmp_path / "mine.txt").exists()


def test_the_time_of_an_event_is_the_training_time(tmp_path: Path) -> None:
    module = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason=ORACLE
    )
    run = RunFolder(tmp_path)
    log = RunLog(run)
    log.write({"step": 1, "lr": 1.0, "elapsed_s": 10.0})
    started = time.time()
    log = RunLog(run, after_step=1, elapsed_s=12.0, tensorboard=True)
    log.write({"step": 2, "lr": 1.0, "elapsed_s": 15.0})
    log.close()
    first, second = module.EventAccumulator(str(run.tensorboard)).Reload().Scalars("lr")
    assert second.wall_time - first.wall_time == pytest.approx(5.0, abs=1e-3)
    assert second.wall_time == pytest.approx(started + 3.0, abs=2.0)


@pytest.mark.parametrize("resumed", [False, True])
def test_without_the_library_the_error_names_the_package(
    resumed: bool, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[..., object] = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name.partition(".")[0] == "tensorboard":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    run, cache = tmp_path / "run", tmp_path / "cache"
    settings = settings | {"data.cache_dir": cache}
    if resumed:
        assert train.main(flags(run, settings, train__max_steps=1)) == 0
        shutil.rmtree(cache)
    more = ["--resume"] if resumed else []
    before = {path: path.read_bytes() for path in sorted(run.rglob("*"))}
    for name in [name for name in sys.modules if "tensorboard" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="train.tensorboard needs .* pip install tensorboard$"):
        train.main(flags(run, settings, *more, **ON))
    assert {path: path.read_bytes() for path in sorted(run.rglob("*"))} == before
    assert not cache.exists(), "the error must come before the data is prepared"
