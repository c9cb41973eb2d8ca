"""Several ranks in separate processes: a replacement for torchrun that starts ten times faster."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from torch.distributed import TCPStore

from tests.helpers.runs import Child, forkserver
from utils.distributed import Distributed, init_distributed

STORES: list[TCPStore] = []  # keeps the stores open, as torchrun's outlives its ranks


def environments(size: int) -> list[dict[str, str]]:
    """The environment variables that torchrun sets for each rank."""
    STORES.append(TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
    shared = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(STORES[-1].port)}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


def start(
    argv: list[str], log: Path, size: int = 2, hang: tuple[str, int] | None = None
) -> list[Child]:
    """Start train.py in each rank; all hang at `hang`, see Child. The logs are log0, log1, ..."""
    return [
        Child(argv, Path(f"{log}{rank}"), hang, environment=environment)
        for rank, environment in enumerate(environments(size))
    ]


def statuses(children: list[Child]) -> list[int | None]:
    """Wait for all ranks; return their exit statuses."""
    return [child.join() for child in children]


def errors(children: list[Child]) -> list[str]:
    """The lines of all ranks that report an error."""
    lines = [line for child in children for line in child.errors().splitlines()]
    assert not [line for line in lines if "Traceback" in line], lines
    return [line for line in lines if line.startswith("error:")]


def in_ranks(function: Callable[[Distributed], None], folder: Path, size: int = 2) -> None:
    """Call a function of a test file in every rank; on failure show the output of the ranks."""
    context = forkserver()
    logs = [folder / f"rank{rank}" for rank in range(size)]
    processes = [
        context.Process(target=call, args=(function, str(log), environment), daemon=True)
        for log, environment in zip(logs, environments(size))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    output = "".join(log.read_text(encoding="utf-8") for log in logs)
    assert [process.exitcode for process in processes] == [0] * size, output


def call(function: Callable[[Distributed], None], log: str, environment: dict[str, str]) -> None:
    """Run a function in this process as one of the ranks, with stderr in a file."""
    sys.stderr = open(log, "w", encoding="utf-8", buffering=1)
    os.environ.update(environment)
    with init_distributed() as dist:
        function(dist)
