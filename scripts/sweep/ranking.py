"""Ranking of settings: means and standard deviations over runs, and tests against noise."""

import itertools
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts import intervals
from scripts.finished import FinishedRun
from scripts.intervals import confidence_half_width, sample_std
from scripts.report import table
from utils.errors import plural
from utils.suggest import leaf_of

STD, INTERVAL = "+- std dev", "+- 95% interval"  # column heads: never a bare "+-"

LOSS, BITS = "val_loss", "val_bpb"  # nats per token, bits per byte


@dataclass(frozen=True)
class Group:
    """The runs of one combination of settings, or of one change, over the seeds."""

    label: str
    figures: dict[str, dict[str, float]]  # val_loss or val_bpb -> seed -> best value of the run
    unfinished: int = 0  # number of seeds without a finished run

    def mean(self, figure: str = BITS) -> float:
        """Return the mean over the seeds."""
        return statistics.fmean(self.figures[figure].values())

    def spread(self, figure: str = BITS) -> float:
        """Return the standard deviation over the seeds; NaN with one seed."""
        return sample_std(list(self.figures[figure].values()))

    def describe(self) -> str:
        """Return label, mean bits per byte, and standard deviation and number of seeds, if several.

        >>> Group("lr=1", {"val_bpb": {"1": 1.0, "2": 2.0}}).describe()
        'lr=1: 1.5000 +- 0.7071 (2 seeds)'
        """
        seeds, spread = len(self.figures[BITS]), self.spread()
        text = f"{self.label}: {self.mean():.4f}"
        return text if math.isnan(spread) else f"{text} +- {spread:.4f} ({seeds} seeds)"


@dataclass(frozen=True)
class Difference:
    """The difference of a figure between two groups, over the seeds that both have."""

    mean: float
    noise: float  # half-width of the 95% confidence interval; NaN with one seed
    seeds: int

    def size(self) -> str:
        """Return the difference in bits per byte, and its interval, as text."""
        return f"{self.mean:.4f} bits/byte, 95% interval +- {self.noise:.4f}"

    def describe(self) -> str:
        """Return the meaning of the difference for a loss, in words.

        >>> [Difference(d, 0.1, 3).describe() for d in (-0.2, 0.05, 0.2)]
        ['better', 'within the noise', 'worse']
        """
        if math.isnan(self.noise):
            return "noise unknown: one seed" if self.seeds == 1 else "not finite"
        if abs(self.mean) <= self.noise:
            return "within the noise"
        return "better" if self.mean < 0 else "worse"


