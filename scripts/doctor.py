"""Check this machine: `python -m scripts.doctor [--folder runs]`.

Print a line for each check, `ok` or what to do, and one JSON object. The exit status is 1 if there
is something to do. Files are written to the folder of runs, and removed.
"""

import os
import sys

if __name__ == "__main__":  # before the slow imports
    sys.path.insert(0, os.path.realpath(f"{__file__}/../.."))  # for `python scripts/doctor.py`
    from utils.signals import before_slow_imports

    before_slow_imports()

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock, Timeout

import train
from model.flops import mib
from model.gpt import TinyGPT
from model.training.loss import ModelWithLoss
from model.training.optim import make_optimizer, set_step
from model.training.preflight import compare_with_cpu, estimate, extra_cpu_bytes
from scripts.constraints import problem_of
from scripts.matmul_peak import matmul_peak
from utils import device
from utils.cli import Parser
from utils.errors import one_line, plural, run_cli
from utils.output import json_line
from utils.processes import available_cores, free_memory
from utils.run.environment import environment

ROWS, LENGTH = 8, 165  # of a batch of configs/tiny.yaml, on average
TIMED_STEPS = 3  # for each number of threads
SLOWER = 1.15  # a number of threads that is this much slower than the fastest is worth a line
MIN_DISK_BYTES = 2 * 10**9  # the virtual environment needs about as much; a run takes 100 MB
LIBRARY_BYTES = 350 * 2**20  # of memory: Python, torch and its libraries


@dataclass(frozen=True)
class Check:
    """The result of a check: what was found, and what to do about it (empty: nothing)."""

    name: str
    found: str
    fix: str = ""


def check_versions() -> Iterator[Check]:
    """Compare torch with the oldest version that works, and name the tested one."""
    facts = environment()
    found = f"llm-tiny {facts['version']}, Python {facts['python']}, torch {facts['torch']}"
    constraints = Path(train.__file__).parent / "constraints.txt"
    lines = constraints.read_text(encoding="utf-8").split()
    (tested,) = [line.removeprefix("torch==") for line in lines if line.startswith("torch==")]
    if facts["torch"].split("+")[0] != tested:
        found += f" (the last digits may differ from the documented ones, of torch {tested})"
    fix = problem_of(facts["torch"])
    yield Check("versions", f"{found}, numpy {facts['numpy']}, {facts['platform']}", fix)


