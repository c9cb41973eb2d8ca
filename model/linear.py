"""x W^T + b for many rows: by a convolution of width 1, on processors where that is faster.

On a CPU PyTorch gives products of fp32 matrices to MKL and convolutions to oneDNN. MKL gives AMD's
processors instructions on 256 bits at a time, oneDNN those on 512 bits to all that have them. The
numbers added up are the same, their order may differ.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.device import cpu_has

# Multiplications: with fewer, a convolution takes longer to start than it saves (measured, Zen 5).
MANY = 10_000_000


@lru_cache(maxsize=1)
def convolution_is_faster() -> bool:
    """Whether oneDNN has instructions for this processor that MKL leaves out."""
    libraries = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    amd = torch.cpu.get_capabilities().get("cpu_name", "").startswith("AMD")
    return libraries and amd and cpu_has("avx512_f")


@torch.compiler.assume_constant_result  # torch.compile can't trace what is asked
def _convolution_is_faster() -> bool:
    return convolution_is_faster()


def linear(x_BTD: Tensor, weight_ND: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """As `torch.nn.functional.linear`: (B, T, D) to (B, T, N); other shapes than (B, T, D) too.

    >>> linear(torch.ones(1, 1, 3), torch.ones(2, 3), torch.tensor([0.0, 1.0])).tolist()
    [[[3.0, 4.0]]]
    """
    if not pays(x_BTD, weight_ND):
        return F.linear(x_BTD, weight_ND, bias_N)
    # An image T high and 1 wide, whose channels are the D numbers; nothing is copied.
    x_BDT1 = x_BTD[:, :, None].permute(0, 3, 1, 2)
    y_BNT1 = F.conv2d(x_BDT1, weight_ND[:, :, None, None], bias_N)
    return y_BNT1.permute(0, 2, 3, 1).squeeze(2)


def pays(x: Tensor, weight_ND: Tensor) -> bool:
    """Whether `linear` is to convolve.

    With one thread PyTorch gives such a convolution to MKL. torch.compile can't ask for the number,
    and loses little there.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == weight_ND.dtype == torch.float32
        and x.ndim == 3
        and x.numel() * len(weight_ND) >= MANY
        and (torch.compiler.is_compiling() or torch.get_num_threads() > 1)
        and not torch.is_autocast_enabled("cpu")
        and _convolution_is_faster()
    )


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`: the same parameters, names and first values."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, N)."""
        return linear(x, self.weight, self.bias)
