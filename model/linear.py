"""Linear layers, computed as convolutions of width 1 on processors where that is faster.

On a CPU, PyTorch passes fp32 matrix products to MKL and convolutions to oneDNN. On AMD processors
MKL uses 256-bit instructions; oneDNN uses 512-bit instructions wherever they exist. Both
libraries add the same products, possibly in different orders.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.device import cpu_info

# With fewer multiplications, starting a convolution takes longer than it saves (AMD Zen 5).
MIN_MULTIPLICATIONS = 10_000_000


def convolution_is_faster() -> bool:
    """Return whether oneDNN uses instructions of this processor that MKL does not use."""
    libraries = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    amd = str(cpu_info("cpu_name")).startswith("AMD")
    return libraries and amd and bool(cpu_info("avx512_f"))


CONVOLUTION_IS_FASTER = convolution_is_faster()  # torch.compile cannot trace the queries


def linear(x_BTD: Tensor, weight_ND: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """Return what `torch.nn.functional.linear` returns: (..., N) for x (..., D), here (B, T, D).

    >>> linear(torch.ones(1, 1, 3), torch.ones(2, 3), torch.tensor([0.0, 1.0])).tolist()
    [[[3.0, 4.0]]]
    """
    if not use_conv(x_BTD, weight_ND):
        return F.linear(x_BTD, weight_ND, bias_N)
    # An image of height T and width 1 with D channels; nothing is copied.
    x_BDT1 = x_BTD[:, :, None].permute(0, 3, 1, 2)
    y_BNT1 = F.conv2d(x_BDT1, weight_ND[:, :, None, None], bias_N)
    return y_BNT1.permute(0, 2, 3, 1).squeeze(2)


def use_conv(x: Tensor, weight_ND: Tensor) -> bool:
    """Return whether `linear` uses a convolution.

    With one thread PyTorch passes it to MKL, so nothing is gained. While torch.compile traces, the
    number of threads is unknown and taken to be above one; if it is one, little is lost.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == weight_ND.dtype == torch.float32
        and x.ndim == 3
        and x.numel() * len(weight_ND) >= MIN_MULTIPLICATIONS
        and (torch.compiler.is_compiling() or torch.get_num_threads() > 1)
        and not torch.is_autocast_enabled("cpu")
        and CONVOLUTION_IS_FASTER
    )


class Linear(nn.Linear):
    """`torch.nn.Linear` computed by `linear`; the same parameters, names and initial values."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + b: (B, T, D) to (B, T, N)."""
        return linear(x, self.weight, self.bias)
