"""Fit a scaling law to the runs of a sweep: `python -m scripts.scaling --sweep runs/scaling`.

The law is L = E + A / N^a + B / D^b (Hoffmann et al. 2022, arXiv 2203.15556) or, if that describes
the runs better, L = E + C / (N^a D^b): L is the validation loss in nats per token, N the number of
parameters without embedding tables, D the number of training tokens, and E the loss that no size
and no training can lower. The last line of stdout is one JSON object with the results.
"""

import os
import sys

if __name__ == "__main__":  # before the slow imports
    sys.path.insert(0, os.path.realpath(f"{__file__}/../.."))  # for `python scripts/scaling.py`
    from utils.signals import before_slow_imports

    before_slow_imports()

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.flops import count_parameters
from scripts.finished import (
    LADDER_MAY_DIFFER,
    MAY_DIFFER,
    FinishedRun,
    difference,
    examine,
    finished_runs,
)
from scripts.report import cell, table
from scripts.scaling_law import FORMULAS, LAWS, Grid, choose_law, fit_law, relative_noise, terms
from utils.cli import Parser
from utils.errors import UserError, plural, run_cli
from utils.output import describe_count, json_line
from utils.run import figure as pictures
from utils.run.folder import RunFolder
from utils.run.plot import TICKS, scale_y

AUTO = "auto"
MIN_VALUES = 3  # sizes, and numbers of tokens
MIN_RUNS = 12  # with 7, E is not determined in most simulated sweeps (docs/theory.md, section 13)
SAMPLES = 1000  # of the bootstrap
NEAR_ZERO = 0.01  # an E below this share of the lowest loss may as well be zero
SIZE_SETTINGS = ("n_embd", "n_layer", "n_head", "n_kv_head", "head_size")
RUNS_MAY_DIFFER = (*MAY_DIFFER, *LADDER_MAY_DIFFER, *(f"model.{name}" for name in SIZE_SETTINGS))
EXAMPLES = ("python -m scripts.scaling --sweep runs/scaling --run runs/larger",)


def bounds(values: np.ndarray) -> np.ndarray:
    """Return the bounds that contain 95% of the values of the bootstrap, which follow the first."""
    return np.quantile(values[1:], (0.025, 0.975), axis=0)


def estimate(values: np.ndarray) -> dict[str, float]:
    """Return a value of the law, with its 95% interval.

    >>> estimate(np.array([3.0, 2.0, 4.0]))
    {'value': 3.0, 'low': 2.05, 'high': 3.95}
    """
    low, high = bounds(values).tolist()
    return {"value": float(values[0]), "low": low, "high": high}


def estimate_floor(E: np.ndarray, lowest: float) -> dict[str, float]:
    """Return E with its interval; if that reaches zero, the value is NaN: not determined.

    >>> estimate_floor(np.array([1.0, 0.0, 0.0, 2.0]), lowest=3.0)
    {'value': nan, 'low': 0.0, 'high': 1.9}

    Args:
        E: of the law and of the bootstrap.
        lowest: the lowest loss of a run.
    """
    found = estimate(E)
    if min(found["value"], found["low"]) > NEAR_ZERO * lowest:
        return found
    return {"value": math.nan, "low": 0.0, "high": found["high"]}


def size_of(run: FinishedRun) -> int:
    """Return N: the number of parameters that are multiplied, not looked up."""
    count = count_parameters(run.config.model)
    return count.total - count.embedding


def check_runs(runs: Sequence[FinishedRun], flag: str) -> None:
    """Check that a law can be fitted.

    Raises:
        UserError: there are too few runs, or runs that differ in other settings.
    """
    # Steps, not tokens: these depend on the seed, because documents have different lengths.
    steps = [run.config.train.max_steps for run in runs]
    sizes = [size_of(run) for run in runs]
    counts = len(set(sizes)), len(set(steps))
    if min(counts) < MIN_VALUES or len(runs) < MIN_RUNS:
        raise UserError(
            f"{flag}: {plural(len(runs), 'finished run')}, {plural(counts[0], 'size')}, "
            f"{plural(counts[1], 'number')} of steps; train at least {MIN_RUNS} runs, {MIN_VALUES} "
            f"sizes (model.n_embd) and {MIN_VALUES} numbers of steps (train.max_steps)"
        )
    if len({run.data for run in runs}) > 1:
        raise UserError(f"{flag}: its runs have different data; train all on the same")
    for run in runs:
        check_settings(run, runs[0], flag)
    if len({*zip(sizes, steps, (run.config.train.seed for run in runs), strict=True)}) < len(runs):
        raise UserError(f"{flag}: two runs have equal size, steps and seed; drop one of them")


