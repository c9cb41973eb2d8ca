"""Runs that crash just before one of their changes to a file or to the weights."""

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
    """Raised in place of a kill."""


def crash_at(monkeypatch: pytest.MonkeyPatch, change: int) -> None:
    """Raise Killed just before change number `change` (from 1) of a file or of the weights."""
    n_changes = [0]

    def crashing(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            n_changes[0] += 1
            if n_changes[0] == change:
                raise Killed
            return original(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(
        os, "fsync", lambda handle: None
    )  # saves time; needed only for power failures
    monkeypatch.setattr(os, "replace", crashing(os.replace))
    monkeypatch.setattr(CsvLog, "write", crashing(CsvLog.write))
    for name in ("add_scalars", "add_sample"):
        monkeypatch.setattr(TensorBoardWriter, name, crashing(getattr(TensorBoardWriter, name)))
    monkeypatch.setattr(runlog, "append_sample", crashing(runlog.append_sample))
    monkeypatch.setattr(trainer.Trainer, "train_step", crashing(trainer.Trainer.train_step))


def crashes(argv: list[str], change: int) -> bool:
    """Run main up to a crash at this change; False if the run has fewer changes and finishes."""
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, change)
        try:
            assert train.main(argv) == 0
        except Killed:
            return True
    return False
