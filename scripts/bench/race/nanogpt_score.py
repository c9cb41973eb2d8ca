"""Scores a nanoGPT checkpoint with its own model.py: a job in JSON as argument, figures on stdout.

A process of its own, because that file is another project's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from scripts.bench.checkout import load_module
from scripts.bench.process import do_job

ROWS = 64  # windows in one forward pass


def consecutive(
    ids: np.ndarray, block_size: int, rows: int = ROWS
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and targets (B, T) of windows one after the other; every id but the first is a target.

    The last window may be shorter, and comes by itself.

    >>> [y_BT.tolist() for _, y_BT in consecutive(np.arange(6), block_size=2)]
    [[[1, 2], [3, 4]], [[5]]]
    """
    ids = ids.astype(np.int64)
    whole = (len(ids) - 1) // block_size
    x_NT = ids[: whole * block_size].reshape(whole, block_size)
    y_NT = ids[1 : whole * block_size + 1].reshape(whole, block_size)
    for start in range(0, whole, rows):
        yield torch.from_numpy(x_NT[start : start + rows]), torch.from_numpy(
            y_NT[start : start + rows]
        )
    if rest := (len(ids) - 1) % block_size:
        tail = torch.from_numpy(ids[-rest - 1 :])
        yield tail[None, :-1], tail[None, 1:]


def score(job: dict[str, Any]) -> dict[str, Any]:
    """Nats of all ids but the first, in windows of the model's own block_size."""
    module = load_module(Path(job["model"]))
    state = torch.load(job["checkpoint"], map_location="cpu", weights_only=True)
    arguments = state["model_args"]
    if arguments["vocab_size"] != job["vocab_size"]:
        return {"error": f"{arguments['vocab_size']} characters, the text has {job['vocab_size']}"}
    model = module.GPT(module.GPTConfig(**arguments))
    model.load_state_dict(state["model"])
    model.eval()
    ids, nats = np.load(job["ids"]), 0.0
    with torch.inference_mode():
        for x_BT, y_BT in consecutive(ids, arguments["block_size"]):
            logits_BTV, _ = model(x_BT, y_BT)  # with targets it gives the logits of all places
            nats += F.cross_entropy(logits_BTV.double().mT, y_BT, reduction="sum").item()
    parameters = sum(weight.numel() for weight in model.parameters())
    assert math.isfinite(nats)
    return {"nats": nats, "tokens": len(ids) - 1, "parameters": parameters}


if __name__ == "__main__":
    do_job(score)
