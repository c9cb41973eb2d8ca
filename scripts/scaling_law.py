"""Scaling laws, their fit and their bootstrap, for scripts.scaling."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Names of the constants; the last two are exponents.
LAWS = {"sum": ("E", "A", "B", "a", "b"), "product": ("E", "C", "a", "b")}
FORMULAS = {"sum": "E + A / N^a + B / D^b", "product": "E + C / (N^a D^b)"}
FIT_STEPS = 100  # of the Levenberg-Marquardt method
START_SHARES = (1e-300, 0.3, 0.9)  # E of a start / lowest loss; the first is E = 0, and remains it
MIN_FREEDOM = 12  # degrees of freedom, so that the noise is known to a factor of 1.5 or so
SLOPES = ((0.3, 0.3), (1, 1), *itertools.product((0.2, 1, 2), repeat=2))  # a, b of a start


class Grid(NamedTuple):
    """The runs of a fit, n numbers each, and the law that is fitted."""

    sizes: np.ndarray  # N
    tokens: np.ndarray  # D
    noise: np.ndarray  # standard deviation of ln L, up to a common factor
    law: str = "sum"


def design(law: str, sizes: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the slopes (P, K, n) of ln of the law's P terms over its K constants.

    The constants are ln E, ln A, ..., a, b. In them, ln of each term of a law is linear.
    """
    n, d = -np.log(sizes), -np.log(tokens)
    rows: dict[str, list[list[float | np.ndarray]]] = {
        "sum": [[1, 0, 0, 0, 0], [0, 1, 0, n, 0], [0, 0, 1, 0, d]],
        "product": [[1, 0, 0, 0], [0, 1, n, d]],
    }
    return np.array([[one + 0 * n for one in row] for row in rows[law]])


def terms(laws: np.ndarray, sizes: np.ndarray, tokens: np.ndarray, law: str = "sum") -> np.ndarray:
    """Return the terms, such as E, A / N^a and B / D^b, (R, P, n), of R laws for n runs.

    Args:
        laws: (R, K): ln E, ln A, ln B, a, b.
    """
    return np.exp(np.einsum("rk,pkn->rpn", laws, design(law, sizes, tokens)))


@np.errstate(over="ignore", invalid="ignore")  # steps that are rejected
def fit(losses: np.ndarray, grid: Grid, start: np.ndarray) -> np.ndarray:
    """Return the laws (R, K) that minimise the sum of (error of ln L / noise)^2.

    The Levenberg-Marquardt method, for R problems together. It works with the logarithms of E, A,
    B and C, so that all terms stay positive.

    Args:
        losses: (R, n).
        start: laws (R, K) to start with.
    """
    X, eye = design(grid.law, grid.sizes, grid.tokens), np.eye(start.shape[1])
    laws, damping = start, np.full((len(start), 1, 1), 1e-2)
    for _ in range(FIT_STEPS):
        parts = np.exp(np.einsum("rk,pkn->rpn", laws, X))
        total = parts.sum(1, keepdims=True)
        rest = (np.log(losses)[:, None] - np.log(total)) / grid.noise
        slopes = np.einsum("rpn,pkn->rkn", parts / total, X) / grid.noise
        products = slopes @ slopes.transpose(0, 2, 1)
        damped = products + damping * products * eye + 1e-12 * eye
        tried = laws + np.linalg.solve(damped, slopes @ rest.transpose(0, 2, 1))[..., 0]
        better = squared_errors(tried, losses, grid) < (rest**2).sum((1, 2))
        laws = np.where(better[:, None], tried, laws)
        damping = np.where(better[:, None, None], damping / 4, damping * 4).clip(1e-9, 1e9)
    return laws


