"""Checkpoints written by a thread: their content, order, errors and the end of the program."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.errors import UserError
from utils.run import checkpoint
from utils.run.saver import Saver, copied


@pytest.fixture
def saver() -> Iterator[Saver]:
    saver = Saver()
    yield saver
    saver._thread.shutdown()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Make every write wait for this event."""
    event, save = threading.Event(), checkpoint.save

    def wait_and_save(path: Path, content: Any) -> bytes:
        assert event.wait(60)
        return save(path, content)

    monkeypatch.setattr(checkpoint, "save", wait_and_save)
    return event


def test_training_continues_while_the_state_of_before_is_written(
    saver: Saver, held: threading.Event, tmp_path: Path
) -> None:
    best, last, weight = tmp_path / "best.pt", tmp_path / "last.pt", torch.zeros(3)
    state = {"step": 1, "model": {"w": weight}, "optimizer": {"moments": [weight + 1, (2.5, "x")]}}
    last.touch()
    saver.save([best, last], state)
    weight.fill_(7)  # the next step
    state["step"] = 2
    saver.check()  # it does not wait: nothing is written yet
    assert not best.exists() and not last.read_bytes()
    held.set()
    saver.wait()
    assert best.read_bytes() == last.read_bytes()
    found = checkpoint.load(last)
    assert found["step"] == 1 and found["model"]["w"].tolist() == [0, 0, 0]
    assert found["optimizer"]["moments"][0].tolist() == [1, 1, 1]
    assert found["optimizer"]["moments"][1] == (2.5, "x")


def test_the_best_checkpoint_is_written_before_the_last(
    saver: Saver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    save: Callable[..., bytes] = checkpoint.save

    def record(path: Path, content: Any) -> bytes:
        written.append(path.name)
        return save(path, content)

    monkeypatch.setattr(checkpoint, "save", record)
    for step in (1, 2):
        saver.save([tmp_path / "best.pt", tmp_path / "last.pt"], {"step": step})
    saver.wait()
    assert written == ["best.pt", "last.pt"] * 2, "one checkpoint after the other"
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 2


def test_the_first_checkpoint_is_waited_for(saver: Saver, tmp_path: Path) -> None:
    """A run killed before it has rows of metrics.csv that no checkpoint covers."""
    saver.save([tmp_path / "last.pt"], {"step": 0})
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 0
    with pytest.raises(OSError):
        saver.save([tmp_path / "missing" / "last.pt"], {"step": 0})


@pytest.mark.parametrize("call", ["check", "wait", "save", "exit"])
def test_the_error_of_a_write_is_raised_once(call: str, saver: Saver, tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "last.pt"
    saver._write = Future()
    saver._write.set_exception(OSError())
    with pytest.raises(OSError):
        if call == "save":
            saver.save([missing], {"step": 2})
        elif call == "exit":
            saver.__exit__(None, None, None)
        else:
            getattr(saver, call)()
    saver.wait()  # it was raised


def test_the_error_of_training_counts_more_than_that_of_a_write(
    saver: Saver, capsys: pytest.CaptureFixture[str]
) -> None:
    write: Future[None] = Future()
    write.set_exception(OSError(28, "No space left on device", "last.pt"))
    with pytest.raises(UserError, match="loss nan"), saver:
        saver._write = write
        raise UserError("step 3 had loss nan")
    assert "warning: last.pt: No space left on device" in capsys.readouterr().err


def test_tied_weights_are_copied_once() -> None:
    weight = torch.arange(6.0).view(2, 3)
    found = copied({"head": weight, "embedding": weight, "transposed": weight.T}, {})
    assert found["head"] is found["embedding"] and found["head"] is not weight
    assert torch.equal(found["transposed"], weight.T)
    assert found["head"].data_ptr() != weight.data_ptr()


def test_a_program_ends_after_its_checkpoint_is_written(run_python: Any, tmp_path: Path) -> None:
    code = (
        "import sys, time, torch\nfrom pathlib import Path\nfrom utils.run import checkpoint\n"
        "from utils.run.saver import Saver\nsave = checkpoint.save\n"
        "checkpoint.save = lambda *a: (time.sleep(0.3), save(*a))[1]\n"
        "Path(sys.argv[1]).touch()\nSaver().save([Path(sys.argv[1])], {'step': 5})\nsys.exit(3)\n"
    )
    assert run_python("-c", code, tmp_path / "last.pt").returncode == 3
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 5
