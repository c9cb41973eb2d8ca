"""Data-parallel training: several processes that train one model, started by torchrun.

Every process holds the same weights and computes the gradients of its share of each batch. An
all-reduce sums the gradients, so all processes take the same step. Only the main process (rank 0)
prints and writes. This file is the only one of the product that opens connections between ranks.
Only numbers are sent, never pickled objects.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as torch_dist
from torch import Tensor

from utils.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError, one_line
from utils.processes import available_cores

# The main process samples and saves while the others wait; a rank silent for longer is stuck.
TIMEOUT = timedelta(minutes=10)
POLL_S = 0.05
GRACE_S = 1.0  # torchrun ends all ranks soon after the first, and one of them still has to print
REPORTER = "told"  # key in the store: the rank that prints why all stop


@dataclass(frozen=True)
class Distributed:
    """One process's view of all processes. With one process, every method returns immediately.

    Attributes:
        rank: the number of this process, from 0.
        size: the number of processes.
        local_rank, local_size: the same, on this machine alone.
        store: key-value store shared by all processes, see torch.distributed.Store.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    store: torch_dist.Store | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def local_rows(self, n_rows: int) -> slice:
        """Return this rank's share of a batch of `n_rows` rows.

        >>> Distributed(rank=1, size=2).local_rows(8)
        slice(4, 8, None)

        Raises:
            UserError: the rows cannot be shared evenly.
        """
        each, left = divmod(n_rows, self.size)
        if left:
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
        """Return the device that `train.device` means for this rank; each has its own GPU.

        Raises:
            UserError: there are too few GPUs, or ranks cannot use this kind of device.
        """
        if self.size == 1:
            return name
        kind = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
        if kind not in ("cpu", "cuda"):
            raise UserError(
                f"train.device {name}: each of several ranks takes its own; "
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
        """Return the number of CPU threads for this rank; 0 = one process, PyTorch's default."""
        if self.size == 1:
            return 0
        return max(1, available_cores() // self.local_size)

    def all_reduce_gradients(self, weights: Sequence[Tensor], nats: Tensor) -> Tensor:
        """Replace every gradient by its sum over all ranks; return the sum of the scalar `nats`.

        There is one all-reduce per step, after all micro-batches. DistributedDataParallel overlaps
        it with the backward pass, which saves at most its duration. But it averages instead of
        summing, reduces after each micro-batch unless told not to, and wraps the model, which
        checkpoints and torch.compile would have to unwrap.
        """
        if self.size == 1:
            return nats
        trained = [weight for weight in weights if weight.grad is not None]
        gradients = [weight.grad for weight in trained if weight.grad is not None]
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), nats.reshape(1)])
        with self._lost_rank_is_an_error():
            torch_dist.all_reduce(flat)
        *pieces, nats = flat.split([*(weight.numel() for weight in trained), 1])
        for weight, piece in zip(trained, pieces, strict=True):
            weight.grad = piece.view_as(weight)
        return nats.squeeze(0).clone()  # a view would keep all of `flat` alive

    def all_reduce_sum(self, numbers: Sequence[float]) -> list[float]:
        """Return the sum of each number over all ranks, in float64: exact for counts."""
        if self.size == 1:
            return list(numbers)
        sums = torch.tensor(numbers, dtype=torch.float64)
        with self._lost_rank_is_an_error():
            torch_dist.all_reduce(sums)
        return sums.tolist()

    def all_reduce_max(self, *numbers: int) -> list[int]:
        """Return the maximum of each number over all ranks; waits for all of them."""
        if self.size == 1:
            return list(numbers)
        maxima = torch.tensor(numbers)
        with self._lost_rank_is_an_error():
            torch_dist.all_reduce(maxima, op=torch_dist.ReduceOp.MAX)
        return maxima.tolist()

    def barrier(self) -> None:
        """Wait until all ranks have reached this call."""
        self.all_reduce_max(0)

    def check_weights_in_sync(self, weights: Sequence[Tensor]) -> None:
        """Check that the weights of all ranks are equal bit for bit.

        They start equal and take the same steps, but different processors may round differently.

        Raises:
            UserError: they differ.
        """
        if self.size == 1:
            return
        bits = torch.stack([w.detach().view(torch.int32).sum() for w in weights])
        total = int(bits.sum())
        if sum(self.all_reduce_max(total, -total)) != 0:
            raise UserError(
                "the ranks hold different weights by now; the checkpoints are those before; "
                "let all ranks run on the same kind of processor"
            )

    @contextlib.contextmanager
    def main_process_first(self, name: str) -> Iterator[None]:
        """A block that the other ranks enter once the main process has left it."""
        if self.store is not None and not self.is_main:
            with self._lost_rank_is_an_error():
                while not self.store.check([name]):
                    if self.store.check([REPORTER]):
                        raise SystemExit(EXIT_USER_ERROR)
                    time.sleep(POLL_S)
        yield
        if self.store is not None and self.is_main:
            self.store.set(name, "done")

    def claim_error_report(self) -> bool:
        """Return whether this rank is the first to ask: that one prints the error."""
        assert self.store is not None
        try:
            return self.store.compare_set(REPORTER, "", str(self.rank)) == str(self.rank).encode()
        except RuntimeError:  # the process with the store has ended, perhaps without printing
            return True

    @contextlib.contextmanager
    def _lost_rank_is_an_error(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = one_line(error).rpartition("] ")[2][:80]  # after the location in C++ code
            raise UserError(
                f"rank {self.rank} of {self.size} has lost another one, which was killed or is "
                f"stuck ({reason}); go on with --resume"
            ) from None


SINGLE_PROCESS = Distributed()


@contextlib.contextmanager
def init_distributed() -> Iterator[Distributed]:
    """Connect all ranks until the block ends; SINGLE_PROCESS without torchrun.

    Within the block only the main process prints. If it ends in an error, the first rank to notice
    reports it, and the others exit silently.

    Raises:
        UserError: the environment names several ranks, but not which one this is.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield SINGLE_PROCESS
        return
    dist = connect()
    try:
        with contextlib.ExitStack() as stack:
            if not dist.is_main:
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
                stack.enter_context(contextlib.redirect_stderr(nowhere))
            yield dist
            dist.barrier()  # torchrun ends the others once one exits with a status other than 0
        torch_dist.destroy_process_group()
    except (Exception, KeyboardInterrupt) as error:
        if dist.claim_error_report():
            raise
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
        numbers = [int(os.environ[name]) for name in names[:4]]
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store, *_ = next(torch_dist.rendezvous("env://", timeout=TIMEOUT))
        dist = Distributed(numbers[0], numbers[1], numbers[2], numbers[3], store)
        torch_dist.init_process_group(
            backend, store=store, rank=dist.rank, world_size=dist.size, timeout=TIMEOUT
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the ranks can't reach each other: {one_line(error)[:200]}; {hint}") from (
            None
        )
    return dist
