"""Proofs about the story grammar, by an exhaustive walk instead of sampling."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import cache

import pytest

from data.stories import plots as grammar
from data.stories import words
from data.stories.story import story_grammar
from data.stories.template_grammar import ByClass, Grammar, Variable, VariableRef

End = None


class Walk:
    """The states of a grammar: numbered lists of the parts still to come, without the variables.

    Without them every mention can take any entry, so the walk covers more texts than the grammar
    generates. If it finds no ambiguity, the grammar has none.
    """

    def __init__(self, made: Grammar) -> None:
        self.parts: dict[int, object] = {}
        self.rests: list[tuple[object, int] | None] = [End]
        self.numbers: dict[tuple[int, int], int] = {}
        self.known: dict[int, list[list[tuple[str, int]]]] = {}
        self.start = self.push(made.start, 0)

    def push(self, sequence: str | tuple, rest: int) -> int:
        """Return the number of the state in which `sequence` comes before `rest`."""
        for part in reversed((sequence,) if isinstance(sequence, str) else sequence):
            key = (id(part), rest)
            if key not in self.numbers:
                self.numbers[key] = len(self.rests)
                self.rests.append((part, rest))
            rest = self.numbers[key]
        return rest

    def choices(self, state: int) -> list[list[tuple[str, int]]]:
        """Return the texts that may come next with the states after them: one list for each
        possible class of the variables, which the walk does not know."""
        if state not in self.known:
            part, rest = self.rests[state]
            if isinstance(part, str):
                self.known[state] = [[(part, rest)]]
            elif isinstance(part, VariableRef):
                self.known[state] = [sorted({(entry[part.form], rest) for entry in part.pool})]
            else:
                choices = part.choices.values() if isinstance(part, ByClass) else [part]
                self.known[state] = [
                    [("", self.push(a, rest)) for a in choice.alternatives] for choice in choices
                ]
        return self.known[state]

    def steps(self, state: int) -> list[tuple[str, int]]:
        """Return all texts that may come next, with the states after them."""
        return [step for choice in self.choices(state) for step in choice]

    def forks(self) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
        """Yield all pairs of alternative steps, over all states, unless their texts already differ:
        in sorted order, the texts that begin with a text follow it directly."""
        seen, todo = {self.start}, [self.start]
        while todo:
            state = todo.pop()
            if self.rests[state] is End:
                continue
            for choice in self.choices(state):
                for number, one in enumerate(choice):
                    for two in itertools.islice(choice, number + 1, None):
                        if not two[0].startswith(one[0]):
                            break
                        yield one, two
            new = {after for _, after in self.steps(state)} - seen
            seen |= new
            todo += new


def meet(walk: Walk, one: tuple[str, int], two: tuple[str, int], seen: set) -> bool:
    """Return True if two different steps can lead to the same text."""
    todo = [(one, two)]
    while todo:
        (text1, state1), (text2, state2) = todo.pop()
        same = min(len(text1), len(text2))
        if text1[:same] != text2[:same]:
            continue
        text1, text2 = text1[same:], text2[same:]
        if state1 == state2 and text1 == text2:
            return True
        key = (text1, state1, text2, state2)
        if key in seen:
            continue
        seen.add(key)
        # Advance the one with the shorter text; if it is at its end, the texts differ.
        if text2 == "" and walk.rests[state2] is not End:
            todo += [((text1, state1), (text, after)) for text, after in walk.steps(state2)]
        elif text1 == "" and walk.rests[state1] is not End:
            todo += [((text, after), (text2, state2)) for text, after in walk.steps(state1)]
    return False


@cache
def story_walk() -> Walk:
    return Walk(story_grammar())


def is_ambiguous(walk: Walk) -> bool:
    """Return True if two derivations may have the same text; False is a proof that none do."""
    seen: set = set()
    return any(meet(walk, one, two, seen) for one, two in walk.forks())


def tiny(*templates: str, **rules: list[str]) -> Grammar:
    pets = ({"": "cat", "class": ""}, {"": "cattle", "class": ""})
    return Grammar({"start": templates, **rules}, {"pet": pets}, {"pet": Variable("pet")}, "start")


def test_no_text_of_the_grammar_has_two_derivations():
    assert not is_ambiguous(story_walk())


@pytest.mark.parametrize(
    "templates",
    [("a[b|]c", "ac"), ("[a|ab][c|bc]",), ("{pet}", "cat"), ("a<x>", "[a|b]<x>"), ("[x|x]",)],
)
def test_the_proof_detects_ambiguity(templates):
    assert is_ambiguous(Walk(tiny(*templates, x=["y", "z"])))


@pytest.mark.parametrize(
    "templates", [("a[b|]c", "ad"), ("[a|ab][c|d]",), ("{pet}.", "cats"), ("a[b|]b[c|]",)]
)
def test_the_proof_accepts_unambiguous_grammars(templates):
    assert not is_ambiguous(Walk(tiny(*templates)))


Extent = tuple[int, int, int]  # choices, shortest and longest text


def extents(made: Grammar) -> dict[frozenset[int], Extent]:
    """Return, for each set of variables that a story may have used at its end, the minimum number
    of choices and the minimum and maximum number of characters."""

    @cache
    def after(number: int, used: frozenset[int]) -> dict[frozenset[int], Extent]:
        part = by_number[number]
        if isinstance(part, str):
            return {used: (0, len(part), len(part))}
        if isinstance(part, VariableRef):
            sizes = [len(entry[part.form]) for entry in part.pool]
            chosen = int(part.slot not in used and len(part.pool) > 1)
            return {used | {part.slot}: (chosen, min(sizes), max(sizes))}
        choices = part.choices.values() if isinstance(part, ByClass) else [part]
        merged: dict[frozenset[int], Extent] = {}
        for choice in choices:
            for alternative in choice.alternatives:
                add(merged, row(alternative, used), int(choice.count > 1))
        return merged

    def row(sequence, used):
        now = {used: (0, 0, 0)}
        for part in (sequence,) if isinstance(sequence, str) else sequence:
            by_number[id(part)] = part
            then: dict[frozenset[int], Extent] = {}
            for before, extent in now.items():
                add(then, after(id(part), before), *extent)
            now = then
        return now

    by_number: dict[int, object] = {}
    return row(made.start, frozenset())


def add(merged, found, choices, shortest=0, longest=0):
    """Update the extremes `merged` with those of `found`, after some choices and characters."""
    for used, (more, low, high) in found.items():
        new = (choices + more, shortest + low, longest + high)
        old = merged.get(used, new)
        merged[used] = (min(old[0], new[0]), min(old[1], new[1]), max(old[2], new[2]))


def test_extents_of_a_tiny_grammar():
    found = extents(tiny("[a|bb][c|]{pet} {pet}", "d[e|{pet}]"))
    assert found == {frozenset(): (2, 2, 2), frozenset([0]): (3, 4, 16)}


def test_every_story_makes_at_least_forty_choices():
    assert min(choices for choices, _, _ in extents(story_grammar()).values()) >= 40


def test_every_story_has_400_to_900_characters():
    found = extents(story_grammar()).values()
    assert min(shortest for _, shortest, _ in found) >= 400
    assert max(longest for _, _, longest in found) <= 900


def fewest_mentions(made: Grammar, name: str) -> int:
    """Return how often a story mentions a variable at least."""

    @cache
    def of(number: int) -> int:
        part = by_number[number]
        if isinstance(part, (str, VariableRef)):
            return int(isinstance(part, VariableRef) and part.name == name)
        choices = part.choices.values() if isinstance(part, ByClass) else [part]
        return min(row(a) for choice in choices for a in choice.alternatives)

    def row(sequence) -> int:
        parts = (sequence,) if isinstance(sequence, str) else sequence
        by_number.update({id(part): part for part in parts})
        return sum(of(id(part)) for part in parts)

    by_number: dict[int, object] = {}
    return row(made.start)


@pytest.mark.parametrize(
    ("name", "fewest"),
    [("hero", 3), ("friend", 2), ("thing", 2), ("kind", 1), ("place", 2), ("promise", 2)],
)
def test_every_story_mentions_its_variables_again(name, fewest):
    assert fewest_mentions(story_grammar(), name) >= fewest


def test_counts_of_frames_names_things_and_places():
    pools = words.pools()
    frames = [frame for templates in grammar.sentence_frames().values() for frame in templates]
    assert len(set(frames)) == len(frames) >= 150
    assert len(pools["girl"]) >= 40 and len(pools["boy"]) >= 40
    assert len(pools["thing"]) + len(pools["place"]) >= 120
    for pool in pools.values():
        assert len({entry[""] for entry in pool}) == len(pool)


def test_names_things_and_places_are_plain_words_that_occur_nowhere_else():
    pools = words.pools()
    own = [e[""] for name in ("name", "thing", "place") for e in pools[name]]
    assert len(set(own)) == len(own) and all(re.fullmatch("[A-Z]?[a-z]+", word) for word in own)
    names = [entry[""] for entry in pools["name"]]
    assert not [(a, b) for a in names for b in names if a != b and b.startswith(a)]
    made = {**grammar.rules(), **words.rules()}
    templates = [re.sub(r"\{[^}]*\}|<[^>]*>", " ", t) for rule in made.values() for t in rule]
    others = [e for name, pool in pools.items() for e in pool if name not in ("name", "place")]
    forms = [text for e in others for form, text in e.items() if form not in ("class", "")]
    forms += [e[""] for name, pool in pools.items() for e in pool if name not in PROPER]
    elsewhere = set(re.findall("[a-z]+", " ".join(templates + forms).lower()))
    assert not elsewhere & {word.lower() for word in own}


PROPER = ("name", "girl", "boy", "thing", "place")


def test_articles_fit():
    """Each word after "a" begins with a consonant, each word after "an" with a vowel."""
    walk = story_walk()
    seen, todo = set(), [(walk.start, "")]
    while todo:
        state, tail = todo.pop()
        if (state, tail) in seen or walk.rests[state] is End:
            continue
        seen.add((state, tail))
        for text, after in walk.steps(state):
            whole = tail + text
            for article, word in re.findall(r'[ "]([Aa]n?) ([a-z]+)', whole):
                vowel = word[0] in "aeiou" or word == "hour"
                assert vowel == (len(article) == 2), whole
            todo.append((after, whole[-4:]))
