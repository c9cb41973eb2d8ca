"""Fit a scaling law to the runs of a sweep: `python -m scripts.scaling --sweep runs/scaling`.

The law is L = E + A / N^a + B / D^b (Hoffmann et al. 2022, arXiv 2203.15556): L is the validation
loss in nats per token, N the number of parameters without embedding tables, D the number of
training tokens, and E the loss that no size and no training can lower. The last line of stdout is
one JSON object with the results.
"""

import os
import sys

if __name__ == "__main__":  # before the slow imports
    sys.path.insert(0, os.path.realpath(f"{__file__}/../.."))  # for `python scripts/scaling.py`
    from utils.signals import exit_silently_on_sigint

    exit_silently_on_sigint()

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.flops import count_parameters
from scripts.finished import FinishedRun, finished_runs, read_run
from scripts.report import table
from utils.cli import Parser
from utils.errors import UserError, run_cli
from utils.output import describe_count, json_line
from utils.run import figure as pictures
from utils.run.folder import RunFolder
from utils.run.plot import TICKS, scale_y

NAMES = ("E", "A", "B", "a", "b")
MIN_VALUES = 3  # sizes, and numbers of tokens
MIN_RUNS = 7  # more than the five constants, so that residuals are left
SAMPLES = 1000  # of the bootstrap
FIT_STEPS = 100  # of the Levenberg-Marquardt method
EXAMPLES = ("python -m scripts.scaling --sweep runs/scaling --run runs/larger",)


