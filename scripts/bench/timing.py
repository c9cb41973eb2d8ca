"""Timing of synchronised windows, and their median and range."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Spread:
    """The median, the smallest and the largest of some measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """
        >>> Spread.of([3.0, 1.0, 2.0])
        Spread(median=2.0, low=1.0, high=3.0)
        """
        return cls(statistics.median(values), min(values), max(values))

    def scaled(self, factor: float) -> Spread:
        """Return the spread in another unit.

        >>> Spread(2.0, 1.0, 3.0).scaled(10)
        Spread(median=20.0, low=10.0, high=30.0)
        """
        return Spread(self.median * factor, self.low * factor, self.high * factor)

    def __format__(self, spec: str) -> str:
        """
        >>> format(Spread(2.0, 1.0, 3.0), ".1f")
        '2.0 (1.0 to 3.0)'
        """
        return f"{self.median:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return the spread of some measurements as a JSON object.

    >>> summary([3.0, 1.0, 2.0])
    {'median': 2.0, 'low': 1.0, 'high': 3.0}
    """
    return asdict(Spread.of(values))


def ratios(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Return the spread of `above` divided by `below`, turn by turn.

    >>> ratios([6.0, 2.0, 8.0], [2.0, 2.0, 4.0])
    {'median': 2.0, 'low': 1.0, 'high': 3.0}
    """
    # A coarse clock may report 0 for a very short turn.
    return summary([one / (other or 1e-9) for one, other in zip(above, below, strict=True)])


def time_call(work: Callable[[], object], synchronize: Callable[[], None]) -> float:
    """Return the seconds that `work` takes on a device that `synchronize` waits for."""
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Window:
    """A timed window of steps: its seconds, and the work done in it."""

    seconds: float
    units: float  # tokens, or any other unit that the step counts

    @property
    def rate(self) -> float:
        """Units per second.

        >>> Window(seconds=2.0, units=10).rate
        5.0
        """
        return self.units / self.seconds


def time_windows(
    step: Callable[[], float],
    *,
    steps: int,
    windows: int,
    warmup: int,
    synchronize: Callable[[], None],
) -> Iterator[Window]:
    """Yield `windows` timed windows of `steps` steps, after `warmup` untimed steps.

    Args:
        step: runs one step and returns its units of work.
        synchronize: waits for the device; without it only the kernel launches are timed.
    """
    for _ in range(warmup):
        step()
    for _ in range(windows):
        synchronize()
        start = time.perf_counter()
        units = sum(step() for _ in range(steps))
        synchronize()
        yield Window(time.perf_counter() - start, units)
