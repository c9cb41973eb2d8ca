"""Coherence of sampled stories (`--coherence N`): how many are accepted, distinct and new."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.stories.story import NotAStory, parse
from data.token_file import TokenFile
from model.sampling.generate import generate_ids
from model.sampling.sampler import SamplingParams
from sample import LoadedRun
from tok.tokenizer import BPETokenizer
from utils.output import log, progress_bar

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

    Return `samples`, their number, and the shares of `Coherence.shares`.

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


@dataclass(frozen=True)
class ParseFailure:
    """Why a sampled text is not accepted: a position where the grammar rejects it, or no end."""

    sample: int  # number of the text, from 0
    what: str  # the wrong word, or another reason; `common_failures` counts equal ones together
    hint: str  # for the user: the same, after its position and context


@dataclass(frozen=True)
class Coherence:
    """Counts over the sampled stories, and the failures of those that are not accepted."""

    samples: int
    accepted: int  # ended, and the grammar accepts them
    distinct: int  # different texts
    new: int  # samples that are not a document of the training text
    ended: int  # reached the end-of-text token
    failures: list[ParseFailure] = field(default_factory=list)

    def shares(self) -> dict[str, float]:
        """Return the counts divided by the number of samples.

        >>> Coherence(samples=4, accepted=2, distinct=4, new=3, ended=4).shares()
        {'accepted': 0.5, 'distinct': 1.0, 'new': 0.75, 'ended': 1.0}
        """
        names = ("accepted", "distinct", "new", "ended")
        return {name: getattr(self, name) / self.samples for name in names}


def score_coherence(
    texts: Sequence[str], ended: Sequence[bool], in_training: Collection[str]
) -> Coherence:
    """Return how many of the sampled texts are accepted, distinct, new and ended.

    >>> score_coherence(["no story", "no story"], [True, False], in_training=set()).shares()
    {'accepted': 0.0, 'distinct': 0.5, 'new': 1.0, 'ended': 0.5}

    Args:
        ended: for each text, whether it reached the end-of-text token; others are not accepted.
        in_training: those of the texts that are documents of the training text.
    """
    accepted, failures = 0, []
    for number, (text, has_ended) in enumerate(zip(texts, ended, strict=True)):
        if not has_ended:
            failures.append(ParseFailure(number, "never ends", "never ends"))
            continue
        try:
            parse(text)
            accepted += 1
        except NotAStory as error:
            failures.append(failure_at(number, text, error.position))
    return Coherence(
        samples=len(texts),
        accepted=accepted,
        distinct=len(set(texts)),
        new=sum(text not in in_training for text in texts),
        ended=sum(ended),
        failures=failures,
    )


def failure_at(sample: int, text: str, position: int, *, before: int = 40) -> ParseFailure:
    """Return the failure at a position: the word there in angle brackets, after its context.

    `before` is the number of characters of context.

    >>> failure_at(0, "Mia lost her red ball. He cried.", 23).hint
    'at 23: Mia lost her red ball. >>He<<'
    >>> failure_at(0, "Mia lost", 8).hint
    'at 8: ends too early'
    """
    if position >= len(text):
        return ParseFailure(sample, "ends too early", f"at {position}: ends too early")
    start, end = position, position + 1
    if text[position].isalnum():
        while start > 0 and text[start - 1].isalnum():
            start -= 1
        while end < len(text) and text[end].isalnum():
            end += 1
    word, context = text[start:end], text[max(0, start - before) : start]
    return ParseFailure(sample, f"at {word!r}", f"at {position}: {context}>>{word}<<")


def common_failures(coherence: Coherence, limit: int = 5) -> list[str]:
    """Return the most frequent failures with their counts.

    >>> texts = ["Not a story.", "Not one either.", "Not"]
    >>> common_failures(score_coherence(texts, [True, True, False], in_training=set()))
    ["2 at 'Not'", '1 never ends']
    """
    counts = Counter(failure.what for failure in coherence.failures)
    return [f"{count} {what}" for what, count in counts.most_common(limit)]


def texts_in_training(
    tokens: TokenFile, tokenizer: BPETokenizer, texts: Collection[str]
) -> set[str]:
    """Return those of `texts` that are documents of a token file.

    Texts are compared, not ids: a model may write a text with other tokens than the tokenizer.
    """
    wanted = set(texts)
    return {text for text in decoded_documents(tokens, tokenizer) if text in wanted}


def decoded_documents(tokens: TokenFile, tokenizer: BPETokenizer) -> Iterator[str]:
    """Yield each document's text without its end-of-text token, decoding one at a time."""
    start = 0
    for end in tokens.positions_of(tokenizer.eot_id).tolist():
        yield tokenizer.decode(tokens.read(start, end).tolist())
        start = end + 1
    if start < tokens.n_tokens:
        yield tokenizer.decode(tokens.read(start, tokens.n_tokens).tolist())
