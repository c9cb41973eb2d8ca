"""torch.compile: one program for a whole step, whose operations share passes over memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

# With it PyTorch writes the product of a matrix and a single row itself, together with the norm or
# the activation beside it, instead of calling a library for the product.
COMPILER: dict[str, Any] = {"backend": "inductor", "options": {"coordinate_descent_tuning": True}}
MAX_PROGRAMS = 256  # of a process: one for each shape, settings of a model, and way to draw

T = TypeVar("T")


@dataclass
class CompileStats:
    """What compiling has cost; one object for all compiled steps of a model."""

    works: bool = True  # until the compiler has failed
    seconds: float = 0.0


class CompiledStep(Generic[T]):
    """Work on an object, compiled when it is first done; as it is written where that fails.

    To compile takes half a minute. What was compiled for another object is used again, if shapes
    and settings are the same. Sums are added up in another order, so last digits differ.
    """

    def __init__(self, work: Callable[[T], None], stats: CompileStats) -> None:
        """Adds the time that compiling takes, and whether it fails, to `stats`."""
        self.work, self.stats = work, stats
        self.compiled: Callable[[T], None] | None = torch.compile(
            work, fullgraph=True, dynamic=False, **COMPILER
        )
        self.is_first = True
        config = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, MAX_PROGRAMS)

    def __call__(self, subject: T) -> None:
        """Does the work once. Any call may compile: anew if the number of threads has changed."""
        if self.compiled is None:
            return self.work(subject)
        failures = torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit
        begun = time.perf_counter()
        try:
            self.compiled(subject)
            if self.is_first:  # compiles, or finds what was compiled for another
                self.stats.seconds += time.perf_counter() - begun
                self.is_first = False
        except failures as error:  # of a compiler, before anything is done; others are not repeated
            self.compiled, self.stats.works = None, False
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
            print(
                f"warning: torch.compile failed, sampling goes on without it: {reason}",
                file=sys.stderr,
            )
            self.work(subject)