def check_threads() -> Iterator[Check]:
    """Measure a training step of the default config with several numbers of threads."""
    cores, chosen = available_cores(), torch.get_num_threads()
    machine = os.cpu_count() or cores
    quota = f" of {machine}, by affinity or a container's quota" if cores < machine else ""
    instructions = torch.backends.cpu.get_cpu_capability()  # such as AVX2, DEFAULT
    yield Check("cores", f"{plural(cores, 'core')}{quota}; torch uses {instructions}")
    seconds = {}
    for count in sorted({1, max(1, cores // 2), cores, chosen}):
        torch.set_num_threads(count)
        seconds[count] = step_seconds()
    torch.set_num_threads(chosen)
    fastest = min(seconds, key=lambda count: seconds[count])
    found = ", ".join(f"{n}: {1000 * s:.0f} ms" for n, s in seconds.items())
    slower = seconds[chosen] > SLOWER * seconds[fastest]
    fix = f"train with --train.num_threads {fastest}, or stop other programs" if slower else ""
    minutes = seconds[chosen] * default_config().train.max_steps / 60
    found += f"; make train on the CPU, without evaluations: {minutes:.1f} minutes"
    yield Check("threads", f"{chosen} in use; a step by number of threads: {found}", fix)


def default_config() -> train.Config:
    """Return the config of `make train`."""
    return train.parse(["--config", str(Path(train.__file__).parent / train.DEFAULT_CONFIG)])[0]


def step_seconds() -> float:
    """Return the seconds of the fastest of a few training steps of the default config."""
    config = default_config()
    torch.manual_seed(0)
    model = TinyGPT(config.model)
    optimizer, loss = make_optimizer(model, config.optim), ModelWithLoss(model)
    ids_BT = torch.randint(config.model.vocab_size, (ROWS, LENGTH))
    best = float("inf")
    for step in range(1 + TIMED_STEPS):
        start = time.perf_counter()
        set_step(optimizer, config.optim, step, config.train.max_steps)
        optimizer.zero_grad(set_to_none=True)
        (loss(ids_BT, ids_BT) / ids_BT.numel()).backward()
        optimizer.step()
        best = min(best, time.perf_counter() - start)
    return best


def check_memory() -> Iterator[Check]:
    """Compare the free memory with what the default config needs."""
    memory = estimate(default_config())
    needed = memory.total + extra_cpu_bytes(memory) + LIBRARY_BYTES
    free = free_memory()
    fix = "" if free > needed else "close other programs, or set a lower train.batch_size"
    yield Check("memory", f"{mib(free)} free; configs/tiny.yaml takes {mib(needed)}", fix)


def check_folder(folder: Path) -> Iterator[Check]:
    """Check space, locks and durable writes of the folder of runs."""
    free = shutil.disk_usage(folder).free
    fix = "" if free > MIN_DISK_BYTES else f"free {mib(MIN_DISK_BYTES - free)}, or use another disk"
    yield Check("disk", f"{mib(free)} free in {folder}", fix)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as scratch:
        yield Check("locks", f"in {folder}", lock_problem(Path(scratch) / "lock"))
        fix = ""
        try:
            handle = os.open(scratch, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        except OSError as error:
            fix = f"a folder can't be synced ({error.strerror}): power loss may lose a checkpoint; "
            fix += "put --run_dir on a local disk"
        yield Check("fsync", f"in {folder}", fix if os.name != "nt" else "")


def lock_problem(path: Path) -> str:
    """Return what to do if a file can't be locked; "" if a second lock waits, as it must."""
    fix = "put --run_dir on a local disk, or start one process per run"
    try:
        with FileLock(path), contextlib.suppress(Timeout):
            FileLock(path, timeout=0).acquire()
            return f"a lock does not keep others out; {fix}"
    except OSError as error:
        return f"there are no locks ({error.strerror}); {fix}"
    return ""


def devices() -> dict[str, torch.device]:
    """Return the devices of this machine by name."""
    gpus = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return {name: torch.device(name) for name in ("cpu", *gpus) if gpus.get(name, True)}


def check_numbers() -> Iterator[Check]:
    """Compare every device and number format with float64 on the CPU."""
    config = default_config().model
    torch.manual_seed(0)
    model = TinyGPT(config)
    for weight in model.parameters():  # some are initialised to 0, which would hide errors
        torch.nn.init.normal_(weight, std=0.05)
    ids_BT = torch.randint(config.vocab_size, (2, 128))
    for name, on in devices().items():
        moved = model.to(on)
        without = "train with --train.device cpu" if name != "cpu" else "reinstall torch"
        for amp in ("off", "bf16") if name == "cpu" else ("off", "bf16", "fp16"):
            scale = 2.0**12 if amp == "fp16" else 1.0
            batch = (ids_BT.to(on), ids_BT.roll(-1, 1).to(on))
            fix = without if amp == "off" else "train with --train.amp off"
            try:
                found = compare_with_cpu(
                    ModelWithLoss(moved),
                    moved,
                    batch,
                    device.autocast(on, amp),
                    scale=partial(torch.mul, other=torch.tensor(scale)),
                    dtype=torch.float64,
                )
                detail = f"loss {found.loss_error:.1e} from float64, cosine {found.cosine:.6f}"
                fix = "" if found.is_close else fix
            except RuntimeError as error:  # such as a GPU without kernels for this format
                detail = one_line(error)[:100]
            yield Check(f"{name} {amp}", detail, fix)
            if amp == "off" and not fix:
                flops = matmul_peak(on, amp)
                yield Check(f"{name} peak", f"{flops / 1e9:,.0f} GFLOP/s in fp32 matrix products")


def main(argv: Sequence[str] | None = None) -> int:
    """Run all checks; return 1 if there is something to do."""
    examples = ("python -m scripts.doctor",)
    parser = Parser(prog="scripts.doctor", description=__doc__, examples=examples)
    parser.add_argument("--folder", default="runs", help="folder of runs (default: %(default)s)")
    folder = Path(parser.parse_args(argv).folder)
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    device.limit_threads()
    checks: list[Check] = []
    groups: list[Callable[[], Iterator[Check]]] = [check_versions, check_threads, check_memory]
    try:
        for group in [*groups, lambda: check_folder(folder), check_numbers]:
            for check in group():
                checks.append(check)
                print(f"{check.name:<9} {'ok' if not check.fix else 'TO DO'}: {check.found}")
                if check.fix:
                    print(f"{'':<9} -> {check.fix}")
    finally:
        if new:
            folder.rmdir()
    problems = sum(bool(check.fix) for check in checks)
    print(json_line({"problems": problems, "checks": [asdict(check) for check in checks]}))
    return 1 if problems else 0


if __name__ == "__main__":
    run_cli(main)
