"""The scaling law L = E + A / N^a + B / D^b, its fit and its bootstrap, for scripts.scaling."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FIT_STEPS = 100  # of the Levenberg-Marquardt method
START_SHARES = (1e-300, 0.3, 0.9)  # E of a start / lowest loss; the first is E = 0, and remains it
SLOPES = ((0.3, 0.3), (1, 1), *itertools.product((0.2, 1, 2), repeat=2))  # a, b of a start


class Grid(NamedTuple):
    """The runs of a fit, n numbers each."""

    sizes: np.ndarray  # N
    tokens: np.ndarray  # D
    noise: np.ndarray  # standard deviation of ln L, up to a common factor


def terms(laws: np.ndarray, sizes: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return E, A / N^a and B / D^b (R, 3, n) of R laws for n runs.

    Args:
        laws: (R, 5): ln E, ln A, ln B, a, b.
    """
    E, A, B, a, b = laws.T[..., None]
    n, d = np.log(sizes), np.log(tokens)
    return np.exp(np.stack([E + 0 * n, A - a * n, B - b * d], 1))


@np.errstate(over="ignore", invalid="ignore")  # steps that are rejected
def fit(losses: np.ndarray, grid: Grid, start: np.ndarray) -> np.ndarray:
    """Return the laws (R, 5) that minimise the sum of (error of ln L / noise)^2.

    The Levenberg-Marquardt method, for R problems together. It works with ln E, ln A and ln B, so
    that these terms stay positive.

    Args:
        losses: (R, n).
        start: laws (R, 5) to start with.
    """
    sizes, tokens, noise = grid
    laws, damping = start, np.full((len(start), 1, 1), 1e-2)
    for _ in range(FIT_STEPS):
        parts = terms(laws, sizes, tokens)
        total = parts.sum(1, keepdims=True)
        rest = (np.log(losses)[:, None] - np.log(total)) / noise
        slopes = parts / total / noise  # of ln L / noise over the five constants
        by_a, by_b = -np.log(sizes) * slopes[:, 1:2], -np.log(tokens) * slopes[:, 2:]
        slopes = np.concatenate([slopes, by_a, by_b], 1)
        products = slopes @ slopes.transpose(0, 2, 1)
        damped = products + damping * products * np.eye(5) + 1e-12 * np.eye(5)
        tried = laws + np.linalg.solve(damped, slopes @ rest.transpose(0, 2, 1))[..., 0]
        errors = (np.log(losses) - np.log(terms(tried, sizes, tokens).sum(1))) / noise
        better = (errors**2).sum(1) < (rest**2).sum((1, 2))
        laws = np.where(better[:, None], tried, laws)
        damping = np.where(better[:, None, None], damping / 4, damping * 4).clip(1e-9, 1e9)
    return laws


def starts(losses: np.ndarray, grid: Grid, slopes: Sequence[Sequence[float]]) -> np.ndarray:
    """Return laws (K, R, 5) to start fits of the losses (R, n) with: each has another E, a or b.

    Once E is nearly zero, its slope over ln E is, too, and it stays there. So one start is not
    enough.
    """
    n, d, found = np.log(grid.sizes).mean(), np.log(grid.tokens).mean(), []
    for share, (a, b) in itertools.product(START_SHARES, slopes):
        E = share * losses.min(1)
        half = np.log((losses.mean(1) - E) / 2)  # of what E does not explain
        found.append(np.stack([np.log(E), half + a * n, half + b * d, a + 0 * E, b + 0 * E], 1))
    return np.array(found)


def best_fit(losses: np.ndarray, grid: Grid, laws: np.ndarray) -> np.ndarray:
    """Return the best of the fits that start from K laws (K, R, 5), for each row of losses."""
    many = np.tile(losses, (len(laws), 1))
    found = fit(many, grid, laws.reshape(-1, 5))
    errors = (np.log(many) - np.log(terms(found, grid.sizes, grid.tokens).sum(1))) / grid.noise
    best = (errors**2).sum(1).reshape(laws.shape[:2]).argmin(0)
    return found.reshape(laws.shape)[best, np.arange(len(losses))]


def fit_law(losses: np.ndarray, grid: Grid, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the law of n runs and those of bootstrap samples, (1 + samples, 5); and errors.

    A sample is the fitted ln L plus errors. An error is a residual of the fit / its noise, sampled
    with replacement (Efron 1979), x the run's noise. Residuals are smaller than errors, because
    five constants are fitted; sqrt(n / (n - 5)) corrects that. The size of the errors is itself
    uncertain: the chi-squared factor makes the intervals as wide as Student's t does for a mean.

    The errors returned, (1 + samples,), are those of ln L of one more run whose noise is 1.
    """
    n_runs, rng, one = len(losses), np.random.default_rng(1), losses[None]
    law = best_fit(one, grid, starts(one, grid, SLOPES))
    fitted, free = terms(law, grid.sizes, grid.tokens).sum(1), n_runs - 5
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
    a run that varies so much says little. Without two sizes with several seeds it is 1.

    >>> losses, sizes = np.exp([0, 4, 0, 2, 0, 1]), np.array([10, 10, 20, 20, 40, 40])
    >>> relative_noise(losses, sizes, np.ones(6)).round(6).tolist()
    [4.0, 4.0, 2.0, 2.0, 1.0, 1.0]
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
    power = np.polyfit(logs, deviations, 1, w=np.array(weights))[0] if logs[1:] else 0.0
    return np.asarray((sizes / sizes.max()) ** power)
