"""Ranking of settings: means and standard deviations over runs, and tests against noise."""

import itertools
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts import intervals
from scripts.finished import FinishedRun
from scripts.intervals import Worth, confidence_half_width, sample_std, worth_with_note
from scripts.report import cell, table
from utils.errors import plural
from utils.suggest import leaf_of

STD, INTERVAL = "+- std dev", "+- 95% interval"  # column heads: never a bare "+-"
TIMES = ("seconds", "times base")

LOSS, BITS, TIME = "val_loss", "val_bpb", "elapsed_s"  # nats per token, bits per byte, seconds
OTHER_TEXT = "other validation text"

Runs = Sequence[FinishedRun]


@dataclass(frozen=True)
class Group:
    """The runs of one combination of settings, or of one change, over the seeds."""

    label: str
    figures: dict[str, dict[str, float]]  # LOSS, BITS or TIME -> seed -> best loss, time of the run
    unfinished: int = 0  # number of seeds whose run is not finished and has not failed
    failed: tuple[str, ...] = ()  # seeds
    texts: dict[str, str] = field(default_factory=dict)  # seed -> `val_text` of the run, if known

    def mean(self, figure: str = BITS) -> float:
        """Return the mean over the seeds, or NaN if it is not known."""
        values = self.figures.get(figure, {}).values()
        return statistics.fmean(values) if values else math.nan

    def missing(self) -> str:
        """Return which seeds have no result, in words, or ""."""
        words = [f"seed {seed} failed" for seed in self.failed]
        losses = self.figures[BITS].items()
        words += [f"seed {seed} is not finite" for seed, x in losses if not math.isfinite(x)]
        return ", ".join(words + [f"{self.unfinished} unfinished"] * (self.unfinished > 0))

    def same_text(self, other: "Group") -> bool:
        """Return whether the runs of each seed have the same validation text, as far as known."""
        return all(other.texts.get(seed, text) == text for seed, text in self.texts.items())

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
    spread: float  # standard deviation of one seed's difference; NaN with one seed

    def size(self) -> str:
        """Return the difference in bits per byte, and its interval, as text."""
        return f"{self.mean:.4f} bits/byte, 95% interval +- {self.noise:.4f}"

    def describe(self) -> str:
        """Return the meaning of the difference for a loss, in words.

        >>> [Difference(d, 0.1, 3, 0.1).describe() for d in (-0.2, 0.05, 0.2)]
        ['better', 'within the noise', 'worse']
        """
        if math.isnan(self.noise):
            return "noise unknown: one seed"
        if abs(self.mean) <= self.noise:
            return "within the noise"
        return "better" if self.mean < 0 else "worse"


