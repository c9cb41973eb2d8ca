"""The device to compute on: selection, number format, memory, random seeds, torch.compile."""

import contextlib
import functools
import getpass
import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import psutil
import torch

from utils.errors import UserError, plural
from utils.output import log
from utils.processes import available_cores, keep_freed_memory, peak_rss_bytes

COMPILER_CACHE = "TORCHINDUCTOR_CACHE_DIR"  # environment variable, read by torch
_temporary_folders: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends

AMP = ("auto", "off", "bf16", "fp16")  # values of train.amp, see `pick_amp`
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def set_up(name: str, threads: int) -> torch.device:
    """Set the number of CPU threads, let malloc keep freed memory, return the device to train on.

    Args:
        name: as for `pick_device`.
        threads: 0 = as many as the process may use.
    """
    if threads:
        torch.set_num_threads(threads)
    else:
        limit_threads()
    keep_freed_memory()
    return pick_device(name)


def pick_device(name: str) -> torch.device:
    """Return the device that `name` means: `auto` is cuda, else mps, else cpu.

    Args:
        name: auto, or a device string of PyTorch such as cuda:1.

    Raises:
        UserError: this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # fails on devices without data, such as meta
    except (RuntimeError, AssertionError, ImportError):
        raise UserError(f"device {name}: not available on this machine (try auto or cpu)") from None
    return device


def use_huge_pages() -> None:
    """Let PyTorch allocate in huge pages on Linux: a CPU reads a large model's weights faster.

    PyTorch reads this variable at its first allocation. If it is set, that is the user's decision.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def limit_threads() -> None:
    """Make torch use no more threads than this process may use cores.

    torch does not count the CPU quota of a container. With more threads than the quota allows, all
    of them are stopped again and again. OMP_NUM_THREADS, if it is set, is the user's decision.
    """
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > available_cores():
        torch.set_num_threads(available_cores())


def check_compiler_cache() -> None:
    """Let torch's compiler use a temporary folder if its cache folder can't be written.

    Call it before torch._dynamo is imported, which makes the folder, even if nothing is compiled.
    """
    try:
        user = getpass.getuser()
    except (KeyError, ImportError, OSError):  # a container's user without a name
        user = f"uid_{getattr(os, 'getuid', os.getpid)()}"  # Windows has no getuid
    default = os.path.join(tempfile.gettempdir(), f"torchinductor_{user}")
    folder = os.environ.get(COMPILER_CACHE, default)  # may be empty: the current folder
    with contextlib.suppress(OSError):
        os.makedirs(folder or ".", exist_ok=True)
        if os.access(folder or ".", os.W_OK | os.X_OK):
            return
    log(f"warning: {COMPILER_CACHE} {folder}: can't be written; compiled programs are not kept")
    _temporary_folders.append(tempfile.TemporaryDirectory(prefix="torchinductor_"))
    os.environ[COMPILER_CACHE] = _temporary_folders[-1].name


def pick_amp(name: str, device: torch.device) -> str:
    """Return the number format of matrix products: `off` (fp32), `bf16` or `fp16`.

    `auto` is bf16 on a GPU that supports it and fp16 on an older one. On other devices it is off:
    most CPUs are far slower in bf16 than in fp32.
    """
    if name != "auto":
        return name
    if device.type != "cuda":
        return "off"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(device: torch.device, amp: str) -> Callable[[], AbstractContextManager[object]]:
    """Return a function that makes the context in which the model runs in the format `amp`."""
    if amp == "off":
        return contextlib.nullcontext
    return lambda: torch.autocast(device_type=device.type, dtype=DTYPES[amp])


def describe_device(device: torch.device) -> str:
    """Return the device with its name, for the log."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({plural(torch.get_num_threads(), 'thread')})"
    return str(device)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work. Call it before reading a clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak memory so far, in bytes: of the GPU's allocator, else of this process.

    On mps, which records no peak, it is the memory that the driver holds now.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    # peak_wset: on Windows
    return peak_rss_bytes() or getattr(psutil.Process().memory_info(), "peak_wset", 0)


@functools.cache
def cpu_info(key: str) -> Any:
    """Return a fact about the CPU: its cpu_name, or whether it has, for example, avx512_bf16.

    The keys are those of `torch.cpu.get_capabilities`. None: unknown, as with an older torch.

    >>> cpu_info("no such thing")
    """
    facts: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return facts.get(key)


def is_synchronous(device: torch.device) -> bool:
    """Return whether results are ready when a call returns, as on a CPU.

    A GPU works asynchronously: reading a number from it waits for all work queued before.
    """
    return device.type == "cpu"


def free_gpu_memory_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU in bytes, or 0 for other devices."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def copy_to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the tensor on the device. If it is elsewhere, copy it; to a GPU asynchronously."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # a copy from pageable memory would be synchronous
    return tensor.to(device, non_blocking=True)


def seed_all(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's generators on every device from (seed, step), and from the rank unless it is 0.

    NumPy's SeedSequence mixes these numbers into the 32 bits that seed the generators.
    """
    numbers = [seed, step, rank] if rank else [seed, step]
    mixed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    # torch.manual_seed seeds the same generators, but each call stores a call stack for each kind
    # of device that is missing.
    torch.default_generator.manual_seed(mixed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(mixed)
    elif torch.backends.mps.is_available():
        torch.mps.manual_seed(mixed)


def compile_or_eager(
    model: torch.nn.Module,
    context: Callable[[], AbstractContextManager[object]],
    *inputs: torch.Tensor,
) -> Callable[..., Any]:
    """Return the compiled model if forward and backward pass work on `inputs`, else the model.

    Both passes run once here, because torch.compile compiles each of them on its first run.

    Args:
        context: makes the context of the forward pass (autocast).
        inputs: of the model, whose only or last output is the loss.
    """
    try:
        compiled = torch.compile(model)
        with context():
            outputs = compiled(*inputs)
        loss = outputs[-1] if isinstance(outputs, tuple) else outputs
        loss.float().mean().backward()
        return compiled
    except Exception as error:  # compilers fail in many ways; none of them should end a run
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        log(
            "warning: torch.compile failed, training continues without it: "
            f"{type(error).__name__}: {first[:150]}"
        )
        return model
    finally:
        model.zero_grad(set_to_none=True)
