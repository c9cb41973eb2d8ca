"""Device, number format and threads: chosen once, printed, recorded."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from utils.errors import UserError
from utils.processes import peak_rss_bytes

AMP = ("auto", "off", "bf16", "fp16")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """`auto` is cuda, else mps, else cpu; any other name is taken as torch spells it.

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(
            1, device=device
        ).item()  # some devices, such as meta, exist but hold no numbers
    except (RuntimeError, AssertionError, ImportError):
        raise UserError(f"device {name}: not available on this machine (try auto or cpu)") from None
    return device


def pick_amp(name: str, device: torch.device) -> str:
    """The number format of matrix products: `off` (fp32), `bf16` or `fp16`.

    `auto` is bf16 on a GPU that computes in it, fp16 on an older one, and off elsewhere: most CPUs
    run bf16 far slower than fp32.
    """
    if name != "auto":
        return name
    if device.type != "cuda":
        return "off"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(device: torch.device, amp: str) -> Callable[[], AbstractContextManager[object]]:
    """A factory of contexts in which the model runs in the format `amp`."""
    if amp == "off":
        return contextlib.nullcontext
    return lambda: torch.autocast(device_type=device.type, dtype=DTYPES[amp])


def describe_device(device: torch.device) -> str:
    """The device with its name, for the log."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return str(device)


def synchronize(device: torch.device) -> None:
    """Waits until the device has finished what it was given; clocks are read after this."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held so far: of the GPU's allocator, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return peak_rss_bytes()


@functools.cache
def cpu_has(feature: str) -> bool:
    """Whether the processor has these instructions: avx512_bf16, ...; names of torch.cpu.

    >>> cpu_has("no such thing")
    False
    """
    return bool(torch.cpu.get_capabilities().get(feature, False))


def is_synchronous(device: torch.device) -> bool:
    """Whether reading a number off the device costs nothing; a GPU is behind and must catch up."""
    return device.type == "cpu"


def free_gpu_memory_bytes(device: torch.device) -> int:
    """Memory of a GPU that is free now; 0 elsewhere, where data need not be kept at hand."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def copy_to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device; a GPU copies it while this process goes on."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # from other memory the copy would be waited for
    return tensor.to(device, non_blocking=True)


def seed_all(seed: int, step: int, rank: int = 0) -> None:
    """Seeds torch's generators on every device from (seed, step), and the rank if not the first.

    The CPU's generator takes 32 bits, so the two are mixed by NumPy's SeedSequence.
    """
    numbers = [seed, step, rank] if rank else [seed, step]
    mixed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    # torch.manual_seed does the same, but notes a call stack for each kind of device it lacks.
    torch.default_generator.manual_seed(mixed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(mixed)
    elif torch.backends.mps.is_available():
        torch.mps.manual_seed(mixed)


def compile_or_eager(
    model: torch.nn.Module,
    context: Callable[[], AbstractContextManager[object]],
    *inputs: torch.Tensor,
    output_index: int | None = None,
) -> Callable[..., Any]:
    """The compiled model if a forward and a backward pass on `inputs` work, else the model itself.

    Both passes are tried, in the `context` of training (autocast), because each is compiled when it
    first runs. `output_index`: which of several outputs the backward pass starts from.
    """
    try:
        compiled = torch.compile(model)
        with context():
            outputs = compiled(*inputs) if output_index is None else compiled(*inputs)[output_index]
        outputs.float().mean().backward()
        return compiled
    except Exception as error:  # compilers fail in many ways, none of which should end a run
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        print(
            "warning: torch.compile failed, training goes on without it: "
            f"{type(error).__name__}: {first[:150]}",
            file=sys.stderr,
        )
        return model
    finally:
        model.zero_grad(set_to_none=True)
