"""A small grammar, all texts of a grammar, and the score of documents one by one."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from data.stories.template_grammar import Derivation, Grammar, Variable
from sample import load_run

POOLS = {
    "girl": (
        {"": "Ann", "she": "she", "class": "girl"},
        {"": "Eve", "she": "she", "class": "girl"},
    ),
    "boy": ({"": "Bob", "she": "he", "class": "boy"},),
}
POOLS["name"] = POOLS["girl"] + POOLS["boy"]
VARIABLES = {
    "hero": Variable("name", distinct_from="friend"),
    "friend": Variable("name", distinct_from="hero"),
}
RULES = {
    "story": ["{hero} and {friend} [ran|sat|]. <end>", "A girl, {hero=girl}<goes:hero>. <end>"],
    "end": ["{hero} smiled as {she} slept.", "Then {she} [went|[ran|flew]] <where>."],
    "where": ["home"],
    "goes.girl": [" sings", " hums"],
    "goes.boy": [" never"],
}


class Script:
    """A fake random generator: returns the given numbers, then zeros, and counts its calls."""

    def __init__(self, numbers):
        self.numbers, self.used = numbers, 0

    def __call__(self):
        self.used += 1
        return self.numbers[self.used - 1] if self.used <= len(self.numbers) else 0.0


def all_texts(grammar: Grammar) -> dict[str, float]:
    """Return every text of a grammar with its probability, from all sequences of choices."""
    found: dict[str, float] = {}
    todo: list[list[float]] = [[]]
    while todo:
        numbers = todo.pop()
        derivation: Derivation = []
        text = grammar.write(Script(numbers), derivation)
        for position in range(len(numbers), len(derivation)):
            done = [(index + 0.5) / count for _, index, count in derivation[:position]]
            todo += [
                [*done, (i + 0.5) / derivation[position][2]]
                for i in range(1, derivation[position][2])
            ]
        assert text not in found
        found[text] = math.prod(1 / count for _, _, count in derivation)
    return found


def nats_of(run: Path, documents: list[str]) -> tuple[float, int]:
    """Return the total nats and tokens of documents scored one by one: the reference."""
    loaded = load_run(run)
    end, nats, tokens = loaded.tokenizer.eot_id, 0.0, 0
    for document in documents:
        ids = [*loaded.tokenizer.encode(document), end]
        with torch.no_grad():
            logits = loaded.model(torch.tensor([[end, *ids[:-1]]]))[0].double()
        nats -= float(logits.log_softmax(-1)[range(len(ids)), ids].sum())
        tokens += len(ids)
    return nats, tokens