def terms(laws: np.ndarray, sizes: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return E, A / N^a and B / D^b (R, 3, n) of R laws for n runs.

    Args:
        laws: (R, 5): ln E, ln A, ln B, a, b.
    """
    E, A, B, a, b = laws.T[..., None]
    n, d = np.log(sizes), np.log(tokens)
    return np.exp(np.stack([E + 0 * n, A - a * n, B - b * d], 1))


@np.errstate(over="ignore", invalid="ignore")  # steps that are rejected
def fit(losses: np.ndarray, sizes: np.ndarray, tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the laws (R, 5) that minimise the squared errors of ln L, from laws to start with.

    The Levenberg-Marquardt method, for R problems together. It works with ln E, ln A and ln B, so
    that these terms stay positive.

    Args:
        losses: (R, n).
    """
    laws, damping = start, np.full((len(start), 1, 1), 1e-2)
    for _ in range(FIT_STEPS):
        parts = terms(laws, sizes, tokens)
        total = parts.sum(1, keepdims=True)
        rest = np.log(losses)[:, None] - np.log(total)
        slopes = parts / total  # of ln L over the five constants
        by_a, by_b = -np.log(sizes) * slopes[:, 1:2], -np.log(tokens) * slopes[:, 2:]
        slopes = np.concatenate([slopes, by_a, by_b], 1)
        products = slopes @ slopes.transpose(0, 2, 1)
        damped = products + damping * products * np.eye(5) + 1e-12 * np.eye(5)
        tried = laws + np.linalg.solve(damped, slopes @ rest.transpose(0, 2, 1))[..., 0]
        errors = np.log(losses) - np.log(terms(tried, sizes, tokens).sum(1))
        better = (errors**2).sum(1) < (rest**2).sum((1, 2))
        laws = np.where(better[:, None], tried, laws)
        damping = np.where(better[:, None, None], damping / 4, damping * 4).clip(1e-9, 1e9)
    return laws


def fit_law(sizes: np.ndarray, tokens: np.ndarray, losses: np.ndarray, samples: int) -> np.ndarray:
    """Return the law of n runs, and those of `samples` bootstrap samples: (1 + samples, 5).

    A sample is the fitted ln L plus errors: residuals of the fit, sampled with replacement (Efron
    1979). Residuals are smaller than errors, because five constants are fitted; sqrt(n / (n - 5))
    corrects that. The size of the errors is itself uncertain: the chi-squared factor makes the
    intervals as wide as Student's t does for a mean.
    """
    n_runs, rng = len(losses), np.random.default_rng(1)
    third, n, d = np.log(losses.mean() / 3), np.log(sizes).mean(), np.log(tokens).mean()
    slopes = itertools.product((0.2, 1, 2), repeat=2)
    start = np.array([[third, third + a * n, third + b * d, a, b] for a, b in slopes])
    found = fit(np.tile(losses, (len(start), 1)), sizes, tokens, np.array(start))
    residuals = np.log(losses) - np.log(terms(found, sizes, tokens).sum(1))
    best = (residuals**2).sum(1).argmin()
    law, free = found[best : best + 1], n_runs - 5
    errors = rng.choice(residuals[best] * np.sqrt(n_runs / free), (samples, n_runs))
    errors *= np.sqrt(free / rng.chisquare(free, (samples, 1)))
    again = terms(law, sizes, tokens).sum(1) * np.exp(errors)
    return np.concatenate([law, fit(again, sizes, tokens, law.repeat(samples, 0))])


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


def size_of(run: FinishedRun) -> int:
    """Return N: the number of parameters that are multiplied, not looked up."""
    count = count_parameters(run.config.model)
    return count.total - count.embedding


def check_runs(runs: Sequence[FinishedRun], flag: str) -> None:
    """Check that a law can be fitted.

    Raises:
        UserError: there are too few runs, or runs that differ in other settings.
    """
    # Rows of training: their tokens depend on the seed, because documents have different lengths.
    trains = [run.config.train for run in runs]
    rows = [one.max_steps * one.batch_size * one.grad_accum_steps for one in trains]
    sizes = [size_of(run) for run in runs]
    counts = len(set(sizes)), len(set(rows))
    if min(counts) < MIN_VALUES or len(runs) < MIN_RUNS:
        raise UserError(
            f"{flag}: {len(runs)} finished runs, {counts[0]} sizes, {counts[1]} numbers of steps; "
            f"train at least {MIN_RUNS} runs, {MIN_VALUES} sizes (model.n_embd) and {MIN_VALUES} "
            "numbers of steps (train.max_steps)"
        )
    if len({run.data for run in runs}) > 1:
        raise UserError(f"{flag}: its runs have different data; train all on the same")
    if len({*zip(sizes, rows, (one.seed for one in trains), strict=True)}) < len(runs):
        raise UserError(f"{flag}: two runs have equal size, steps and seed; drop other settings")


@pictures.draws
def plot_law(runs: Sequence[FinishedRun], laws: np.ndarray, out: Path) -> None:
    """Plot the loss over the training tokens: a dot for each run, a line with its interval."""
    picture = pictures.new_figure()
    axes = picture.subplots()
    sizes, tokens = sorted({size_of(run) for run in runs}), [run.tokens for run in runs]
    grid = np.geomspace(min(tokens), 2 * max(tokens), 60)
    for number, size in enumerate([*sizes, 2 * sizes[-1]]):
        lines = terms(laws, np.full(60, size), grid).sum(1)
        style = {"color": pictures.COLOURS[number % len(pictures.COLOURS)]}
        axes.fill_between(grid / 1e6, *bounds(lines), alpha=0.15, linewidth=0, **style)
        label = f"{describe_count(size)} parameters{', predicted' * (size not in sizes)}"
        axes.plot(grid / 1e6, lines[0], "-" if size in sizes else "--", label=label, **style)
        dots = [(run.tokens / 1e6, run.figures["val_loss"]) for run in runs if size_of(run) == size]
        axes.plot(*np.array(dots).reshape(-1, 2).T, "o", markersize=4, label="", **style)
    floors = [] if runs[0].floor is None else [(runs[0].floor, "floor, the entropy of the text")]
    for level, label in [(np.exp(laws[0, 0]), "E, and its interval in grey"), *floors]:
        dashes = ":" if label[0] == "E" else "--"
        axes.axhline(level, color="black", ls=dashes, lw=1, label=f"{label}: {level:.4f}")
    axes.axhspan(*bounds(np.exp(laws[:, 0])), color="0.5", alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks([one for one in TICKS if grid[0] <= one * 1e6 <= grid[-1]])
    axes.minorticks_off()
    scale_y(axes, [y for line in axes.lines for y in line.get_ydata()])
    axes.set_title("Fit of L = E + A / N^a + B / D^b, 95% intervals", loc="left", fontsize=10)
    axes.set(xlabel="training tokens, millions", ylabel="best val nats per token")
    pictures.style_axes(axes)
    pictures.add_legend(axes, below=True)
    pictures.save_figure(picture, out)


def predict(runs: Sequence[FinishedRun], laws: np.ndarray, run: FinishedRun | None) -> Any:
    """Return the predicted loss of a larger run, and what was measured.

    Args:
        run: None: one with 4 times the compute of the largest run: twice its N, twice its D.
    """
    size, tokens = max((size_of(one) * one.tokens, size_of(one), one.tokens) for one in runs)[1:]
    compute, size, tokens = size * tokens, 2 * size, 2 * tokens
    if run:
        size, tokens = size_of(run), run.tokens
    found = {"parameters": size, "tokens": tokens, "times_compute": size * tokens / compute}
    found |= estimate(terms(laws, np.array([size]), np.array([tokens])).sum((1, 2)))
    return found | ({"measured": run.figures["val_loss"]} if run else {})


def show(record: dict[str, Any]) -> str:
    """Return the constants, the prediction and the comparison with the floor, as text."""
    one, E, floor = record["prediction"], record["E"], record["floor"]
    rows = [[name, *(f"{x:.5g}" for x in record[name].values())] for name in NAMES]
    rows += [["predicted", *(f"{one[name]:.4f}" for name in E)]]
    sizes = [describe_count(one[name]) for name in ("parameters", "tokens")]
    lines = [table(["", "value", "95% from", "to"], rows)]
    lines += [f"predicted: for {one['times_compute']:.1f} times the compute of the largest run, "]
    lines[-1] += f"{sizes[0]} parameters and {sizes[1]} tokens, in nats per token"
    if "measured" in one:
        gap = one["measured"] / one["value"] - 1
        lines.append(f"measured: {one['measured']:.4f}, {gap:+.2%} from the prediction")
    if floor is not None:
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
    args = parser.parse_args(argv)
    runs = finished_runs(args.sweep, "--sweep")
    check_runs(runs, f"--sweep {args.sweep}")
    larger = read_run(RunFolder(args.run)) if args.run else None
    if args.run and (not larger or larger.data != runs[0].data):
        raise UserError(f"--run {args.run}: name a finished run on the same data as the sweep")
    columns = [(size_of(run), run.tokens, run.figures["val_loss"]) for run in runs]
    sizes, tokens, losses = np.array(columns, dtype=float).T
    laws = fit_law(sizes, tokens, losses, SAMPLES)
    constants = np.concatenate([np.exp(laws[:, :3]), laws[:, 3:]], 1).T
    record = {"sweep": args.sweep, "runs": len(runs), "floor": runs[0].floor}
    record |= {name: estimate(one) for name, one in zip(NAMES, constants, strict=True)}
    record |= {"prediction": predict(runs, laws, larger)}
    print(show(record))
    out = Path(args.sweep) / "scaling.png"
    plot_law(runs, laws, out)
    print(out, json_line(record), sep="\n")
    return 0


if __name__ == "__main__":
    run_cli(main)
