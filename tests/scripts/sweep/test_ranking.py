"""scripts.sweep.ranking: means, paired differences, and confidence intervals."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from scripts.intervals import confidence_half_width, t_quantile
from scripts.sweep.ranking import (
    LOSS,
    Group,
    changes_table,
    describe_change,
    difference,
    group_runs,
    ranking_table,
    summary,
    verdict,
)


def row(name: str, bpb: float | str, status: str = "done", seed: int = 1) -> dict[str, object]:
    figures = {"val_bpb": bpb, "val_loss": 2 if bpb == "" else 2 * float(bpb)}
    return {"point": name, "a.x": name, "seed": seed, "status": status, **figures}


def one(label: str, *bpb: float) -> Group:
    """Return a group with seeds 1, 2, ..., and twice as many nats as bits."""
    values = {str(seed): value for seed, value in enumerate(bpb, 1)}
    return Group(label, {"val_bpb": values, LOSS: {k: 2 * v for k, v in values.items()}})


def test_the_ranking_uses_means_over_finished_seeds():
    rows = [row("p", 1.2), row("p", 1.4, seed=2), row("q", 1.1), row("q", 1.3, seed=2)]
    rows += [row("q", 9, "stopped", 3), row("r", "nan"), row("s", 0.1, "failed"), row("t", "")]
    groups = group_runs(rows, ["a.x"])
    assert [one.label for one in groups] == ["x=q", "x=p", "x=r"]
    assert groups[0].mean() == pytest.approx(1.2) and groups[0].mean(LOSS) == pytest.approx(2.4)
    assert groups[0].spread() == pytest.approx(math.sqrt(0.02))
    table = ranking_table(groups)
    lines = table.splitlines()
    assert "1.2000" in table and "0.1414" in table and lines[-2].split()[0] == "x=r"
    assert lines[0].count("+-") == lines[0].count("+- std dev") == 2
    assert "standard deviation" in lines[-1]


def test_runs_are_grouped_by_change_before_settings():
    rows = [row("p", 1.2) | {"change": "base"}, row("q", 1.4) | {"change": "no pointer"}]
    assert [one.label for one in group_runs(rows, ["a.x"])] == ["base", "no pointer"]


def test_no_winner_within_the_noise():
    assert verdict([one("a", 1.0, 1.1), one("b", 1.05, 1.06)], 4).startswith("no winner")
    best = verdict([one("a", 1.0, 1.1), one("b", 2.0, 2.15)], 4)
    assert best.startswith("best: a; the next, b, is worse by 1.0250 bits/byte, 95% interval +- ")
    assert "one seed each" in verdict([one("a", 1.0), one("b", 2.0)], 2)
    assert verdict([], 0) == verdict([one("a", 1.0)], 1) == ""
    assert verdict([one("a", 1.0, 1.1), one("b", math.nan, 1.0)], 4) == ""


def test_no_winner_before_all_points_are_done():
    groups = [one("a", 1.0, 1.1), one("b", 2.0, 2.15)]
    assert verdict(groups, 8) == "no winner yet: 4 of 8 points are done"


def test_the_winner_beats_every_other_setting_not_only_the_second():
    first, second = one("a", 1.0, 1.1), one("b", 2.0, 2.15)
    assert verdict([first, second, one("c", 1.5, 9.0)], 6).startswith(
        "no winner: a and c differ by"
    )


def test_a_difference_is_paired_by_seed():
    """The groups overlap, but the difference is clear for each seed."""
    base, other = one("base", 1.0, 2.0, 3.0), one("x", 1.10, 2.11, 3.12)
    gap = difference(base, other)
    assert gap is not None and gap.seeds == 3 and gap.mean == pytest.approx(0.11)
    assert gap.noise == pytest.approx(4.3026527 * 0.01 / math.sqrt(3))
    assert gap.describe() == "worse"
    apart = Group("y", {"val_bpb": {"9": 1.0}, LOSS: {"9": 2.0}})
    assert difference(base, apart) is None


def test_the_table_of_changes_marks_those_within_the_noise():
    groups = [one("good", 0.8, 0.91), one("base", 1.0, 1.1), one("same", 1.0, 1.2), one("new", 1.3)]
    lines = changes_table(groups, "base").splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["base", "good", "same", "new"]
    good, same, new = lines[2:5]
    assert good.endswith("better") and good.split()[1:4] == ["1.7100", "-0.3900", "0.1271"]
    assert same.endswith("within the noise") and new.endswith("noise unknown: one seed")
    assert "no finished run" in changes_table([groups[0]], "base")


def test_a_change_with_unfinished_seeds_is_neither_better_nor_worse():
    rows = [
        row(x, bpb, seed=seed) | {"change": x}
        for x, bpb in (("base", 1), ("good", 0.5))
        for seed in (1, 2)
    ]
    rows += [row("good", "", "stopped", 3) | {"change": "good"}]
    groups = group_runs(rows, [])
    assert [one.unfinished for one in groups] == [1, 0]
    table = changes_table(groups, "base").splitlines()
    assert (
        table[2].endswith("1 unfinished") and table[0].count("+-") == table[0].count("+- 95%") == 2
    )


def test_a_change_with_a_failed_seed_is_neither_better_nor_worse():
    """Nor is a setting of a grid the winner; and a loss that is not finite is no result."""
    rows = [row(x, bpb, seed=seed) for x, bpb in (("p", 1), ("q", 0.5)) for seed in (1, 2, 3)]
    rows[-2] |= {"status": "failed"}
    groups = group_runs(rows, ["a.x"])
    assert [(one.label, one.failed, one.unfinished) for one in groups] == [
        ("x=q", ("2",), 0),
        ("x=p", (), 0),
    ]
    assert verdict(groups, 6) == "no winner yet: 5 of 6 points are done; x=q: seed 2 failed"
    assert describe_change(groups[1], groups[0]) == "seed 2 failed"
    assert describe_change(groups[0], groups[1]) == "base: seed 2 failed"
    assert changes_table(groups, "x=p").splitlines()[2].endswith("seed 2 failed")
    assert changes_table(groups, "x=q").splitlines()[1].endswith("seed 2 failed")
    infinite = one("y", 1.0, math.inf)
    assert describe_change(one("base", 1.0, 1.1), infinite) == "seed 2 is not finite"


def test_times_are_compared_with_those_of_the_base():
    rows = [
        row(x, bpb, seed=seed) | {"elapsed_s": f"{seconds + seed}"}
        for x, bpb, seconds in (("p", 1, 8.5), ("q", 0.5, 18.5))
        for seed in (1, 2)
    ]
    groups = group_runs(rows, ["a.x"])
    found = {one["label"]: one for one in summary(groups, "x=p", None, 9)}
    assert found["x=q"]["elapsed_s"] == 20 and found["x=q"]["elapsed_ratio"] == 2
    assert found["x=p"]["elapsed_s"] == 10 and found["x=p"]["elapsed_ratio"] == 1
    lines = changes_table(groups, "x=p").splitlines()
    assert "seconds  times base" in lines[0] and lines[2].split()[-4:-1] == ["20.00", "2.00", "2"]
    assert ranking_table(groups).splitlines()[2].split()[-3:] == ["10.00", "0.50", "2"]
    times = [row("p", 1, seed=seed) | {"elapsed_s": f"{100 * seed}"} for seed in (1, 2, 3)]
    times.append(row("q", 1, seed=1) | {"elapsed_s": "100"})  # its other seeds have not run yet
    partly = {one["label"]: one for one in summary(group_runs(times, ["a.x"]), "x=p", None, 9)}
    assert partly["x=q"]["elapsed_ratio"] == 1
    (unknown,) = summary([one("a", 1.0)], None, None, 9)
    assert math.isnan(unknown["elapsed_s"]) and math.isnan(unknown["elapsed_ratio"])


def test_groups_of_other_validation_texts_have_no_difference():
    base, same = (Group(x, one(x, 1.0, 1.1).figures, texts={"1": "t"}) for x in "ab")
    other = Group("c", one("c", 0.1, 0.2).figures, texts={"1": "t", "2": "u"})
    assert difference(base, same) and difference(base, other)  # the text of base, 2 is not known
    base = Group("a", base.figures, texts={"1": "t", "2": "t"})
    assert difference(base, other) is difference(other, base) is None
    assert describe_change(base, other) == "other validation text"
    assert "other validation text" in changes_table([other, base], "a")
    assert verdict([other, base], 4) == "no winner: c and a share no seed or no validation text"


def test_t_quantiles_and_coverage_of_the_interval():
    """Published quantiles; and 5% of 2,000 means of three lie outside their 95% interval."""
    known = {1: 12.7062, 2: 4.3027, 3: 3.1824, 5: 2.5706, 30: 2.0423, 1000: 1.9623}
    assert {n: round(t_quantile(n), 4) for n in known} == known
    assert t_quantile(2, 0.99) == pytest.approx(9.9248, abs=1e-4)
    assert math.isnan(confidence_half_width([1.0]))
    rng = random.Random(1)
    outside = 0
    for _ in range(2000):
        values = [rng.gauss(0.0, 1.0) for _ in range(3)]
        outside += abs(statistics.fmean(values)) > confidence_half_width(values)
    assert 70 <= outside <= 130
