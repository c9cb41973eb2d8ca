"""The plots of the stories and the sentence frames of their turns, read from plots.yaml."""

from __future__ import annotations

from data.stories.words import read_tables

Rules = dict[str, list[str]]


def sections() -> dict[str, Rules]:
    """Return section -> rule -> alternatives, in the order of the file."""
    return read_tables("plots.yaml")


def frames() -> Rules:
    """Return the rules whose alternatives are sentences: the turns of the stories."""
    turns = [rules for name, rules in sections().items() if name not in ("plots", "uses")]
    return {name: texts for rules in turns for name, texts in rules.items()}


def rules() -> Rules:
    """Return all rules of the plots and turns. The word classes are in data/stories/words.py."""
    return {**sections()["plots"], **frames(), **sections()["uses"]}
