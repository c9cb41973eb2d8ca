"""Batches of a small prepared text in which all token ids differ."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np

from data.batches import Batches
from data.config import DataConfig
from data.token_file import token_writer

END = 999


def make(folder: Path, n_documents: int = 40, seed: int = 0, longest: int = 8) -> Path:
    """Write train.npy and val.npy of documents in which all token ids differ; return the folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for split in ("train", "val"):
        first = 0
        with token_writer(folder / f"{split}.npy", 1000) as writer:
            for length in rng.integers(1, longest + 1, n_documents):
                writer.write(np.arange(first, first + length) % 990)
                writer.write(np.array([END]))
                first += int(length)
    return folder


def batches(folder: Path, **changes: object) -> Batches:
    """Return batches; `changes` are settings of `DataConfig` or arguments of `Batches`."""
    names = {field.name for field in fields(DataConfig)}
    config = DataConfig(**{name: changes.pop(name) for name in names & changes.keys()})
    arguments = {"block_size": 10, "rows": 3, "eot_id": END, "seed": 5, **changes}
    return Batches(folder, config, **arguments)
