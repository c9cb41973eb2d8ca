"""How often do the intervals of scripts.scaling contain the truth? The table of docs/theory.md.

`python -m tests.scripts.interval_coverage [SWEEPS]`: simulated sweeps for each row, 100 by default.
"""

import sys
from functools import partial
from itertools import product

import numpy as np

from scripts.report import table
from scripts.scaling import NEAR_ZERO, bounds
from scripts.scaling_law import Grid, fit_law, relative_noise, terms
from utils.processes import map_in_order

LAW = (0.487, 60.0, 9000.0, 0.6, 0.75)
SIZES, TOKENS = (1e5, 2e5, 4e5, 6e5, 9e5), (8e5, 1.7e6, 3.4e6)
ERRORS = (0.003, 0.01)
N_SIZES = {3: (0, 2, 4), 4: (0, 1, 2, 4), 5: (0, 1, 2, 3, 4)}
# runs of a sweep: sizes, seeds, runs that are left out
ROWS = ((3, 1, 2), (3, 1, 0), (4, 1, 0), (5, 1, 0), (3, 3, 0), (5, 3, 0))


def shares(row: tuple[int, int, int], sweeps: int) -> list[float]:
    """Return the shares of E and prediction in their intervals, and of E determined, in per cent.

    For each size of the errors: in all, six numbers.
    """
    n_sizes, seeds, left_out = row
    grid = [(SIZES[i], d) for i in N_SIZES[n_sizes] for d in TOKENS for _ in range(seeds)]
    sizes, tokens = np.array(grid[: len(grid) - left_out]).T
    E, A, B, a, b = LAW
    true = E + A / sizes**a + B / tokens**b
    larger = np.array([2 * SIZES[-1]]), np.array([2 * TOKENS[-1]])
    target = E + A / larger[0] ** a + B / larger[1] ** b
    counts = np.zeros((3, len(ERRORS)))
    for (column, error), seed in product(enumerate(ERRORS), range(sweeps)):
        losses = true * np.exp(np.random.default_rng(seed).normal(0, error, len(true)))
        grid = Grid(sizes, tokens, relative_noise(losses, sizes, tokens))
        laws, _ = fit_law(losses, grid, 300)
        low, high = bounds(np.exp(laws[:, 0]))
        determined = low > NEAR_ZERO * losses.min()
        counts[0, column] += low * determined <= E <= high
        low_next, high_next = bounds(terms(laws, *larger).sum((1, 2)))
        counts[1, column] += low_next <= target[0] <= high_next
        counts[2, column] += determined
    return (100 * counts / sweeps).flatten().tolist()


def main(sweeps: int) -> None:
    """Print the table."""
    names = ("E", "prediction", "E determined")
    head = ["runs", *(f"{name}, errors {error:.1%}" for name in names for error in ERRORS)]
    results = map_in_order(partial(shares, sweeps=sweeps), ROWS, 0)
    rows = []
    for (n_sizes, seeds, left_out), result in zip(ROWS, results, strict=True):
        runs = n_sizes * len(TOKENS) * seeds - left_out
        rows.append([str(runs), *(f"{share:.0f}" for share in result)])
    print(table(head, rows))


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 100)
