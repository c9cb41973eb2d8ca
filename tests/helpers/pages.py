"""Runs with random weights, and texts for them, for tests of the page of `scripts.eval --html`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.batches import Batches
from data.config import DataConfig
from data.token_file import token_writer
from model.config import ModelConfig
from model.gpt import TinyGPT
from sample import LoadedRun
from scripts.eval.eval_sets import EvalSet, Run
from tok.tokenizer import BPETokenizer
from train import Config
from utils.run.folder import RunFolder


def random_run(folder: Path, tokenizer: BPETokenizer, **settings: Any) -> Run:
    """Return a run that was not trained; its weights are large, so that it has preferences."""
    shape = {"block_size": 64, "n_layer": 2, "n_head": 2, "n_embd": 16} | settings
    model = TinyGPT(ModelConfig(vocab_size=tokenizer.vocab_size, **shape)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(7)))
    loaded = LoadedRun(
        model, tokenizer, {"step": 3, "val_step": 3, "last_val": 0.5}, folder / "best.pt"
    )
    return Run(RunFolder(folder), Config(), loaded)


def eval_set(run: Run, folder: Path, ids: list[int], **settings: Any) -> EvalSet:
    """Return the windows over some ids; `settings` are of the data section."""
    with token_writer(folder / "val.npy", run.loaded.tokenizer.vocab_size) as writer:
        writer.write(np.array(ids))
    batches = Batches(
        folder,
        DataConfig(**settings),
        block_size=min(run.loaded.model.config.block_size, len(ids)),
        rows=1,
        eot_id=run.loaded.tokenizer.eot_id,
        seed=0,
        splits=("val",),
    )
    return EvalSet("text </script><script>hacked = 1</script>", batches, None)
