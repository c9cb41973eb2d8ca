"""torch.compile for a whole sampling step: fused operations read and write memory less often."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from utils.output import log

# With this option PyTorch generates its own kernel for a matrix times a single row, fused with the
# neighbouring norm or activation, instead of calling a library.
COMPILER: dict[str, Any] = {"backend": "inductor", "options": {"coordinate_descent_tuning": True}}
MAX_PROGRAMS = 256  # per process: one for each combination of shapes, model and sampling settings


@dataclass
class CompileStats:
    """What compiling has cost so far. All compiled steps of a model share one object."""

    works: bool = True  # False once the compiler has failed
    seconds: float = 0.0


class CompiledStep:
    """A function of one object, compiled at its first call; run uncompiled if compiling fails.

    Compiling takes about half a minute. Another object of the same shapes and settings reuses the
    program. Compiled code adds in another order, so the last digits differ.
    """

    def __init__(self, function: Callable[[Any], None], stats: CompileStats) -> None:
        """Store the function; its compile time and failures are recorded in `stats`."""
        self.function, self.stats = function, stats
        self.compiled: Callable[[Any], None] | None = torch.compile(
            function, fullgraph=True, dynamic=False, **COMPILER
        )
        self.is_first = True
        config = torch._dynamo.config
        # An alias of recompile_limit, the only name in torch 2.6.
        config.cache_size_limit = max(config.cache_size_limit, MAX_PROGRAMS)

    def __call__(self, state: Any) -> None:
        """Call the function once. Any call may compile again, as after a change of thread count."""
        if self.compiled is None:
            return self.function(state)
        failures = torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit
        started = time.perf_counter()
        try:
            self.compiled(state)
            if self.is_first:  # compiles, or finds the program of another object
                self.stats.seconds += time.perf_counter() - started
                self.is_first = False
        # Raised by the compiler before anything ran. Other errors are not caught: running the
        # function again would change the state twice.
        except failures as error:
            self.compiled, self.stats.works = None, False
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
            log(f"warning: torch.compile failed, sampling continues without it: {reason}")
            self.function(state)
