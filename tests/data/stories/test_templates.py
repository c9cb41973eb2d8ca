"""The template language: small grammars whose texts can be counted by hand."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from data.stories.template_grammar import Grammar, NotAStory
from tests.helpers.stories import POOLS, RULES, VARIABLES, all_texts


def test_probabilities_of_all_texts_sum_to_one_and_each_is_parsed():
    grammar = Grammar(RULES, POOLS, VARIABLES, "story")
    texts = all_texts(grammar)
    # Two frames: 3 * 2 names * 3 endings of the sentence * 4 endings; 2 names * 2 * 4 endings.
    assert len(texts) == 3 * 2 * 3 * 4 + 2 * 2 * 4
    assert math.fsum(texts.values()) == pytest.approx(1, abs=1e-12)
    for text, probability in texts.items():
        (derivation,) = grammar.read(text)
        assert math.prod(1 / count for _, _, count in derivation) == probability


def test_only_these_texts_are_parsed():
    grammar = Grammar(RULES, POOLS, VARIABLES, "story")
    texts = set(all_texts(grammar))
    for hero, friend in itertools.product(["Ann", "Eve", "Bob"], repeat=2):
        for pronoun in ("she", "he"):
            text = f"{hero} and {friend} ran. Then {pronoun} went home."
            right = hero != friend and pronoun == ("he" if hero == "Bob" else "she")
            assert (text in texts) == right
            if not right:
                with pytest.raises(NotAStory):
                    grammar.read(text)


def test_the_entropy_of_a_small_grammar_is_its_mean_of_minus_log_p():
    grammar = Grammar(RULES, POOLS, VARIABLES, "story")
    exact = math.fsum(-p * math.log(p) for p in all_texts(grammar).values())
    rng, nats = random.Random(1), []
    for _ in range(20_000):
        derivation = []
        grammar.write(rng.random, derivation)
        nats.append(sum(math.log(count) for _, _, count in derivation))
    # By hand: half of ln 2*3*2*3 and ln 2*2*2, and the ending: ln 2, and half of ln 2 + half ln 2.
    by_hand = (math.log(36) + math.log(8)) / 2 + math.log(2) + (math.log(2) + math.log(2) / 2) / 2
    assert exact == pytest.approx(by_hand, abs=1e-12)
    assert sum(nats) / len(nats) == pytest.approx(exact, abs=0.02)


def test_parsing_an_ambiguous_text_returns_both_derivations():
    grammar = Grammar({"s": ["[a|ab][c|bc]"]}, {}, {}, "s")
    assert sorted(grammar.read("abc")) == [
        [("s.1", 0, 2), ("s.2", 1, 2)],
        [("s.1", 1, 2), ("s.2", 0, 2)],
    ]


def test_the_error_holds_the_position_at_which_parsing_failed():
    grammar = Grammar({"s": ["The [cat|dog] sat down."]}, {}, {}, "s")
    for text, position in (
        ("A cat", 0),
        ("The cow", 5),  # "The c" may become "The cat"
        ("The cat ran", 8),
        ("The cat sat down.!", 17),
    ):
        with pytest.raises(NotAStory) as error:
            grammar.read(text)
        assert error.value.position == position


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("[a|b", "open"),
        ("a]", "out of place"),
        ("a|b", "out of place"),
        ("{hero", "open"),
        ("<nowhere>", "no rule <nowhere>"),
        ("<where:hero>", "has no rules or no variable"),
        ("<goes:nobody>", "has no rules or no variable"),
        ("{hero.they}", "no form 'they'"),
        ("{hero=cats}", "no pool 'cats'"),
    ],
)
def test_a_malformed_template_is_an_error(template, message):
    with pytest.raises(ValueError, match=message):
        Grammar({**RULES, "story": [template]}, POOLS, VARIABLES, "story")
