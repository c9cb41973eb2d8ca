"""Coherence of sampled stories (`--coherence N`): how many are accepted, distinct and new."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.stories.story import NotAStory, parse
from data.token_file import TokenFile
from model.sampling.generate import generate_ids
from model.sampling.sampler import SamplingParams
from sample import LoadedRun
from tok.tokenizer import BPETokenizer
from utils.output import log, progress_bar

SAMPLES_PER_BATCH = 50
MAX_FAILURES_SHOWN = 5
CONTEXT_CHARS = 40  # before a wrong word
WORDS = re.compile(r"[^\W_]+|.", re.DOTALL)  # words, and other characters one by one


def sample_stories(
    loaded: LoadedRun, n_samples: int, params: SamplingParams
) -> tuple[list[str], list[bool]]:
    """Return sampled texts without their end-of-text tokens, and whether each reached one.

    Sample i starts after an end-of-text token, has seed i and at most block_size new tokens.
    """
    eot_id = loaded.tokenizer.eot_id
    texts: list[str] = []
    ended: list[bool] = []
    with progress_bar(total=n_samples, desc="sample stories", leave=False) as bar:
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
    """Sample stories and compare them with the grammar and the training text.

    Return `samples`, their number, and the counts of `score_coherence` as shares of it.

    Args:
        train: train.npy, whose stories don't count as new.
    """
    texts, ended = sample_stories(loaded, n_samples, params)
    with contextlib.closing(TokenFile(train)) as tokens:
        in_training = texts_in_training(tokens, loaded.tokenizer, texts)
    counts, failures = score_coherence(texts, ended, in_training)
    describe(counts, failures, n_samples)
    return {"samples": n_samples} | {name: count / n_samples for name, count in counts.items()}


def describe(counts: dict[str, int], failures: Sequence[ParseFailure], n_samples: int) -> None:
    """Log the counts, the first failures, and the most frequent kinds of failure."""
    log(
        f"{n_samples} stories: {counts['accepted']} coherent, {counts['distinct']} distinct, "
        f"{counts['new']} not in the training text, {counts['ended']} ended"
    )
    for failure in failures[:MAX_FAILURES_SHOWN]:
        log(f"  sample {failure.sample} goes wrong: {failure.hint}")
    if kinds := Counter(failure.what for failure in failures).most_common(MAX_FAILURES_SHOWN):
        log(f"  most often: {', '.join(f'{count} {what}' for what, count in kinds)}")


class ParseFailure(NamedTuple):
    """Why a sampled text is not accepted: a position where the grammar rejects it, or no end."""

    sample: int  # number of the text, from 0
    what: str  # the wrong word, or another reason; equal ones are counted together
    hint: str  # for the user: the same, after its position and context


def score_coherence(
    texts: Sequence[str], ended: Sequence[bool], in_training: Collection[str]
) -> tuple[dict[str, int], list[ParseFailure]]:
    """Return how many of the sampled texts are accepted, distinct, new and ended; the failures.

    Accepted texts have ended, and are stories of the grammar. New ones are not documents of the
    training text.

    >>> score_coherence(["no story", "no story"], [False, False], in_training=set())[0]
    {'accepted': 0, 'distinct': 1, 'new': 2, 'ended': 0}

    Args:
        ended: for each text, whether it reached the end-of-text token.
        in_training: those of the texts that are documents of the training text.
    """
    failures = []
    for number, (text, has_ended) in enumerate(zip(texts, ended, strict=True)):
        if not has_ended:
            failures.append(ParseFailure(number, "never ends", "never ends"))
            continue
        try:
            parse(text)
        except NotAStory as error:
            failures.append(failure_at(number, text, error.position))
    counts = {
        "accepted": len(texts) - len(failures),
        "distinct": len(set(texts)),
        "new": sum(text not in in_training for text in texts),
        "ended": sum(ended),
    }
    return counts, failures


def failure_at(sample: int, text: str, position: int) -> ParseFailure:
    """Return the failure at a position: the word there in angle brackets, after its context.

    >>> failure_at(0, "Mia lost her red ball. He cried.", 23).hint
    'at 23: Mia lost her red ball. >>He<<'
    >>> failure_at(0, "Mia lost", 8).hint
    'at 8: ends too early'
    """
    if position >= len(text):
        return ParseFailure(sample, "ends too early", f"at {position}: ends too early")
    word = next(one for one in WORDS.finditer(text) if one.end() > position)
    context = text[max(0, word.start() - CONTEXT_CHARS) : word.start()]
    return ParseFailure(sample, f"at {word[0]!r}", f"at {position}: {context}>>{word[0]}<<")


def texts_in_training(
    tokens: TokenFile, tokenizer: BPETokenizer, texts: Collection[str]
) -> set[str]:
    """Return those of `texts` that are documents of a token file.

    Texts are compared, not ids: a model may write a text with other tokens than the tokenizer.
    """
    ends = tokens.positions_of(tokenizer.eot_id).tolist()
    spans = zip([0, *(end + 1 for end in ends)], ends, strict=False)  # one start too many
    return set(texts).intersection(tokenizer.decode(tokens.read(*span).tolist()) for span in spans)
