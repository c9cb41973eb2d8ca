"""torch.compile: one program for a whole step, whose operations share passes over memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from model.weights import Weights

# With it PyTorch writes the product of a matrix and a single row itself, together with the norm or
# the activation beside it, instead of calling a library for the product.
COMPILER: dict[str, Any] = {"backend": "inductor", "options": {"coordinate_descent_tuning": True}}
MOST_PROGRAMS = 256  # of a process: one for each shape, each model's weights, each way to draw


class Compiled:
    """A piece of work, compiled when it is first done; as it is written where that fails.

    To compile takes half a minute. What was compiled for the same work of other objects is used
    again, if shapes, numbers and functions are the same (functions: the very same, so keep the
    `model.weights.Weights`). Sums are added up in another order, so last digits differ.
    """

    def __init__(self, work: Callable[[], None], weights: Weights) -> None:
        """Work with some weights, which are told if it can't be compiled."""
        self.work, self.weights = work, weights
        self.compiled: Callable[[], None] | None = torch.compile(
            work, fullgraph=True, dynamic=False, **COMPILER
        )
        self.tried = False

    def __call__(self) -> None:
        """Does the work once."""
        if not self.tried:
            self.tried = True
            self._try()
        elif self.compiled is not None:
            self.compiled()
        else:
            self.work()

    def _try(self) -> None:
        """Does the work for the first time. Nothing of it is done before all is compiled."""
        assert self.compiled is not None
        try:
            with torch._dynamo.config.patch(recompile_limit=MOST_PROGRAMS):
                self.compiled()
        except Exception as error:  # compilers fail in many ways, none of which should end a run
            self.compiled, self.weights.compiles = None, False
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
            print(
                f"warning: torch.compile failed, sampling goes on without it: {reason}",
                file=sys.stderr,
            )
            self.work()
