"""Several processes that train one model, as torchrun starts them.

Each is a rank. All hold the same weights and take a part of every batch; their gradients are added
up, so that all take the same step. The first alone prints and writes. This file is the only one
that talks to other processes over a connection. What goes over it is numbers, never objects.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from utils.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError, one_line
from utils.processes import all_cores

# The first samples and saves while the others wait; a rank that is silent for longer is stuck.
TIMEOUT = timedelta(minutes=10)
POLL_S = 0.05
GRACE_S = 1.0  # torchrun ends all ranks soon after the first has ended, and one has to print yet
TOLD = "told"  # in the store: which rank prints why all end


@dataclass(frozen=True)
class Ranks:
    """One rank's view of all of them. By default there is one, and nothing here costs any time.

    Attributes:
        rank: the number of this one, from 0.
        size: how many there are.
        local_rank, local_size: the same on this machine alone.
        store: what all of them read and write, see torch.distributed.Store.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    store: dist.Store | None = None

    @property
    def first(self) -> bool:
        """Whether this is the one that prints and writes."""
        return self.rank == 0

    def rows(self, whole: int) -> slice:
        """This rank's part of a batch of `whole` rows.

        >>> Ranks(rank=1, size=2).rows(8)
        slice(4, 8, None)

        Raises:
            UserError: they can't all take as many.
        """
        each, left = divmod(whole, self.size)
        if left:
            raise UserError(
                f"train.batch_size x train.grad_accum_steps is {whole} rows a step, which "
                f"{self.size} ranks can't share evenly; set a train.batch_size that is a multiple "
                f"of {self.size}, or start another number of ranks"
            )
        return slice(self.rank * each, (self.rank + 1) * each)

    def describe(self, whole: int) -> str:
        """Who takes what of a step's rows, for people.

        >>> Ranks(size=2).describe(8)
        '2 ranks, each takes 4 of the 8 rows of a step'
        """
        part = self.rows(whole)
        each = part.stop - part.start
        return f"{self.size} ranks, each takes {each} of the {whole} rows of a step"

    def device_name(self, name: str) -> str:
        """What `train.device` means for this rank: of several GPUs, each takes its own.

        Raises:
            UserError: there are too few, or it is a device that ranks can't share work on.
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
        """CPU threads for this rank, its share of the cores; 0 = alone, as torch chooses."""
        if self.size == 1:
            return 0
        return max(1, all_cores() // self.local_size)

    def add_up(self, weights: Sequence[Tensor], nats: Tensor) -> Tensor:
        """Makes every gradient the sum over all ranks; returns the sum of the scalar `nats`.

        One sum a step, when all micro-batches are done. DistributedDataParallel would begin while
        the backward pass still runs, which gains at most the time of this sum; but it divides by
        the number of ranks, adds up once more for each micro-batch unless told not to, and puts a
        wrapper around the model that checkpoints and torch.compile have to see through.
        """
        if self.size == 1:
            return nats
        trained = [weight for weight in weights if weight.grad is not None]
        gradients = [weight.grad for weight in trained if weight.grad is not None]
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), nats.reshape(1)])
        with self._heard():
            dist.all_reduce(flat)
        *pieces, nats = flat.split([*(weight.numel() for weight in trained), 1])
        for weight, piece in zip(trained, pieces, strict=True):
            weight.grad = piece.view_as(weight)
        return nats.squeeze(0).clone()  # the sum alone, so that it does not keep all of `flat`

    def totals(self, numbers: Sequence[float]) -> list[float]:
        """The sums over all ranks, in float64: exact for counts."""
        if self.size == 1:
            return list(numbers)
        sums = torch.tensor(numbers, dtype=torch.float64)
        with self._heard():
            dist.all_reduce(sums)
        return sums.tolist()

    def largest(self, *numbers: int) -> list[int]:
        """The largest of each number over all ranks; all wait here for each other."""
        if self.size == 1:
            return list(numbers)
        most = torch.tensor(numbers)
        with self._heard():
            dist.all_reduce(most, op=dist.ReduceOp.MAX)
        return most.tolist()

    def wait(self) -> None:
        """Until all ranks have come to this place."""
        self.largest(0)

    def require_alike(self, weights: Sequence[Tensor]) -> None:
        """Checks that the weights of all ranks are the same to the last bit.

        They began so and took the same steps; processors of two kinds may round differently.

        Raises:
            UserError: they are not.
        """
        if self.size == 1:
            return
        bits = torch.stack([w.detach().view(torch.int32).sum() for w in weights])  # in any order
        total = int(bits.sum())
        if sum(self.largest(total, -total)) != 0:
            raise UserError(
                "the ranks hold different weights by now; the checkpoints are those before; "
                "let all ranks run on the same kind of processor"
            )

    @contextlib.contextmanager
    def first_alone(self, what: str) -> Iterator[None]:
        """A block that the others enter when the first has left it, however long that takes."""
        if self.store is not None and not self.first:
            with self._heard():
                while not self.store.check([what]):
                    if self.store.check([TOLD]):
                        raise SystemExit(EXIT_USER_ERROR)
                    time.sleep(POLL_S)
        yield
        if self.store is not None and self.first:
            self.store.set(what, "done")

    def may_tell(self) -> bool:
        """Whether this is the first rank to ask: that one prints why all end."""
        assert self.store is not None
        try:
            return self.store.compare_set(TOLD, "", str(self.rank)) == str(self.rank).encode()
        except RuntimeError:  # whoever held the store is gone, and may have had no time to print
            return True

    @contextlib.contextmanager
    def _heard(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = one_line(error).rpartition("] ")[2][:80]  # what precedes it is a place in C++
            raise UserError(
                f"rank {self.rank} of {self.size} has lost another one, which was killed or is "
                f"stuck ({reason}); go on with --resume"
            ) from None


ALONE = Ranks()


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """All ranks of this program, connected until the block ends; ALONE if it was started alone.

    Inside it, the first alone prints. When a block ends in an error, the first rank to notice tells
    of it, and the others end without a word.

    Raises:
        UserError: the environment names several, but not which one this is.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield ALONE
        return
    ranks = connect()
    try:
        with contextlib.ExitStack() as stack:
            if not ranks.first:
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
                stack.enter_context(contextlib.redirect_stderr(nowhere))
            yield ranks
            ranks.wait()  # torchrun ends the others once one has ended in anything but 0
        dist.destroy_process_group()
    except (Exception, KeyboardInterrupt) as error:
        if ranks.may_tell():
            raise
        time.sleep(GRACE_S)
        interrupted = isinstance(error, KeyboardInterrupt)
        raise SystemExit(EXIT_INTERRUPTED if interrupted else EXIT_USER_ERROR) from None


def connect() -> Ranks:
    """Finds the others by what torchrun put into the environment.

    Raises:
        UserError: it is incomplete, or they can't be reached.
    """
    cure = "start several ranks with torchrun, or unset WORLD_SIZE"
    if not dist.is_available():
        raise UserError(f"this PyTorch is built without torch.distributed; {cure}")
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in names if not os.environ.get(name)]:
        raise UserError(f"WORLD_SIZE is set, but {missing[0]} is not; {cure}")
    try:
        numbers = [int(os.environ[name]) for name in names[:4]]
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store, *_ = next(dist.rendezvous("env://", timeout=TIMEOUT))
        ranks = Ranks(numbers[0], numbers[1], numbers[2], numbers[3], store)
        dist.init_process_group(
            backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=TIMEOUT
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the ranks can't reach each other: {one_line(error)[:200]}; {cure}") from (
            None
        )
    return ranks
