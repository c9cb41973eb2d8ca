"""scripts.eval --pairs: which of two texts a model prefers, compared with scores one by one."""

from __future__ import annotations

import itertools
import math
import random
from os.path import commonprefix
from types import SimpleNamespace

import pytest
import torch

from data.stories import story as stories
from sample import load_run
from scripts.eval import __main__ as script
from scripts.eval import pairs
from tests.helpers.stories import nats_of
from utils.errors import UserError

KINDS = ["name", "pronoun", "thing", "place", "promise"]


def changed(story: str, wrong: str) -> tuple[str, str]:
    """Return what differs between two texts, in whole words."""
    one, two = story.split(" "), wrong.split(" ")
    start = len(commonprefix([one, two]))
    end = min(len(commonprefix([one[::-1], two[::-1]])), min(len(one), len(two)) - start)
    return " ".join(one[start : len(one) - end]), " ".join(two[start : len(two) - end])


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_differs_in_one_agreement(kind):
    rng, pools = random.Random(kind), stories.story_grammar().pools
    names = {entry[""] for entry in pools["name"]}
    seen = set()
    for _ in range(25):
        story, wrong = pairs.make_pair(rng, kind)
        assert stories.parse(story)
        with pytest.raises(stories.NotAStory):
            stories.parse(wrong)
        right, instead = (part.strip(',.!?":') for part in changed(story, wrong))
        seen.add(right)
        if kind == "name":
            assert right in names and instead in names and instead in story  # the other child's
        elif kind == "pronoun":
            assert right.lower() in "she he her him his" and instead.lower() in "she he her him his"
        else:
            assert right in story and instead not in names and len(right.split()) <= 4
        assert story.count(right) >= 1 and right != instead
    assert len(seen) > 3
    assert pairs.make_pair(random.Random(kind), kind) != pairs.make_pair(random.Random(1), kind)


def made(n_pairs: int) -> list[tuple[str, str]]:
    rng = random.Random("minimal pairs")
    return [pairs.make_pair(rng, KINDS[i % 5]) for i in range(n_pairs)]


def test_the_shares_are_those_of_scores_one_by_one(story_run, printed):
    figures, people = printed(script.main, "--run", story_run, "--pairs", "12")
    right = [nats_of(story_run, [one])[0] < nats_of(story_run, [two])[0] for one, two in made(12)]
    found = figures["pairs"]
    assert found["pairs"] == 12 and found["correct"] == pytest.approx(sum(right) / 12)
    assert 0 < sum(right) < 12
    assert [part["pairs"] for part in found["kinds"].values()] == [3, 3, 2, 2, 2]
    for i, (kind, part) in enumerate(found["kinds"].items()):
        share = sum(right[i::5]) / len(right[i::5])
        assert kind == KINDS[i] and part["correct"] == pytest.approx(share)
        assert part["standard_error"] ** 2 * part["pairs"] == pytest.approx(share * (1 - share))
        assert kind in people
    again, _ = printed(script.main, "--run", story_run, "--pairs", "12", "--batch-size", "3")
    assert again["pairs"] == found


def test_ties_and_numbers_that_are_not_finite_count_as_wrong(story_run, monkeypatch):
    run = SimpleNamespace(loaded=load_run(story_run))
    for value, share in ((1.0, 0.0), (float("nan"), 0.0)):

        def equal(_, batches, on_batch, value=value):
            for _, targets_BT in batches:
                on_batch(targets_BT, torch.tensor([[value]]))

        monkeypatch.setattr(pairs, "evaluate_run", equal)
        assert pairs.measure_pairs(run, 5)["correct"] == share


@pytest.mark.parametrize(
    "right, low, high", [(0, 0, 0.1611), (20, 0.8389, 1), (10, 0.2993, 0.7007)]
)
def test_the_interval_is_right_at_0_and_100_per_cent(
    story_run, monkeypatch, capfd, right, low, high
):
    """Exact bounds by bisection of the definition: |share - p| = 1.96 sqrt(p (1 - p) / n)."""
    n_rows = itertools.count()

    def scores(_, batches, on_batch):
        for _, targets_BT in batches:
            row = next(n_rows)  # story, wrong text, next story, ...
            on_batch(targets_BT, torch.tensor([[float((row % 2 == 1) == (row // 2 < right))]]))

    monkeypatch.setattr(pairs, "evaluate_run", scores)
    found = pairs.measure_pairs(SimpleNamespace(loaded=load_run(story_run)), 20)
    assert found["correct"] == right / 20
    assert (found["standard_error"] == 0) == (right in (0, 20))
    for key, edge, expected in (("low", 0, low), ("high", 1, high)):
        assert found[key] == pytest.approx(bound_by_bisection(right / 20, 20, edge), abs=1e-9)
        assert found[key] == pytest.approx(expected, abs=1e-4)
    last = capfd.readouterr().err.splitlines()[-1].split()
    shown = [f"{round(found[key], 4)}" for key in ("low", "high")]
    assert [*last[:2], *last[-2:]] == ["all", "20", *shown]


def bound_by_bisection(share: float, n: int, edge: float) -> float:
    """Return the p between a share and 0 or 1 that is 1.96 of its own standard errors away."""
    inside, outside = share, edge
    for _ in range(100):
        p = (inside + outside) / 2
        near = abs(share - p) <= 1.959963984540054 * math.sqrt(p * (1 - p) / n)
        inside, outside = (p, outside) if near else (inside, p)
    return inside


def test_the_table_has_whole_numbers_of_pairs(story_run, monkeypatch, capfd):
    monkeypatch.setattr(pairs, "make_pair", lambda rng, kind: ("a", "b"))
    monkeypatch.setattr(
        pairs,
        "evaluate_run",
        lambda _, batches, on_batch: [on_batch(y, torch.zeros(1, 1)) for _, y in batches],
    )
    pairs.measure_pairs(SimpleNamespace(loaded=load_run(story_run)), 12_345)
    assert "12,345" in capfd.readouterr().err


def test_fewer_pairs_than_kinds(story_run, printed):
    figures, _ = printed(script.main, "--run", story_run, "--pairs", "2")
    assert list(figures["pairs"]["kinds"]) == ["name", "pronoun"]
    figures, _ = printed(script.main, "--run", story_run, "--pairs", "0")
    assert "pairs" not in figures


def test_bad_numbers_and_short_windows_are_refused(story_run):
    for number in ("-1", "100001", "x"):
        with pytest.raises(UserError, match="--pairs: "):
            script.main(["--run", str(story_run), "--pairs", number])
    loaded = load_run(story_run)
    config = SimpleNamespace(block_size=100)
    short = SimpleNamespace(tokenizer=loaded.tokenizer, model=SimpleNamespace(config=config))
    with pytest.raises(UserError, match=r"--pairs: a story of \d+ tokens is longer than .* 100"):
        pairs.measure_pairs(SimpleNamespace(loaded=short), 2)
