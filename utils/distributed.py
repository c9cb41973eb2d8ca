"""Data-parallel training: several processes that train one model, started by torchrun.

Every process holds the same weights and computes the gradients of its share of each batch. An
all-reduce sums the gradients, so all processes take the same step. Only the main process (rank 0)
prints and writes. Only this file opens connections between the processes. It sends numbers, never
pickled objects.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as torch_dist
from torch import Tensor

from utils.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError, one_line
from utils.processes import available_cores

# Ranks wait at most this long for one another, for example while the main process saves. Then they
# stop with an error.
TIMEOUT = timedelta(minutes=10)
POLL_S = 0.05  # seconds between two looks into the store
PARENT_POLL_S = 0.5  # seconds between two looks whether torchrun still runs
# When one rank exits, torchrun soon kills the rest. So ranks that fail silently wait this long
# (seconds) before they exit: the rank that reports the error needs the time to print.
GRACE_S = 1.0
RELEASE_S = 0.1  # seconds in which gloo's threads free the tensors of finished operations
STOP = "stop"  # key in the store: a rank has received a signal
REPORTER = "error_reporter"  # key in the store; its value is the rank that prints the error


@dataclass(frozen=True)
class Distributed:
    """One process's view of all processes. With one process, every method returns immediately.

    Attributes:
        rank: the number of this process, from 0.
        size: the number of processes, called world size in PyTorch.
        local_rank, local_size: number and count of the processes on this machine only.
        store: key-value store shared by all processes, see torch.distributed.Store; None with one
            process.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    store: torch_dist.Store | None = None

    @property
    def is_main(self) -> bool:
        """True for the process that prints and writes: rank 0."""
        return self.rank == 0

    def local_rows(self, n_rows: int) -> slice:
        """Return this rank's share of a batch of `n_rows` rows.

        >>> Distributed(rank=1, size=2).local_rows(8)
        slice(4, 8, None)

        Raises:
            UserError: the rows cannot be shared evenly.
        """
        each, rest = divmod(n_rows, self.size)
        if rest:
            raise UserError(
                f"train.batch_size x train.grad_accum_steps is {n_rows} rows a step, which "
                f"{self.size} ranks can't share evenly; set a train.batch_size that is a multiple "
                f"of {self.size}, or start another number of ranks"
            )
        return slice(self.rank * each, (self.rank + 1) * each)

    def describe(self, n_rows: int) -> str:
        """Return a line for the user about the shares of a step's rows.

        >>> Distributed(size=2).describe(8)
        '2 ranks, each takes 4 of the 8 rows of a step'
        """
        rows = self.local_rows(n_rows)
        each = rows.stop - rows.start
        return f"{self.size} ranks, each takes {each} of the {n_rows} rows of a step"

    def device_name(self, name: str) -> str:
        """Return the device of this rank for `name`, the value of `train.device`.

        Each of several ranks has its own GPU, which becomes the current device of PyTorch.

        Raises:
            UserError: there are too few GPUs, or ranks cannot use this kind of device.
        """
        if self.size == 1:
            return name
        kind = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
        if kind not in ("cpu", "cuda"):
            raise UserError(
                f"train.device {name}: several ranks can't share one device; "
                "set --train.device cuda, cpu or auto"
            )
        if kind == "cpu":
            return kind
        if self.local_size > (found := torch.cuda.device_count()):
            raise UserError(
                f"train.device {name}: {self.local_size} ranks on a machine with {found} GPUs; "
                "start as many as there are GPUs, or set --train.device cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return f"cuda:{self.local_rank}"

    def threads(self) -> int:
        """Return the number of CPU threads of this rank, or 0 for PyTorch's default."""
        if self.size == 1:
            return 0
        return max(1, available_cores() // self.local_size)

    def all_reduce_gradients(self, weights: Sequence[Tensor], nats: Tensor) -> Tensor:
        """Replace every gradient by its sum over all ranks; return the sum of the scalar `nats`.

        There is one all-reduce per step, after all micro-batches. DistributedDataParallel (DDP)
        overlaps the all-reduce with the backward pass, which saves at most the all-reduce's time.
        But DDP averages instead of summing, reduces after each micro-batch unless `no_sync` is
        used, and wraps the model, which checkpoints and torch.compile would have to unwrap.
        """
        if self.size == 1:
            return nats
        trained = [weight for weight in weights if weight.grad is not None]
        gradients = [cast(Tensor, weight.grad) for weight in trained]
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), nats.reshape(1)])
        self._all_reduce(flat)
        *sums, nats = flat.split([*(weight.numel() for weight in trained), 1])
        for weight, gradient in zip(trained, sums, strict=True):
            weight.grad = gradient.view_as(weight)
        return nats.squeeze(0).clone()  # a view would keep all of `flat` alive

    def all_reduce_sum(self, numbers: Sequence[float]) -> list[float]:
        """Return the sum of each number over all ranks, in float64, which is exact for counts."""
        if self.size == 1:
            return list(numbers)
        sums = torch.tensor(numbers, dtype=torch.float64)
        self._all_reduce(sums)
        return sums.tolist()

    def all_reduce_max(self, *numbers: int) -> list[int]:
        """Return the maximum of each number over all ranks."""
        if self.size == 1:
            return list(numbers)
        maxima = torch.tensor(numbers)
        self._all_reduce(maxima, op=torch_dist.ReduceOp.MAX)
        return maxima.tolist()

    def stop_requested(self, here: bool) -> bool:
        """Return whether this rank or another wants to stop, without waiting for the others.

        Args:
            here: whether this rank wants to stop.
        """
        if self.store is None:
            return here
        with contextlib.suppress(RuntimeError):  # torchrun, which holds the store, was killed
            if here:
                self.store.set(STOP, "requested")
            return here or self.store.check([STOP])
        return True

    def barrier(self) -> None:
        """Wait until all ranks have reached this call."""
        self.all_reduce_max(0)

    def check_weights_in_sync(self, weights: Sequence[Tensor]) -> None:
        """Check, by a sum of the bits, that the weights of all ranks are equal.

        All ranks start equal and take the same steps, but different CPUs or GPUs may round
        differently.

        Raises:
            UserError: the weights differ.
        """
        if self.size == 1:
            return
        bits = torch.stack([w.detach().view(torch.int32).sum() for w in weights])
        total = int(bits.sum())
        if sum(self.all_reduce_max(total, -total)) != 0:  # the largest sum minus the smallest
            raise UserError(
                "the weights of the ranks differ; this checkpoint is not saved, the earlier ones "
                "are intact; run all ranks on the same kind of processor"
            )

    @contextlib.contextmanager
    def main_process_first(self, name: str) -> Iterator[None]:
        """Run the block in the main process first, then in the other ranks.

        Args:
            name: a key for this block; no other block of the program uses it.
        """
        if self.store is not None and not self.is_main:
            with self._user_error_if_rank_lost():
                while not self.store.check([name]):
                    if self.store.check([REPORTER]):  # a rank has failed, and prints its error
                        raise SystemExit(EXIT_USER_ERROR)
                    time.sleep(POLL_S)
        yield
        if self.store is not None and self.is_main:
            self.store.set(name, "done")

    def claim_error_report(self) -> bool:
        """Return whether this rank is the first to call this. Only that rank prints the error."""
        assert self.store is not None
        try:  # "": set the key only if it does not exist; the result is its value
            return self.store.compare_set(REPORTER, "", str(self.rank)) == str(self.rank).encode()
        except RuntimeError:  # the process that holds the store has ended, perhaps silently
            return True

    def _all_reduce(self, tensor: Tensor, **options: Any) -> None:
        with self._user_error_if_rank_lost():
            torch_dist.all_reduce(tensor, **options)

    @contextlib.contextmanager
    def _user_error_if_rank_lost(self) -> Iterator[None]:
        """Turn the error of a collective operation that has lost a rank into a UserError."""
        try:
            yield
        except RuntimeError as error:
            reason = one_line(error).rpartition("] ")[2][:80]  # after the location in C++ code
            raise UserError(
                f"rank {self.rank} of {self.size} has lost another rank, which was killed or is "
                f"stuck ({reason}); continue with --resume"
            ) from None


