"""Coherence of sampled stories (`--coherence N`): the share that the story grammar accepts."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.stories.coherence import Coherence, common_failures, score_coherence, texts_in_training
from data.token_file import TokenFile
from model.sampling.generate import generate_ids
from model.sampling.sampler import SamplingParams
from sample import LoadedRun
from utils.output import log

SAMPLES_PER_BATCH = 50
MAX_FAILURES_SHOWN = 5


def sample_stories(
    loaded: LoadedRun, n_samples: int, params: SamplingParams
) -> tuple[list[str], list[bool]]:
    """Return sampled texts without their end-of-text tokens, and whether each reached one.

    Sample i starts after an end-of-text token, has seed i and at most block_size new tokens.
    """
    eot_id = loaded.tokenizer.eot_id
    texts: list[str] = []
    ended: list[bool] = []
    with tqdm(total=n_samples, desc="sample stories", disable=None, leave=False) as bar:
        for first in range(0, n_samples, SAMPLES_PER_BATCH):
            seeds = list(range(first, min(first + SAMPLES_PER_BATCH, n_samples)))
            for ids in generate_ids(
                loaded.model,
                [[eot_id]] * len(seeds),
                seeds=seeds,
                max_new_tokens=loaded.model.config.block_size,
                params=params,
                stop_id=eot_id,
                engine=loaded.engine,
            ):
                ended.append(ids[-1] == eot_id)
                texts.append(loaded.tokenizer.decode(ids[:-1] if ended[-1] else ids))
            bar.update(len(seeds))
    return texts, ended


def measure_coherence(
    loaded: LoadedRun, n_samples: int, params: SamplingParams, train: Path
) -> dict[str, Any]:
    """Sample stories and compare them with the grammar and the training text; return the shares.

    Args:
        train: train.npy, whose stories don't count as new.
    """
    texts, ended = sample_stories(loaded, n_samples, params)
    with contextlib.closing(TokenFile(train)) as tokens:
        in_training = texts_in_training(tokens, loaded.tokenizer, texts)
    result = score_coherence(texts, ended, in_training)
    describe(result, n_samples)
    return {"samples": n_samples, **result.shares()}


def describe(result: Coherence, n_samples: int) -> None:
    """Log the counts, the first failures, and the most frequent kinds of failure."""
    log(
        f"{n_samples} stories: {result.accepted} coherent, {result.distinct} distinct, "
        f"{result.new} not in the training text, {result.ended} ended"
    )
    for failure in result.failures[:MAX_FAILURES_SHOWN]:
        log(f"  sample {failure.sample} goes wrong: {failure.hint}")
    if result.failures:
        log(f"  most often: {', '.join(common_failures(result))}")
