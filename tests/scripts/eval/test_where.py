"""scripts.eval --where: the excess by kind of choice and by distance, against known answers."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import shutil
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

import train
from data.stories import plots
from data.stories import story as stories
from data.stories.template_grammar import Grammar, NotAStory, Variable, history
from scripts.eval import __main__ as script
from scripts.eval import where
from scripts.eval.choices import KINDS, decide, kind_of, tokens_of
from tests.helpers.runs import flags, make_corpus
from tests.helpers.stories import POOLS as NAMES
from tests.helpers.stories import RULES, VARIABLES, all_texts
from utils.errors import UserError

POOLS = {
    "name": tuple(
        {"": name, "she": she, "class": gender}
        for name, she, gender in (("Ann", "she", "girl"), ("Bob", "he", "boy"), ("Bo", "he", "boy"))
    ),
    "thing": tuple({"": word, "class": ""} for word in ("kite", "drum", "bell", "hat")),
}
TOY = {
    "lost": ["{hero} [lost|saw] a {thing} . Then {she} [missed|found] the {thing} ."],
    "found": ["A child , {hero} [had|sold] a {thing} ."],
    "story": ["<lost>", "<found>"],
}


def toy() -> Grammar:
    """A grammar whose words are tokens: each has a space before it, but the first."""
    return Grammar(TOY, POOLS, {"hero": Variable("name"), "thing": Variable("thing")}, "story")


Encode = Callable[[str], list[str]]


def words_of(text: str) -> list[str]:
    return re.findall(r" ?[^ ]+", text)


def pieces_of(text: str) -> list[str]:
    """Tokens of up to three characters: " kite" has two, " Bo" is one, " Bob" has two."""
    return [part for word in words_of(text) for part in re.findall("..?.?", word) if part]


def brute_force(texts: dict[str, float], text: str, encode: Encode) -> list[float]:
    """Return -ln p of each token of a text and of its end, from the tokens of all texts."""
    encoded = [([*encode(one), None], p) for one, p in texts.items()]
    tokens = [*encode(text), None]
    masses = [
        math.fsum(p for one, p in encoded if one[:n] == tokens[:n]) for n in range(len(tokens) + 1)
    ]
    return [-math.log(after / before) for before, after in itertools.pairwise(masses)]


@pytest.mark.parametrize("encode", [list, words_of, pieces_of])
def test_the_probability_of_each_token_is_that_of_an_enumeration(encode):
    for grammar in (toy(), Grammar(RULES, NAMES, VARIABLES, "story")):
        texts = all_texts(grammar)
        for text in list(texts)[::7]:
            nats_T, _, _ = decide(grammar, encode(text), encode)
            assert nats_T == pytest.approx(brute_force(texts, text, encode), abs=1e-12)


def test_the_branches_of_a_text_share_all_probability():
    grammar = stories.story_grammar()
    for one in stories.sample_stories(3, 5):
        found = list(grammar.branches(one.text))
        assert math.fsum(p for _, _, p, _ in found) == pytest.approx(1, abs=1e-12)
        ((agree, _, p, step),) = [branch for branch in found if branch[0] > len(one.text)]
        assert agree == len(one.text) + 1 and math.log(p) == pytest.approx(one.log_prob)
        mentions = [step for step in history(step) if step.form is not None]
        for step in mentions:
            assert one.text[step.start : step.stop] in {
                entry[step.form] for entry in grammar.pools[grammar.variables[step.name].pool]
            }
        with pytest.raises(NotAStory):
            decide(grammar, words_of(one.text + "."), words_of)


def planted(monkeypatch, uniform: str, n_stories: int = 40) -> tuple[dict, float, float]:
    """Return the breakdown of a model that is exact, but uniform on one kind; what the excess is by
    hand, in nats per byte; and the total."""
    grammar, texts = toy(), all_texts(toy())
    monkeypatch.setattr(where, "story_grammar", lambda: grammar)
    vocabulary = sorted({word for text in texts for word in words_of(text)})
    end, V = len(vocabulary), len(vocabulary) + 1
    ids, nats, expected, n_bytes = [], [], 0.0, 0
    for text in list(texts)[:: max(1, len(texts) // n_stories)]:
        words = words_of(text)
        kinds = kinds_by_hand(words)
        for kind, exact in zip(kinds, brute_force(texts, text, words_of), strict=True):
            nats.append(math.log(V) if kind == uniform else exact)
            expected += math.log(V) - exact if kind == uniform else 0.0
        ids += [*(vocabulary.index(word) for word in words), end]
        n_bytes += len(text)
    scores = SimpleNamespace(ids_N=np.array(ids), nats_N=np.array(nats))
    tokenizer = SimpleNamespace(
        eot_id=end,
        token_bytes=[one.encode() for one in [*vocabulary, "", "?"]],
        encode=lambda text: [
            vocabulary.index(one) if one in vocabulary else end + 1 for one in words_of(text)
        ],
    )
    found = where.breakdown(scores, tokenizer)
    total = (sum(nats) - math.fsum(-math.log(texts[t]) for t in parsed(ids, vocabulary))) / n_bytes
    return found, expected / n_bytes, total


def parsed(ids: list[int], vocabulary: list[str]) -> list[str]:
    text = "".join(vocabulary[i] if i < len(vocabulary) else "\0" for i in ids)
    return text.split("\0")[:-1]


def kinds_by_hand(words: list[str]) -> list[str]:
    """Return the kind of each token of a text of TOY, by its position; the last is the end."""
    if words[0] == "A":
        return "plot fixed fixed name words fixed thing fixed fixed".split()
    # A name at the start rules out more by the choice of the plot ("A", 1/2) than by its own (1/3).
    return "plot words fixed thing fixed fixed pronoun words fixed thing fixed fixed".split()


@pytest.mark.parametrize("uniform", ["thing", "pronoun", "plot", "words", "name", "fixed"])
def test_a_model_that_is_uniform_on_one_kind_has_its_excess_there(monkeypatch, uniform):
    found, expected, total = planted(monkeypatch, uniform)
    assert expected > 0.01
    for kind, part in found["kinds"].items():
        assert part["excess"] == pytest.approx(expected if kind == uniform else 0.0, abs=1e-12)
    assert found["excess"] == pytest.approx(total, abs=1e-12)
    assert found["excess"] == pytest.approx(expected, abs=1e-12)


def test_the_excess_is_split_by_distance(monkeypatch):
    found, expected, _ = planted(monkeypatch, "pronoun")  # the name is 6 words before
    assert found["distances"]["1-7"]["excess"] == pytest.approx(expected, abs=1e-12)
    found, expected, _ = planted(monkeypatch, "thing")  # chosen, and repeated after 6 words
    copies = [found["distances"][name]["excess"] for name in ("none", "1-7")]
    assert min(copies) > 0.01 and sum(copies) == pytest.approx(expected, abs=1e-12)


STORY = """\
There was once a lively girl named Alice who sang while thinking. Tina, her closest friend, was
resting in the barn, and Alice marched there cheerfully. There, beside a sack, they saw a brown
coin that nobody wanted. Tina wanted to carry it, Alice said no, and they shouted until both
were tired. They did not speak for a week, and the coin lay alone beside the sack. "Is one coin
worth a quarrel?" asked her godmother, and Alice turned pale softly. Then Alice skipped to Tina
and said: "I am sorry. I promise to share it and read poems with you before bedtime." Before
bedtime Alice remembered their promise and read poems with Tina without a pause. Alice learned
in the barn that a brown coin is nothing without Tina to enjoy it.""".replace("\n", " ")


def test_the_kinds_of_a_story_are_those_found_by_hand():
    def encode(text: str) -> list[str]:
        return re.findall(r" ?[\w'-]+| ?[^\w\s]+", text)

    tokens = encode(STORY)
    assert "".join(tokens) == STORY
    nats_T, kind_T, distance_T = decide(stories.story_grammar(), tokens, encode)
    assert nats_T.sum() == pytest.approx(-stories.log_prob(STORY))
    found = [
        (token.strip(), KINDS[kind], distance, round(math.exp(nats), 6))
        for token, nats, kind, distance in zip(tokens, nats_T, kind_T, distance_T)
    ]
    for expected in (
        ("There", "plot", 0, 8),  # one of 8 openings
        ("lively", "words", 0, 16),
        ("girl", "pronoun", 0, 2),
        ("Alice", "name", 0, 40),  # one of 40 girls
        ("her", "pronoun", 8, 1),  # Alice is the eighth token before
        ("Alice", "name", 19, 1),
        ("beside", "place", 10, 4),  # two spots of eight, in view of the barn
        ("brown", "thing", 0, 16),
        ("coin", "thing", 0, 65),
        ("coin", "thing", 33, 1),
        ("Then", "plot", 0, 3),  # one of 3 sentences
        ("bedtime", "promise", 3, 1),
        ("it", "fixed", 0, 1),
    ):
        assert expected in found
    assert nats_T[-1] == 0 and KINDS[kind_T[-1]] == "fixed"  # the end is certain


def test_every_choice_of_the_grammar_has_a_kind():
    grammar = stories.story_grammar()
    kinds = {name: kind_of(name) for name in [*grammar.choices, *grammar.variables]}
    assert set(kinds.values()) == {*KINDS} - {"fixed"}
    for name in plots.sentence_frames():
        assert kinds[name] == ("place" if name.startswith("sense.") else "plot")
    assert {name for name, kind in kinds.items() if kind == "pronoun"} == {"hero_named"}
    assert kind_of("friend", "her") == "pronoun" and kind_of("elder", "") == "name"


def test_the_parts_add_up_to_the_excess_of_the_evaluation(story_run, printed, tmp_path):
    copy = shutil.copytree(story_run, tmp_path / "run")
    figures, people = printed(script.main, "--run", copy, "--where")
    found = figures["where"]
    excess = figures["nats_per_byte"] - figures["floor"]
    assert found["excess"] == pytest.approx(excess, abs=1e-9)
    assert found["floor"] == pytest.approx(figures["floor"], abs=1e-12)
    assert found["tokens"] == figures["tokens"]
    for parts in (found["kinds"], found["distances"]):
        assert sum(part["excess"] for part in parts.values()) == pytest.approx(excess, abs=1e-9)
        assert sum(part["floor"] for part in parts.values()) == pytest.approx(found["floor"])
        assert sum(part["tokens"] for part in parts.values()) == figures["tokens"]
        assert all(part["standard_error"] >= 0 for part in parts.values())
    assert (copy / "where.png").read_bytes().startswith(b"\x89PNG")
    assert all(name in people for name in [*found["kinds"], *found["distances"]])
    assert "fixed: the grammar leaves no choice" in people and "none: nothing to agree" in people


def test_the_legend_is_right_about_fixed_and_none():
    """`fixed` is certain, in no mention and without a distance; a repeated mention has one."""
    n_fixed, fixed = 0, KINDS.index("fixed")
    grammar = stories.story_grammar()
    for one in stories.sample_stories(3, 4):
        tokens = words_of(one.text)
        nats_T, kind_T, distance_T = decide(grammar, tokens, words_of)
        [last] = [step for agree, *_, step in grammar.branches(one.text) if agree > len(one.text)]
        stop_T = np.cumsum([*map(len, tokens), 1])
        mentions = [step for step in history(last) if step.form is not None]
        for step in mentions:
            mentioned = tokens_of(step, stop_T)
            assert (kind_T[mentioned] != fixed).all()
            assert not step.is_copy or (distance_T[mentioned] > 0).all()
        assert nats_T[kind_T == fixed] == pytest.approx(0, abs=1e-9)
        assert (distance_T[kind_T == fixed] == 0).all()
        n_fixed += int((kind_T == fixed).sum())
    assert n_fixed > 100


def test_stories_of_a_text_are_broken_down_too(story_run, printed, tmp_path):
    written = list(stories.generate_stories(77, 2500))
    (tmp_path / "some.txt").write_text(stories.join(written), encoding="utf-8")
    argv = ["--run", story_run, "--text", tmp_path / "some.txt", "--where", tmp_path / "bars.svg"]
    figures, _ = printed(script.main, *argv)
    expected = stories.floor(written).nats_per_byte
    assert figures["where"]["floor"] == pytest.approx(expected)
    assert b"<svg" in (tmp_path / "bars.svg").read_bytes()
    assert not (story_run / "where.png").exists()


def test_the_plot_of_a_text_does_not_replace_that_of_the_run(
    story_run, printed, tmp_path, monkeypatch
):
    copy = shutil.copytree(story_run, tmp_path / "run")
    (copy / "where.png").write_bytes(b"its own")
    text = tmp_path / "some.txt"
    text.write_text(stories.join(list(stories.generate_stories(77, 2500))), encoding="utf-8")
    printed(script.main, "--run", copy, "--where", "--text", text)
    assert (copy / "where-some.png").is_file()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    text.rename(tmp_path / "here" / "some.txt")
    monkeypatch.chdir(tmp_path / "here")
    printed(script.main, "--run", copy, "--where", "--text", ".")
    assert (copy / "where-here.png").is_file()
    assert (copy / "where.png").read_bytes() == b"its own"


def test_what_has_no_floor_is_refused(story_run, monkeypatch, tmp_path):
    plain = str(tmp_path / "plain")
    assert train.main(flags(plain, make_corpus(tmp_path) | {"train.max_steps": 1})) == 0
    out = str(tmp_path / "where.png")
    for flag in (["--where", out], ["--pairs", "5"]):
        with pytest.raises(UserError, match=f"^{flag[0]}: no entropy floor is known for the val"):
            script.main(["--run", plain, *flag])
        (tmp_path / "any.txt").write_text("The cat sat.", encoding="utf-8")
        argv = ["--run", str(story_run), "--text", str(tmp_path / "any.txt"), *flag]
        problem = f"^{flag[0]}: no entropy floor is known for {tmp_path}.*any.txt; it needs stories"
        with pytest.raises(UserError, match=problem):
            script.main(argv)
        monkeypatch.setattr(
            "sys.stdin", io.TextIOWrapper(io.BytesIO(b"The cat sat."), encoding="utf-8")
        )
        with pytest.raises(UserError, match="floor is known for standard input; it needs"):
            script.main(["--run", str(story_run), "--text", "-", *flag])
    for path, message in (("a.html", "can't write a .html"), ("missing/a.png", "there is no fold")):
        with pytest.raises(UserError, match=message):
            script.main(["--run", str(story_run), "--where", str(tmp_path / path)])
    assert not (tmp_path / "where.png").exists()


def test_stories_of_another_grammar_are_refused(story_run, monkeypatch, tmp_path):
    monkeypatch.setattr(where, "story_grammar", toy)
    with pytest.raises(UserError, match="^--where: story 0 is not a story .*--text FILE$"):
        script.main(["--run", str(story_run), "--where", str(tmp_path / "where.png")])


def test_a_perfect_model_has_no_shares():
    part = {"tokens": 1, "floor": 1.0, "excess": 0.0, "standard_error": 0.0}
    shown = where.describe(part | {"kinds": {"name": part}, "distances": {"none": part}})
    assert "nan%" in shown and json.dumps(part)