SINGLE_PROCESS = Distributed()


@contextlib.contextmanager
def init_distributed() -> Iterator[Distributed]:
    """Connect all ranks for the duration of the block; without torchrun, yield SINGLE_PROCESS.

    Within the block only the main process prints. If the block raises, the first rank to notice
    reports the error, and the others exit silently.

    Raises:
        UserError: the environment names several ranks, but not the rank of this process.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield SINGLE_PROCESS
        return
    dist = connect()
    try:
        with contextlib.ExitStack() as stack:
            if not dist.is_main:
                devnull = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(contextlib.redirect_stdout(devnull))
                stack.enter_context(contextlib.redirect_stderr(devnull))
            yield dist
            # A rank may return a nonzero status, as after Ctrl-C. When it exits, torchrun kills the
            # others, so each rank waits here until all are done.
            dist.barrier()
        # Up to PyTorch 2.7 the group's destructor holds the GIL while it joins gloo's threads. One
        # that still has to free a tensor may need the GIL: a deadlock (pytorch/pytorch#154976).
        time.sleep(RELEASE_S)
        torch_dist.destroy_process_group()
    except (Exception, KeyboardInterrupt) as error:
        if dist.claim_error_report():
            raise  # to run_cli, which can print on any rank: stderr is restored by now
        time.sleep(GRACE_S)
        interrupted = isinstance(error, KeyboardInterrupt)
        raise SystemExit(EXIT_INTERRUPTED if interrupted else EXIT_USER_ERROR) from None


def connect() -> Distributed:
    """Connect to the other ranks that torchrun's environment variables name.

    Raises:
        UserError: the environment is incomplete, or the ranks cannot be reached.
    """
    hint = "start several ranks with torchrun, or unset WORLD_SIZE"
    if not torch_dist.is_available():
        raise UserError(f"this PyTorch is built without torch.distributed; {hint}")
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in names if not os.environ.get(name)]:
        raise UserError(f"WORLD_SIZE is set, but {missing[0]} is not; {hint}")
    try:
        numbers = [int(os.environ[name]) for name in names[:4]]  # RANK to LOCAL_WORLD_SIZE
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store, *_ = next(torch_dist.rendezvous("env://", timeout=TIMEOUT))
        dist = Distributed(numbers[0], numbers[1], numbers[2], numbers[3], store)
        torch_dist.init_process_group(
            backend, store=store, rank=dist.rank, world_size=dist.size, timeout=TIMEOUT
        )
    except (ValueError, RuntimeError) as error:
        reason = one_line(error)[:200]
        raise UserError(f"the ranks can't reach each other: {reason}; {hint}") from None
    threading.Thread(target=_stop_with_parent, args=(os.getppid(),), daemon=True).start()
    return dist


def _stop_with_parent(parent: int) -> None:
    """Stop this rank, as SIGTERM does, when the process that started it (torchrun) was killed."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