def check_settings(run: FinishedRun, first: FinishedRun, flag: str) -> None:
    """Check that a run differs from another only in size, steps, seed, and what changes no loss.

    Raises:
        UserError: it does not.
    """
    if differs := difference(run.config, first.config, RUNS_MAY_DIFFER):
        fix = f"as {first.path.name}; train all runs with the same settings, except size, steps and"
        raise UserError(f"{flag}: {run.path.name} has {differs} {fix} seed")


@pictures.draws
def plot_law(
    runs: Sequence[FinishedRun], law: str, laws: np.ndarray, E: dict[str, float], out: Path
) -> None:
    """Plot the loss over the training tokens: a dot for each run, a line with its interval.

    Args:
        law: its name in LAWS.
        E: not plotted if it is not determined.
    """
    picture = pictures.new_figure()
    axes = picture.subplots()
    sizes, tokens = sorted({size_of(run) for run in runs}), [run.tokens for run in runs]
    grid = np.geomspace(min(tokens), 2 * max(tokens), 60)
    for number, size in enumerate([*sizes, 2 * sizes[-1]]):
        lines = terms(laws, np.full(60, size), grid, law).sum(1)
        style = {"color": pictures.COLOURS[number % len(pictures.COLOURS)]}
        axes.fill_between(grid / 1e6, *bounds(lines), alpha=0.15, linewidth=0, **style)
        label = f"{describe_count(size)} parameters{', predicted' * (size not in sizes)}"
        axes.plot(grid / 1e6, lines[0], "-" if size in sizes else "--", label=label, **style)
        dots = [(run.tokens / 1e6, run.figures["val_loss"]) for run in runs if size_of(run) == size]
        axes.plot(*np.array(dots).reshape(-1, 2).T, "o", markersize=4, label="", **style)
    levels = [(E["value"], "E, and its interval in grey")] * math.isfinite(E["value"])
    levels += [] if runs[0].floor is None else [(runs[0].floor, "floor, the entropy of the text")]
    for level, label in levels:
        dashes = ":" if label[0] == "E" else "--"
        axes.axhline(level, color="black", ls=dashes, lw=1, label=f"{label}: {level:.4f}")
    if math.isfinite(E["value"]):
        axes.axhspan(E["low"], E["high"], color="0.5", alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks([one for one in TICKS if grid[0] <= one * 1e6 <= grid[-1]])
    axes.minorticks_off()
    scale_y(axes, [y for line in axes.lines for y in line.get_ydata()])
    axes.set_title(f"Fit of L = {FORMULAS[law]}, 95% intervals", loc="left", fontsize=10)
    axes.set(xlabel="training tokens, millions", ylabel="best val nats per token")
    pictures.style_axes(axes)
    pictures.add_legend(axes, below=True)
    pictures.save_figure(picture, out)


def predict(
    runs: Sequence[FinishedRun],
    law: str,
    laws: np.ndarray,
    errors: np.ndarray,
    run: FinishedRun | None,
) -> Any:
    """Return the predicted loss of a larger run, and what was measured.

    Args:
        law: its name in LAWS.
        errors: of ln L of a run as large as the largest one.
        run: None: one with 4 times the compute of the largest run: twice its N, twice its D.
    """
    compute, size, tokens = max((size_of(x) * x.tokens, size_of(x), x.tokens) for x in runs)
    size, tokens = (size_of(run), run.tokens) if run else (2 * size, 2 * tokens)
    found = {"parameters": size, "tokens": tokens, "times_compute": size * tokens / compute}
    values = terms(laws, np.array([size]), np.array([tokens]), law).sum((1, 2))
    low, high = bounds(values * np.exp(errors)).tolist()
    found |= estimate(values) | {"run_low": low, "run_high": high}
    return found | ({"measured": run.figures["val_loss"]} if run else {})


def show(record: dict[str, Any]) -> str:
    """Return the constants, the prediction and the comparison with the floor, as text."""
    one, E, floor = record["prediction"], record["E"], record["floor"]
    known, misfits = math.isfinite(E["value"]), record["misfits"]
    values = {name: record[name].values() for name in LAWS[record["law"]]}
    rows = [[name, *(cell(x, ".5g") for x in row)] for name, row in values.items()]
    rows += [["predicted", *(f"{one[name]:.4f}" for name in E)]]
    rows += [["a single run", "", *(f"{one[name]:.4f}" for name in ("run_low", "run_high"))]]
    sizes = [describe_count(one[name]) for name in ("parameters", "tokens")]
    tried = "; ".join(f"{FORMULAS[law]} misses them by {x:.2%}" for law, x in misfits.items())
    lines = [f"L = {FORMULAS[record['law']]}, of {plural(record['runs'], 'run')} ({tried})"]
    lines += [table(["", "value", "95% from", "to"], rows)]
    lines += [f"predicted: for {one['times_compute']:.1f} times the compute of the largest run, "]
    lines[-1] += f"{sizes[0]} parameters and {sizes[1]} tokens, in nats per token"
    if "measured" in one:
        gap = one["measured"] / one["value"] - 1
        lines.append(f"measured: {one['measured']:.4f}, {gap:+.2%} from the prediction")
    if not known:
        lines.append(
            "E: not determined by these runs, its interval reaches 0; train more sizes, numbers of "
            "steps and seeds"
        )
    if floor is not None and not known:
        lines.append(f"floor: {floor:.4f}; these runs do not show whether E is near it")
    elif floor is not None:
        words = "contains" if E["low"] <= floor <= E["high"] else "does not contain"
        gap = E["value"] / floor - 1
        lines.append(f"floor: {floor:.4f}; E is {gap:+.2%} from it, and its interval {words} it")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Fit the law, print it, and plot it into the folder of the sweep."""
    parser = Parser(prog="scripts.scaling", description=__doc__, examples=EXAMPLES)
    add = parser.add_argument
    add("--sweep", required=True, metavar="FOLDER", help="folder of the runs")
    add("--run", metavar="FOLDER", help="a larger run, to compare with its prediction")
    about = "sum: E + A/N^a + B/D^b, product: E + C/(N^a D^b); auto (default): the better one"
    add("--law", choices=[AUTO, *LAWS], default=AUTO, help=about)
    args = parser.parse_args(argv)
    runs = finished_runs(args.sweep, "--sweep")
    check_runs(runs, f"--sweep {args.sweep}")
    larger = examine(RunFolder(args.run)) if args.run else None
    if isinstance(larger, str):
        raise UserError(f"--run {args.run}: {larger}; or name another run")
    if larger:
        if larger.data != runs[0].data:
            raise UserError(f"--run {args.run}: other data; name a run on the data of the sweep")
        check_settings(larger, runs[0], f"--run {args.run}")
    columns = [(size_of(run), run.tokens, run.figures["val_loss"]) for run in runs]
    sizes, tokens, losses = np.array(columns, dtype=float).T
    steps = np.array([run.config.train.max_steps for run in runs])
    grid = Grid(sizes, tokens, relative_noise(losses, sizes, steps))
    best, misfits = choose_law(losses, grid)
    law = best if args.law == AUTO else args.law
    laws, errors = fit_law(losses, grid._replace(law=law), SAMPLES)
    constants = np.concatenate([np.exp(laws[:, :-2].clip(max=700)), laws[:, -2:]], 1).T
    record = {"sweep": args.sweep, "runs": len(runs), "law": law, "misfits": misfits}
    record |= {name: estimate(one) for name, one in zip(LAWS[law], constants, strict=True)}
    record |= {"E": estimate_floor(constants[0], losses.min()), "floor": runs[0].floor}
    record |= {"prediction": predict(runs, law, laws, errors, larger)}
    print(show(record))
    out = Path(args.sweep) / "scaling.png"
    plot_law(runs, law, laws, record["E"], out)
    print(out, json_line(record), sep="\n")
    return 0


if __name__ == "__main__":
    run_cli(main)
