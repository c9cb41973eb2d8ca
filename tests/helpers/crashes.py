"""Runs that end just before one of the places at which they change something."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

import train
from model.training import trainer as trainer
from utils.metrics import CsvLog
from utils.run import log as runlog
from utils.run.tensorboard import TensorBoardWriter


class Killed(BaseException):
    """Stands for the end of the process."""


def crash_at(monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    """Ends the run just before one of the places at which it changes a file or its weights."""
    seen = [0]

    def crashing(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            seen[0] += 1
            if seen[0] == place:
                raise Killed
            return original(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(os, "fsync", lambda handle: None)  # no power fails here; saves time
    monkeypatch.setattr(os, "replace", crashing(os.replace))
    monkeypatch.setattr(CsvLog, "write", crashing(CsvLog.write))
    for name in ("add_scalars", "add_sample"):
        monkeypatch.setattr(TensorBoardWriter, name, crashing(getattr(TensorBoardWriter, name)))
    monkeypatch.setattr(runlog, "append_sample", crashing(runlog.append_sample))
    monkeypatch.setattr(trainer.Trainer, "train_step", crashing(trainer.Trainer.train_step))


def crashes(argv: list[str], place: int) -> bool:
    """Runs main up to a crash; False if it ended before that place."""
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, place)
        try:
            assert train.main(argv) == 0
        except Killed:
            return True
    return False
