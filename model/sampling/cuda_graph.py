"""CUDA graphs: the GPU replays a captured step as a whole. The host launches no single kernels."""

from collections.abc import Callable

import torch

from utils.output import log

WARMUP_CALLS = 2  # libraries initialise in their first calls, and that cannot be captured


class CudaGraphRunner:
    """Runs a function that reads and writes the same tensors in every call.

    The first calls run the function, the next one captures it, and from then on the captured graph
    is replayed. On a CPU, and where capturing fails, every call runs the function. The function is
    not stored: that would create a reference cycle and delay freeing GPU memory.
    """

    def __init__(self, device: torch.device) -> None:
        """Start without a graph, for functions that run on `device`."""
        self.can_capture = device.type == "cuda"
        self.reset()

    def reset(self) -> None:
        """Drop the graph; call this after a tensor of the function was replaced by another."""
        self.graph: torch.cuda.CUDAGraph | None = None
        self.n_calls = 0

    def __call__(self, function: Callable[[], None]) -> None:
        """Run the function once. It must be the same one in every call."""
        self.n_calls += 1
        if self.can_capture and self.n_calls == WARMUP_CALLS + 1:
            self._capture(function)
        if self.graph is not None:
            self.graph.replay()
        else:
            function()

    def _capture(self, function: Callable[[], None]) -> None:
        """Capture the function without executing it."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                function()
            self.graph = graph
        except RuntimeError as error:
            self.can_capture = False
            reason = str(error).partition("\n")[0]
            log(f"warning: no CUDA graph, sampling is slower: {reason}")