def group_runs(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> list[Group]:
    """Return the finished runs grouped by change or by settings, best mean first.

    The groups are ranked by bits per byte, which compares across tokenizers; the loss per token
    does not. A combination without a finished run is left out.

    >>> rows = [{"x": "1", "seed": 1, "val_bpb": "2", "val_loss": "3", "status": "done"}]
    >>> group_runs([*rows, {**rows[0], "x": "2", "val_bpb": "1"}], ["x"])[0]
    Group(label='x=2', figures={'val_loss': {'1': 3.0}, 'val_bpb': {'1': 1.0}, 'elapsed_s': {'1':\
 nan}}, unfinished=0, failed=(), texts={})
    """
    members: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        members[label_of(row, settings)].append(row)
    groups = []
    for label, own in members.items():
        done = {str(row["seed"]): row for row in own if row["status"] == "done" and row.get(BITS)}
        failed = tuple(str(row["seed"]) for row in own if row["status"] == "failed")
        texts = {seed: row["text"] for seed, row in done.items() if "text" in row}
        figures: dict[str, dict[str, float]] = {LOSS: {}, BITS: {}, TIME: {}}
        for name, values in figures.items():
            values |= {seed: float(row.get(name) or "nan") for seed, row in done.items()}
        if done:
            unfinished = len(own) - len(done) - len(failed)
            groups.append(Group(label, figures, unfinished, failed, texts))
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
    leaves = Counter(map(leaf_of, settings))
    return {name: leaf_of(name) if leaves[leaf_of(name)] == 1 else name for name in settings}


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


def difference(base: Group, other: Group, figure: str = BITS) -> Difference | None:
    """Return the difference `other` - `base` of a figure, or None if they can't be compared.

    The difference is paired by seed, so that the effect of a seed on both groups cancels. It is
    None if the groups share no seed, or if their validation texts differ.

    >>> base = Group("a", {"val_bpb": {"1": 1.0, "2": 3.0}})
    >>> difference(base, Group("b", {"val_bpb": {"1": 1.5, "2": 3.5, "3": 9.0}}))
    Difference(mean=0.5, noise=0.0, seeds=2, spread=0.0)
    """
    mine, theirs = base.figures[figure], other.figures[figure]
    both = [theirs[seed] - mine[seed] for seed in mine if seed in theirs]
    if not both or not base.same_text(other):
        return None
    interval, spread = confidence_half_width(both), sample_std(both)
    return Difference(statistics.fmean(both), interval, len(both), spread)


def rungs_of(ladder: Runs) -> dict[int, Group]:
    """Return number of steps -> its runs."""
    found: dict[int, Group] = {}
    for run in ladder:
        train = run.config.train
        rung = found.setdefault(train.max_steps, Group(f"{train.max_steps} steps", {BITS: {}}))
        rung.figures[BITS][str(train.seed)] = run.figures[BITS]
        rung.texts[str(train.seed)] = run.text
    return found


def describe_power(groups: Sequence[Group], ladder: Runs, wanted: float | None) -> str:
    """Return a line about the number of seeds that a difference needs.

    The spread is that of the difference between two runs of one seed: the root mean square of its
    standard deviations over the pairs of groups, or of the ladder's rungs, with two seeds or more
    and the same validation text.

    Args:
        wanted: the difference in bits per byte; None: 1% of the mean loss.
    """
    known: list[Group] = []
    for one in (*groups, *rungs_of(ladder).values()):
        own, others = one.figures[BITS].items(), [other.figures[BITS].items() for other in known]
        if not any(own <= other for other in others):  # the base is a rung, too
            known = [x for x, other in zip(known, others, strict=True) if not other <= own] + [one]
    gaps = [difference(*pair) for pair in itertools.combinations(known, 2)]
    squares = [gap.spread**2 for gap in gaps if gap and gap.spread > 0]
    if not squares:
        return "seeds needed: not known before two settings have two seeds each, or with --ladder"
    spread = math.sqrt(statistics.fmean(squares))
    losses = [x for one in known for x in one.figures[BITS].values() if math.isfinite(x)]
    wanted = wanted or 0.01 * statistics.fmean(losses)
    n = intervals.seeds_needed(wanted, spread)
    more = "+" * (n == intervals.MAX_SEEDS)
    found = f"seeds needed: about {n}{more} to find {wanted:.4f} bits/byte in 4 of 5 sweeps"
    found += f"; the difference of two runs of one seed has a std dev of {spread:.4f}"
    n_seeds = len({seed for one in known for seed in one.figures[BITS]})
    freedom = max(1, len(losses) - len(known) - n_seeds + 1)  # of settings and seeds without noise
    degrees = plural(freedom, "degree")
    return f"{found}, estimated from {plural(len(losses), 'run')}, {degrees} of freedom"


def summary(
    groups: Sequence[Group], base_label: str | None, ladder: Runs | None, steps: int
) -> list[dict[str, Any]]:
    """Return the results of each group for programs: means, difference to the base, worth.

    Args:
        ladder: None: no worth was asked for.
        steps: of the base, from which the extra steps of `worth` are counted.
    """
    base = find_group(groups, base_label)
    rungs, found = None if ladder is None else rungs_of(ladder), []
    for one in groups:
        record: dict[str, Any] = {"label": one.label, "seeds": len(one.figures[BITS])}
        record |= {"unfinished": one.unfinished, "failed": len(one.failed)}
        record |= {name: one.mean(name) for name in (BITS, LOSS)}
        record["elapsed_s"], record["elapsed_ratio"] = times(base, one)
        if base and one is not base:
            gap = difference(base, one)
            record |= {"difference": gap.mean, "interval": gap.noise} if gap else {}
            record["verdict"] = describe_change(base, one)
        record["worth"], record["worth_note"] = worth, _ = group_worth(one, rungs, steps)
        far = {name: "above" if x > 0 else "below" for name, x in worth.items() if math.isinf(x)}
        record["beyond_ladder"] = far
        found.append(record)
    return found


def group_worth(one: Group, rungs: Mapping[int, Group] | None, steps: int) -> tuple[Worth, str]:
    """Return what a group is worth, and a note: see `worth_with_note`."""
    if rungs is None:
        return {}, ""
    same = all(map(one.same_text, rungs.values()))
    if problem := one.missing() or OTHER_TEXT * (not same):
        return {}, f"no worth: {problem}"
    losses = {length: rung.figures[BITS] for length, rung in rungs.items()}
    return worth_with_note(losses, one.figures[BITS], steps)


def find_group(groups: Sequence[Group], label: str | None) -> Group | None:
    """Return the group with a label, if there is one."""
    return next((one for one in groups if one.label == label), None)


def times(base: Group | None, one: Group) -> tuple[float, float]:
    """Return the mean time of a group's runs in seconds, and the ratio to that of equal seeds."""
    own, theirs = (group.figures.get(TIME, {}) if group else {} for group in (one, base))
    shared = [seed for seed in own if theirs.get(seed)]
    base_s = sum(theirs[seed] for seed in shared)
    return one.mean(TIME), sum(own[seed] for seed in shared) / base_s if shared else math.nan


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
        failed = [f"{one.label}: {one.missing()}" for one in groups if one.failed]
        return "; ".join([f"no winner yet: {done} of {n_points} points are done", *failed])
    if len(groups) < 2:
        return ""
    best = groups[0]
    gaps = [(other, difference(best, other)) for other in groups[1:]]
    known = [(other, gap) for other, gap in gaps if gap]
    if len(known) < len(gaps):
        other = next(other for other, gap in gaps if not gap)
        return f"no winner: {best.label} and {other.label} share no seed or no validation text"
    if any(gap.seeds == 1 for _, gap in known):
        return "no winner: with one seed each, a difference may be noise; use --seeds 1,2,3"
    # A group whose loss is not finite is left out: it can't win, and its difference is unknown.
    finite = [(other, gap) for other, gap in known if math.isfinite(gap.mean)]
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
        cells = [*pairs[0], *pairs[1], *(cell(x, ".2f") for x in times(groups[0], one))]
        rows.append([one.label, *cells, str(len(one.figures[LOSS]))])
    header = ["settings", "val bits/byte", STD, "val nats/token", STD, *TIMES, "seeds"]
    return f"{table(header, rows)}\nmean over the seeds, {STD} the standard deviation of one run"


def changes_table(groups: Sequence[Group], base_label: str) -> str:
    """Return the changes as a text table: each one's difference to the base, and 95% interval."""
    base, rows = find_group(groups, base_label), []
    if base is None:
        return "nothing to compare with: the base has no finished run"
    for one in (base, *(other for other in groups if other is not base)):
        cells = [one.label, cell(one.mean(LOSS))]
        for name in (LOSS, BITS):
            gap = None if one is base else difference(base, one, name)
            cells += [cell(gap.mean, "+.4f"), cell(gap.noise)] if gap else ["", ""]
        cells += [*(cell(x, ".2f") for x in times(base, one)), str(len(one.figures[LOSS]))]
        rows.append([*cells, one.missing() if one is base else describe_change(base, one)])
    header = ["change", "val nats/token", "adds nats/token", INTERVAL, "adds bits/byte", INTERVAL]
    note = f"{INTERVAL}: of the mean difference to the base; runs are compared seed by seed"
    return f"{table([*header, *TIMES, 'seeds', 'verdict'], rows)}\n{note}"


def describe_change(base: Group, other: Group) -> str:
    """Return the meaning of a difference in words, or why there is none."""
    gap, missing, in_base = difference(base, other), other.missing(), base.missing()
    if not gap:
        return OTHER_TEXT if not base.same_text(other) else "no seed of the base"
    return missing or (f"base: {in_base}" if in_base else gap.describe())
