"""The speed limit of a device: its fastest matrix product."""

import time

import torch

from model.linear import linear
from utils import device


def matmul_peak(on: torch.device, amp: str) -> float:
    """Return the FLOP/s of the fastest square matrix product on a device, in training's dtype."""
    dtype = device.DTYPES.get(amp, torch.float32)
    best = 0.0
    for size in (512, 1024) if on.type == "cpu" else (4096, 8192):
        left = torch.randn(size, size, device=on, dtype=dtype)
        right = torch.randn(size, size, device=on, dtype=dtype)
        # Our `linear` may compute the product as a convolution, which is faster on some CPUs.
        for product in (torch.mm, lambda x, y: linear(x[None], y)) * 10:
            device.synchronize(on)
            start = time.perf_counter()
            product(left, right)
            device.synchronize(on)
            best = max(best, 2.0 * size**3 / (time.perf_counter() - start))
    return best
