"""CUDA graphs: a GPU plays a recorded piece of work at once, the host need not launch each part."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

CALLS_BEFORE = 2  # libraries set themselves up in their first calls, which can't be recorded


class CudaGraphRunner:
    """A piece of work that reads and writes the same tensors each time, whatever it is given there.

    The first calls do the work as it is written, the next one records it and plays the record, as
    do all after it. On a CPU, and where recording fails, every call does the work as written. The
    work is not kept: it would be that of an object that keeps this one, which frees both late.
    """

    def __init__(self, device: torch.device) -> None:
        """For work on a device."""
        self.can_record = device.type == "cuda"
        self.forget()

    def forget(self) -> None:
        """Begins anew: one of the tensors has been replaced by another."""
        self.graph: torch.cuda.CUDAGraph | None = None
        self.n_calls = 0

    def __call__(self, work: Callable[[], None]) -> None:
        """Does the work once, the same in every call."""
        self.n_calls += 1
        if self.can_record and self.n_calls == CALLS_BEFORE + 1:
            self._record(work)
        if self.graph is not None:
            self.graph.replay()
        else:
            work()

    def _record(self, work: Callable[[], None]) -> None:
        """Records, which does nothing of the work itself."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                work()
        except RuntimeError as error:
            self.can_record = False
            reason = str(error).partition("\n")[0]
            print(f"warning: no CUDA graph, sampling is slower: {reason}", file=sys.stderr)
        else:
            self.graph = graph