def squared_errors(laws: np.ndarray, losses: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the sum of (error of ln L / noise)^2 of each law, (R,)."""
    fitted = terms(laws, grid.sizes, grid.tokens, grid.law).sum(1)
    return (((np.log(losses) - np.log(fitted)) / grid.noise) ** 2).sum(1)


def starts(losses: np.ndarray, grid: Grid, slopes: Sequence[Sequence[float]]) -> np.ndarray:
    """Return laws (S, R, K) to start fits of the losses (R, n) with: each has another E, a or b.

    Once E is nearly zero, its slope over ln E is, too, and it stays there. So one start is not
    enough.
    """
    means = design(grid.law, grid.sizes, grid.tokens).mean(2)[1:, -2:]  # of -ln N and -ln D
    found = []
    for share, exponents in itertools.product(START_SHARES, slopes):
        E = share * losses.min(1)
        rest = np.log((losses.mean(1) - E) / len(means))  # of what E does not explain
        others = [rest - mean @ exponents for mean in means]
        found.append(np.stack([np.log(E), *others, *(one + 0 * E for one in exponents)], 1))
    return np.array(found)


def best_fit(losses: np.ndarray, grid: Grid, laws: np.ndarray) -> np.ndarray:
    """Return the best of the fits that start from S laws (S, R, K), for each row of losses."""
    many = np.tile(losses, (len(laws), 1))
    found = fit(many, grid, laws.reshape(-1, laws.shape[-1]))
    best = squared_errors(found, many, grid).reshape(laws.shape[:2]).argmin(0)
    return found.reshape(laws.shape)[best, np.arange(len(losses))]


def fit_once(losses: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the law (1, K) that is closest to n losses."""
    return best_fit(losses[None], grid, starts(losses[None], grid, SLOPES))


def choose_law(losses: np.ndarray, grid: Grid) -> tuple[str, dict[str, float]]:
    """Return the law that describes the runs best, and the misfit of each.

    The lowest n ln(sum of squares) + 2 K (Akaike 1974) wins: a constant more has to pay. The
    misfit is the root of the mean squared error of ln L, weighted by the noise.
    """
    squares = {}
    for law in LAWS:
        one = grid._replace(law=law)
        squares[law] = float(squared_errors(fit_once(losses, one), losses, one)[0])
    scale = (1 / grid.noise**2).sum()
    scores = {law: len(losses) * np.log(x) + 2 * len(LAWS[law]) for law, x in squares.items()}
    misfits = {law: float(np.sqrt(x / scale)) for law, x in squares.items()}
    return min(scores, key=lambda law: scores[law]), misfits


def fit_law(losses: np.ndarray, grid: Grid, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the law of n runs and those of bootstrap samples, (1 + samples, K); and errors.

    A sample is the fitted ln L plus errors. An error is a residual of the fit / its noise, sampled
    with replacement (Efron 1979), x the run's noise. Residuals are smaller than errors, because
    K constants are fitted; sqrt(n / (n - K)) corrects that. The size of the errors is itself
    uncertain: the chi-squared factor makes the intervals as wide as Student's t does for a mean.

    The errors returned, (1 + samples,), are those of ln L of one more run whose noise is 1.
    """
    n_runs, rng, law = len(losses), np.random.default_rng(1), fit_once(losses, grid)
    fitted = terms(law, grid.sizes, grid.tokens, grid.law).sum(1)
    free = n_runs - law.shape[1]
    residuals = (np.log(losses) - np.log(fitted[0])) / grid.noise
    errors = rng.choice(residuals * np.sqrt(n_runs / free), (samples, n_runs + 1))
    errors *= np.sqrt(free / rng.chisquare(free, (samples, 1)))
    again = fitted * np.exp(errors[:, 1:] * grid.noise)
    others = starts(again, grid, SLOPES[:2])
    laws = np.concatenate([law.repeat(samples, 0)[None], others])
    return np.concatenate([law, best_fit(again, grid, laws)]), np.append(0, errors[:, 0])


def relative_noise(losses: np.ndarray, sizes: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the standard deviation of ln L of each run, (n,), relative to that of the largest.

    It is a power of N, fitted to the variances between seeds, which can differ by a factor of 50:
    a run that varies so much says little. If few seeds are repeated, it is 1.

    >>> losses, sizes = np.exp([0, 4] * 6 + [0, 2] * 6), np.repeat([10, 20], 12)
    >>> relative_noise(losses, sizes, np.repeat(np.arange(12), 2))[[0, 23]].round(6).tolist()
    [2.0, 1.0]
    """
    logs, deviations, weights = [], [], []
    for size in np.unique(sizes):
        here = sizes == size
        seeds = [np.log(losses[here & (steps == one)]) for one in np.unique(steps[here])]
        squares, free = sum(len(x) * x.var() for x in seeds), sum(len(x) - 1 for x in seeds)
        if squares:
            logs.append(np.log(size))
            deviations.append(np.log(squares / free) / 2)
            weights.append(free**0.5)
    known = len(logs) > 1 and round(np.square(weights).sum()) >= MIN_FREEDOM
    power = np.polyfit(logs, deviations, 1, w=np.array(weights))[0] if known else 0.0
    return np.asarray((sizes / sizes.max()) ** power)
