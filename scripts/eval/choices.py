"""What the story grammar decides at each token of a story, and how probable it makes the token."""

from collections.abc import Callable, Sequence
from functools import cache
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np

from data.stories.plots import sentence_frames
from data.stories.template_grammar import Grammar, NotAStory, Step, history
from utils.config.tables import read_table

TABLES = read_table(Path(__file__).with_name("kinds.yaml"))
KINDS = list(TABLES["kinds"])
CLASS_OF: dict[str, str] = TABLES["class_of"]


@cache
def kind_of(name: str, form: str | None = None) -> str:
    """Return the kind of a choice: of a rule, or of a variable in a form.

    >>> kind_of("hero", ""), kind_of("hero", "her"), kind_of("lair.town"), kind_of("lair.town.1")
    ('name', 'pronoun', 'place', 'words')
    """
    stem = name.partition(".")[0]
    if form and stem in ("hero", "friend"):
        return "pronoun"
    if name.rpartition(".")[2].isdigit() and stem != "story":
        return "words"  # brackets in a sentence
    kind = next((kind for kind, names in TABLES["kinds"].items() if stem in names.split()), "")
    return kind or ("plot" if name in sentence_frames() else "words")


def decide(
    grammar: Grammar, tokens: list[str], encode: Callable[[str], list[str]]
) -> tuple[np.ndarray, ...]:
    """Return what a grammar decides at each token of a text and at its end, in three arrays (T,).

    They are: -ln of the token's probability, given the tokens before it. The index in KINDS of what
    is decided: of the choices that rule out alternatives to the token, it is the kind that rules
    out the largest probability; if there are none, that of the mention that the token belongs to.
    The number of tokens since the last mention of what the token depends on (see `distances`), 0 if
    on none.

    Args:
        encode: returns the tokens of a text. A text is ruled out by the first token that differs.

    Raises:
        NotAStory: the grammar does not accept the text.
    """
    text, stop_T = "".join(tokens), np.cumsum([*map(len, tokens), 1])
    branches, steps = list[tuple[int, float, Any]](), list[Step]()
    for agree, instead, p, step in grammar.branches(text):
        if agree > len(text):
            equal, steps = len(stop_T), history(step)
        else:  # compare the tokens from the last space on: that of the word is the first to differ
            start = max(0, text.rfind(" ", 0, agree))
            word = instead[:1] + instead[1:].partition(" ")[0]
            theirs = encode(text[start:agree] + word)
            first = int(stop_T.searchsorted(start, "right"))
            equal = first + len(commonprefix([tokens[first : first + len(theirs)], theirs]))
        branches.append((equal, p, step))
    if not steps:
        raise NotAStory(max(agree for agree, *_ in grammar.branches(text)))
    reach = {id(None): len(stop_T)}  # step -> most equal tokens of a branch with it
    for equal, _, step in branches:
        while reach.get(id(step), -1) < equal:
            reach[id(step)], step = equal, step.before
    ending = np.zeros(len(stop_T) + 1)  # probability of so many equal tokens, no more
    lost_TK = np.zeros((len(stop_T), len(KINDS)))  # probability that a token rules out
    for equal, p, step in branches:
        ending[equal] += p
        if equal < len(stop_T):
            while reach[id(step.before)] <= equal:  # no alternative survives the token
                step = step.before
            lost_TK[equal, KINDS.index(kind_of(step.name, step.form))] += p
    begin = ending[::-1].cumsum(0)[::-1]  # probability of so many equal tokens or more
    kind_T = np.where(lost_TK.any(1), lost_TK.argmax(1), KINDS.index("fixed"))
    for step in steps:
        if step.form is not None:
            mention = kind_T[tokens_of(step, stop_T)]
            mention[mention == KINDS.index("fixed")] = KINDS.index(kind_of(step.name, step.form))
    return np.log(begin[:-1] / begin[1:]), kind_T, distances(steps, stop_T)


def tokens_of(step: Step, stop_T: np.ndarray) -> slice:
    """Return the tokens that hold a step, given the position in the text behind each token."""
    first, last = np.searchsorted(stop_T, (step.start, step.stop - 1), "right")
    return slice(first, last + 1)


def distances(steps: Sequence[Step], stop_T: np.ndarray) -> np.ndarray:
    """Return how many tokens before each token is the last mention of what it depends on.

    This is, for a name, the last time that the name is written; for a pronoun, the last mention of
    the child, be it a pronoun; for what depends on the class of a place or thing, its last mention.
    """
    last: dict[tuple[str, bool], int] = {}  # variable, pronouns count -> token of last mention
    distance_T = np.zeros_like(stop_T)
    for step in steps:
        tokens, kind = tokens_of(step, stop_T), kind_of(step.name, step.form)
        stem = step.name.partition(".")[0] if kind != "words" else ""
        if source := step.name if step.is_copy else CLASS_OF.get(stem):
            before = last[source, kind == "pronoun"]
            distance_T[tokens] = np.arange(tokens.start, tokens.stop) - before
        if step.form is not None:
            last[step.name, True] = tokens.stop - 1
            if kind != "pronoun":
                last[step.name, False] = tokens.stop - 1
    return distance_T
