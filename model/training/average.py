"""An average of the weights over the last part of a run, for evaluation and sampling.

The gradient of one batch is noisy, so the weights move around the point that training approaches.
Their average is closer to it (Polyak & Juditsky 1992, SIAM J. Control Optim. 30, 838). It costs a
copy of the weights and little time, and training itself does not change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from model.training.config import TrainConfig
from model.training.optim import OptimConfig

EVERY = 5  # steps: as good as an average of all steps, for a fifth of the time


class WeightAverage:
    """An exponential moving average of weights, which begins in the middle of the run."""

    def __init__(self, weights: Sequence[Tensor], optim: OptimConfig, train: TrainConfig) -> None:
        """Store the weights, which the optimizer changes in place."""
        self.weights = [weight.detach() for weight in weights]
        self.middle = train.max_steps // 2
        self.window = optim.average_fraction * train.max_steps  # steps: the time constant
        self.means: list[Tensor] = []  # none before the middle of the run

    def start(self) -> None:
        """Begin with the present weights."""
        self.means = [weight.clone() for weight in self.weights]

    def update(self, step: int) -> None:
        """Add the weights after a step. The first ones count the same: their mean is plain.

        >>> weight = torch.zeros(1)
        >>> optim, train = OptimConfig(average_fraction=0.5), TrainConfig(max_steps=40)
        >>> average = WeightAverage([weight], optim, train)
        >>> for step in range(1, 41):
        ...     _ = weight.fill_(step)
        ...     average.update(step)
        >>> average.means  # of the steps 25, 30, 35 and 40
        [tensor([32.5000])]
        """
        n = step // EVERY - self.middle // EVERY
        if not self.window or step % EVERY or n < 1:
            return
        if not self.means:
            self.start()
        share = min(1.0, max(1 / n, EVERY / self.window))
        torch._foreach_lerp_(self.means, self.weights, share)

    def state(self, own: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Return the entries of a checkpoint: the average to use, the weights to go on with.

        Args:
            own: state dict with the weights.
        """
        if not self.means:
            return {"model": own}
        means = {x.data_ptr(): mean for x, mean in zip(self.weights, self.means, strict=True)}
        averaged = {name: means[x.data_ptr()] for name, x in own.items()}
        return {"model": averaged, "training_weights": own}

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Within the block, the weights have the values of their averages, if there are any."""
        own = [weight.clone() for weight in self.weights if self.means]
        if self.means:
            torch._foreach_copy_(self.weights, self.means)
        try:
            yield
        finally:
            if own:
                torch._foreach_copy_(self.weights, own)