def group_runs(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> list[Group]:
    """Return the finished runs grouped by change or by settings, best mean first.

    The groups are ranked by bits per byte, which compares across tokenizers; the loss per token
    does not. A combination without a finished run is left out.

    >>> rows = [{"x": "1", "seed": 1, "val_bpb": "2", "val_loss": "3", "status": "done"}]
    >>> group_runs([*rows, {**rows[0], "x": "2", "val_bpb": "1"}], ["x"])[0]
    Group(label='x=2', figures={'val_loss': {'1': 3.0}, 'val_bpb': {'1': 1.0}}, unfinished=0)
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    planned = Counter(label_of(row, settings) for row in rows)
    for row in rows:
        if row["status"] == "done" and row.get(BITS):
            figures = found.setdefault(label_of(row, settings), {LOSS: {}, BITS: {}})
            for name, values in figures.items():
                values[str(row["seed"])] = float(row[name])
    groups = [
        Group(label, figures, planned[label] - len(figures[BITS]))
        for label, figures in found.items()
    ]
    return sorted(groups, key=lambda one: (math.isnan(one.mean()), one.mean()))


def label_of(row: Mapping[str, Any], settings: Sequence[str]) -> str:
    """Return the name of a row's change, or its settings without the seed, as text."""
    words = [f"{label}={row[name]}" for name, label in label_names(settings).items()]
    return row.get("change") or ", ".join(words) or "base"


def label_names(settings: Sequence[str]) -> dict[str, str]:
    """Return setting -> its name in tables and plots: the last part, if no other has the same.

    >>> label_names(["optim.lr", "a.x", "b.x"])
    {'optim.lr': 'lr', 'a.x': 'a.x', 'b.x': 'b.x'}
    """
    leaves = [leaf_of(name) for name in settings]
    return {
        name: leaf if leaves.count(leaf) == 1 else name
        for name, leaf in zip(settings, leaves, strict=True)
    }


def describe_sweep(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> str:
    """Return the number of variants, seeds and finished points, for a title.

    A variant is a combination of settings, or a change.

    >>> describe_sweep([{"lr": "1", "seed": n, "status": "done"} for n in (1, 2)], ["lr"])
    '1 variant, 2 seeds each, 2 of 2 points done'
    """
    seeds: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        seeds[label_of(row, settings)].add(str(row.get("seed")))
    most = max(map(len, seeds.values()), default=0)
    done = sum(row["status"] == "done" for row in rows)
    words = f"{plural(len(seeds), 'variant')}, {plural(most, 'seed')}{' each' * (most > 1)}"
    return f"{words}, {done} of {len(rows)} points done"


def loss_of(row: Mapping[str, Any]) -> float:
    """Return the best bits per byte of a run, or NaN if there are none."""
    return float(row.get(BITS) or "nan")


def comparable_means(
    rows: Sequence[Mapping[str, Any]], name: str, settings: Sequence[str]
) -> tuple[dict[str, float], int]:
    """Return the mean loss of each value of a setting, and the number of runs in each mean.

    The means are over those other settings and seeds that all values have, so that the means differ
    only by the value. Without such settings there are no means, as in a random search, where the
    points differ in all settings.

    >>> rows = [{"x": x, "y": y, "val_bpb": x} for x, y in (("1", "1"), ("2", "1"), ("2", "3"))]
    >>> comparable_means(rows, "x", ["x", "y"])
    ({'1': 1.0, '2': 2.0}, 1)
    """
    found: dict[str, dict[tuple[Any, ...], float]] = {}
    for row in rows:
        rest = (*(row[other] for other in settings if other != name), row.get("seed"))
        found.setdefault(row[name], {})[rest] = loss_of(row)
    common = set.intersection(*map(set, found.values()))
    if not common:
        return {}, 0
    means = {
        text: statistics.fmean(losses[rest] for rest in common) for text, losses in found.items()
    }
    return means, len(common)


def difference(base: Group, other: Group, figure: str = BITS) -> Difference | None:
    """Return the difference `other` - `base` of a figure, or None if the groups share no seed.

    The difference is paired by seed, so that the effect of a seed on both groups cancels.

    >>> base = Group("a", {"val_bpb": {"1": 1.0, "2": 3.0}})
    >>> difference(base, Group("b", {"val_bpb": {"1": 1.5, "2": 3.5, "3": 9.0}}))
    Difference(mean=0.5, noise=0.0, seeds=2)
    """
    mine, theirs = base.figures[figure], other.figures[figure]
    both = [theirs[seed] - mine[seed] for seed in mine if seed in theirs]
    if not both:
        return None
    return Difference(statistics.fmean(both), confidence_half_width(both), len(both))


def ladder_losses(ladder: Sequence[FinishedRun]) -> dict[int, dict[str, float]]:
    """Return number of steps -> seed -> bits per byte."""
    found: dict[int, dict[str, float]] = defaultdict(dict)
    for run in ladder:
        found[run.config.train.max_steps][str(run.config.train.seed)] = run.figures[BITS]
    return found


def describe_power(
    groups: Sequence[Group], ladder: Sequence[FinishedRun], wanted: float | None
) -> str:
    """Return a line about the number of seeds that a difference needs.

    The spread is that of the difference between two runs of one seed: the root mean square of its
    standard deviations over the pairs of groups, or of the ladder's rungs, with two seeds or more.

    Args:
        wanted: the difference in bits per byte; None: 1% of the mean loss.
    """
    known: list[dict[str, float]] = []
    for one in (*(group.figures[BITS] for group in groups), *ladder_losses(ladder).values()):
        if not any(one.items() <= other.items() for other in known):  # the base is a rung, too
            known = [other for other in known if not other.items() <= one.items()] + [one]
    pairs = itertools.combinations(known, 2)
    spreads = [sample_std([a[seed] - b[seed] for seed in a if seed in b]) for a, b in pairs]
    squares = [spread**2 for spread in spreads if spread > 0]
    if not squares:
        return "seeds needed: not known before two settings have two seeds each, or with --ladder"
    spread = math.sqrt(statistics.fmean(squares))
    losses = [loss for one in known for loss in one.values() if math.isfinite(loss)]
    wanted = wanted or 0.01 * statistics.fmean(losses)
    n = intervals.seeds_needed(wanted, spread)
    more = "+" * (n == intervals.MAX_SEEDS)
    found = f"seeds needed: about {n}{more} to find {wanted:.4f} bits/byte in 4 of 5 sweeps"
    found += f"; the difference of two runs of one seed has a std dev of {spread:.4f}"
    n_seeds = len({seed for one in known for seed in one})
    freedom = max(1, len(losses) - len(known) - n_seeds + 1)  # of settings and seeds without noise
    degrees = plural(freedom, "degree")
    return f"{found}, estimated from {plural(len(losses), 'run')}, {degrees} of freedom"


def summary(
    groups: Sequence[Group], base_label: str, ladder: Sequence[FinishedRun], steps: int
) -> list[dict[str, Any]]:
    """Return the results of each group for programs: means, difference to the base, worth.

    Args:
        steps: of the base, from which the extra steps of `worth` are counted.
    """
    base, rungs = next((x for x in groups if x.label == base_label), None), ladder_losses(ladder)
    found = []
    for one in groups:
        record = {"label": one.label, "seeds": len(one.figures[BITS]), "unfinished": one.unfinished}
        record |= {name: one.mean(name) for name in (BITS, LOSS)}
        if base and one is not base and (gap := difference(base, one)):
            record |= {"difference": gap.mean, "interval": gap.noise}
            record |= {"verdict": describe_change(base, one, gap)}
        record["worth"] = worth = intervals.worth(rungs, one.figures[BITS], steps)
        far = {name: "above" if x > 0 else "below" for name, x in worth.items() if math.isinf(x)}
        record["beyond_ladder"] = far
        found.append(record)
    return found


def worth_table(results: Sequence[Mapping[str, Any]], steps: int) -> str:
    """Return the worths of a `summary` as a text table."""
    rows = []
    for label, worth in ((one["label"], one["worth"]) for one in results if one["worth"]):
        cells = [cell(worth[name], "+.0f") for name in ("steps", "low", "high")]
        rows.append([label, *cells, str(worth["seeds"])])
    text = table(["", "worth in steps", "95% from", "to", "seeds"], rows)
    note = f"with that many steps more than {steps}, the base has the same loss"
    return f"{text}\n{note} (inf: beyond the ladder; no row: its data or seeds are not those of it)"


def seeds_left_out(groups: Sequence[Group], ladder: Sequence[FinishedRun]) -> str:
    """Return a line about the seeds that no worth uses because the ladder lacks them, or ""."""
    rungs, words = ladder_losses(ladder), []
    for seed in sorted({seed for one in groups for seed in one.figures[BITS]}, key=int):
        if missing := [str(steps) for steps in sorted(rungs) if seed not in rungs[steps]]:
            words.append(f"{seed} (the ladder has no finished run of it with {', '.join(missing)}")
    return f"seeds left out of the worth: {' steps), '.join(words)} steps)" if words else ""


def verdict(groups: Sequence[Group], n_points: int) -> str:
    """Return a sentence on whether the first group beats every other one by more than the noise.

    It is empty if all points are done but there is nothing to compare.

    Args:
        n_points: of the sweep. No winner is named before all of them are done.

    >>> one = Group("a", {"val_bpb": {"1": 1.0, "2": 1.1}})
    >>> verdict([one, Group("b", {"val_bpb": {"1": 1.1, "2": 1.1}})], 4)
    'no winner: a and b differ by 0.0500 bits/byte, 95% interval +- 0.6353'
    >>> verdict([one], 4)
    'no winner yet: 2 of 4 points are done'
    """
    done = sum(len(one.figures[BITS]) for one in groups)
    if done < n_points:
        return f"no winner yet: {done} of {n_points} points are done"
    if len(groups) < 2:
        return ""
    best = groups[0]
    gaps = [(other, difference(best, other)) for other in groups[1:]]
    if any(gap is not None and gap.seeds == 1 for _, gap in gaps):
        return (
            "no winner: with one seed each, a difference may be noise; use several seeds, "
            "`seeds: [1, 2, 3]` or --seeds 1,2,3"
        )
    # A group whose loss is not finite is left out: it can't win, and its difference is unknown.
    finite = [(other, gap) for other, gap in gaps if gap is not None and math.isfinite(gap.mean)]
    if not finite:
        return ""
    for other, gap in finite:
        if gap.mean <= gap.noise:
            return f"no winner: {best.label} and {other.label} differ by {gap.size()}"
    return f"best: {best.label}; the next, {finite[0][0].label}, is worse by {finite[0][1].size()}"


def ranking_table(groups: Sequence[Group]) -> str:
    """Return the ranking as a text table: mean and standard deviation over seeds."""
    rows = []
    for one in groups:
        pairs = [(cell(one.mean(name)), cell(one.spread(name))) for name in (BITS, LOSS)]
        rows.append([one.label, *pairs[0], *pairs[1], str(len(one.figures[LOSS]))])
    header = ["settings", "val bits/byte", STD, "val nats/token", STD, "seeds"]
    return f"{table(header, rows)}\nmean over the seeds, {STD} the standard deviation of one run"


def changes_table(groups: Sequence[Group], base_label: str) -> str:
    """Return the changes as a text table: each one's difference to the base, and 95% interval."""
    base = next((one for one in groups if one.label == base_label), None)
    if base is None:
        return "nothing to compare with: the base has no finished run"
    n_seeds = str(len(base.figures[LOSS]))
    rows = [[base_label, cell(base.mean(LOSS)), "", "", "", "", n_seeds, ""]]
    for other in groups:
        loss, bits = difference(base, other, LOSS), difference(base, other, BITS)
        if other is base or loss is None or bits is None:
            continue
        cells = [text for x in (loss, bits) for text in (cell(x.mean, "+.4f"), cell(x.noise))]
        cells += [str(loss.seeds), describe_change(base, other, bits)]
        rows.append([other.label, cell(other.mean(LOSS)), *cells])
    header = ["change", "val nats/token", "adds nats/token", INTERVAL, "adds bits/byte", INTERVAL]
    note = f"{INTERVAL}: of the mean difference to the base; runs are compared seed by seed"
    return f"{table([*header, 'seeds', 'verdict'], rows)}\n{note}"


def describe_change(base: Group, other: Group, gap: Difference) -> str:
    """Return the meaning of a difference in words: none before all seeds are finished."""
    missing = max(base.unfinished, other.unfinished)
    return f"{missing} unfinished" if missing else gap.describe()


def cell(value: float, style: str = ".4f") -> str:
    """Return a figure for a table, or a dash for NaN.

    >>> cell(0.25), cell(math.nan)
    ('0.2500', '-')
    """
    return "-" if math.isnan(value) else format(value, style)
