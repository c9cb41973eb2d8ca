"""Minimal pairs (`--pairs N`): does the model prefer a story to one with a single wrong word?"""

import math
import random
from collections.abc import Sequence
from typing import Any

import torch

from data.stories.story import NotAStory, generate_story, parse, story_grammar
from data.stories.template_grammar import Step, history
from scripts.eval.choices import TABLES, kind_of
from scripts.eval.eval_sets import Run
from scripts.eval.scoring import evaluate_run
from scripts.intervals import share_interval
from scripts.report import table
from utils.errors import UserError
from utils.output import log, progress_bar

VARIABLES: dict[str, str] = TABLES["pairs"]  # kind -> variables whose mentions are replaced
MAX_PAIRS = 100_000


def make_pair(rng: random.Random, kind: str) -> tuple[str, str]:
    """Return a story, and a text that differs in one mention of a kind and is not a story.

    The mention repeats an earlier one. A name becomes that of the other child, a pronoun that of
    the other gender, and a thing, place or promise another one of the same class.
    """
    while True:
        text = generate_story(rng).text
        [last] = [step for agree, *_, step in story_grammar().branches(text) if agree > len(text)]
        steps = [one for one in history(last) if one.name in VARIABLES[kind].split()]
        steps = [one for one in steps if kind_of(one.name, one.form) == kind]
        if copies := [one for one in steps if one.is_copy]:
            step = copies[int(rng.random() * len(copies))]
            words = wrong_words(text, step, kind, {text[one.start : one.stop] for one in steps})
            wrong = text[: step.start] + words[int(rng.random() * len(words))] + text[step.stop :]
            try:
                parse(wrong)
            except NotAStory:
                return text, wrong


def wrong_words(text: str, step: Step, kind: str, mentions: set[str]) -> list[str]:
    """Return what a mention may become. `mentions` are those of its kind in the story."""
    word, form, grammar = text[step.start : step.stop], step.form or "", story_grammar()
    if kind == "name":
        return sorted(mentions - {word})
    pool = grammar.pools[grammar.variables[step.name].pool]
    classes = {entry["class"] for entry in pool if entry[form] == word}
    others = [one for one in pool if (one["class"] in classes) != (kind == "pronoun")]
    return [entry[form] for entry in others if entry[form] != word]


def measure_pairs(run: Run, n_pairs: int) -> dict[str, Any]:
    """Return the share of pairs of which the model prefers the story, for all and for each kind.

    It prefers the text with the higher probability, including that of its end. If they are equal,
    the pair counts as wrong. The pairs are the same each time.

    Raises:
        UserError: a story is longer than block_size.
    """
    rng, kinds = random.Random("minimal pairs"), list(VARIABLES)
    tokenizer, block_size = run.loaded.tokenizer, run.loaded.model.config.block_size
    rows: list[torch.Tensor] = []  # story, wrong text, next story, ...
    for i in progress_bar(range(n_pairs), desc="make pairs", leave=False):
        for text in make_pair(rng, kinds[i % len(kinds)]):
            ids = [tokenizer.eot_id, *tokenizer.encode(text), tokenizer.eot_id]
            rows.append(torch.tensor([ids]))
    if (longest := max(row.shape[1] for row in rows) - 1) > block_size:
        problem = f"a story of {longest} tokens is longer than model.block_size {block_size}"
        raise UserError(f"--pairs: {problem}; use a run with a larger one, or fewer pairs")
    nats: list[float] = []  # of each row
    batches = ((row[:, :-1], row[:, 1:]) for row in progress_bar(rows, desc="score", leave=False))
    evaluate_run(run, batches, lambda _, nats_BT: nats.append(float(nats_BT.double().sum())))
    right = [story < wrong for story, wrong in zip(nats[::2], nats[1::2], strict=True)]
    parts = {kind: share(right[i :: len(kinds)]) for i, kind in enumerate(kinds[:n_pairs])}
    found = [*parts.items(), ("all", share(right))]
    lines = [[name, *(f"{round(one, 4):,}" for one in shares.values())] for name, shares in found]
    log(table(["one wrong", "pairs", "story preferred", "+-", "95% from", "to"], lines))
    return share(right) | {"kinds": parts}


def share(right: Sequence[bool]) -> dict[str, float]:
    """Return how many pairs there are, the share that is right, its standard error and interval.

    The standard error is 0 if all are right, or none. The 95% interval, `low` to `high`, is not.

    >>> {key: round(value, 4) for key, value in share([True, True, True, False]).items()}
    {'pairs': 4, 'correct': 0.75, 'standard_error': 0.2165, 'low': 0.3006, 'high': 0.9544}
    """
    n, p = len(right), sum(right) / len(right)
    low, high = share_interval(sum(right), n)
    error = math.sqrt(p * (1 - p) / n)
    return {"pairs": n, "correct": p, "standard_error": error, "low": low, "high": high}
