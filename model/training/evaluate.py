"""Evaluation: the weights to evaluate, and the loss of a split, independent of the batch size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from model.eval_mode import eval_mode, unwrap
from model.training.config import TrainConfig
from model.training.loss import IGNORE_INDEX, cross_entropy_per_token
from model.training.optim import OptimConfig
from model.training.protocols import Batches
from utils.distributed import Distributed
from utils.metrics import bits_per_byte, perplexity

# In steps. Neighbouring weights are nearly equal, so averaging each of them would only take longer.
AVERAGE_EVERY = 5


@dataclass(frozen=True)
class Evaluation:
    """The loss of a text. All figures cover the whole text. Each token counts once and equally."""

    nats: float  # -ln p of the whole text
    tokens: int  # scored targets
    bytes: int  # of text in the targets; special tokens add nats but no bytes

    @property
    def nats_per_token(self) -> float:
        """The mean loss per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp of the nats per token; infinite where a float cannot hold it.

        >>> round(Evaluation(nats=20.79441542, tokens=10, bytes=30).perplexity, 6)
        8.0
        """
        return perplexity(self.nats_per_token)

    @property
    def nats_per_byte(self) -> float:
        """The loss per byte, which is comparable across tokenizers, unlike the loss per token."""
        return self.nats / self.bytes

    @property
    def bits_per_byte(self) -> float:
        """nats_per_byte / ln 2.

        >>> round(Evaluation(nats=20.79441542, tokens=10, bytes=30).bits_per_byte, 6)
        1.0
        """
        return bits_per_byte(self.nats, self.bytes)

    def over_floor(self, floor: float | None) -> float | None:
        """Return how far the loss is above an entropy floor, as a share of the floor.

        >>> round(Evaluation(nats=12.0, tokens=10, bytes=30).over_floor(0.25), 9)
        0.6

        Args:
            floor: in nats per byte; None where there is none.
        """
        return self.nats_per_byte / floor - 1 if floor else None

    def describe(self, floor: float | None = None) -> str:
        """Return the main figures as a line for people; `floor` as for `over_floor`.

        >>> Evaluation(nats=12.0, tokens=10, bytes=30).describe(0.25)
        '1.2000 nats/token, 0.5771 bits/byte, 60.0% over the floor'
        """
        line = f"{self.nats_per_token:.4f} nats/token, {self.bits_per_byte:.4f} bits/byte"
        over = self.over_floor(floor)
        if over is None:
            return line
        if over >= 1:
            return f"{line}, {1 + over:.1f} times the floor"
        return f"{line}, {abs(over):.1%} {'over' if over >= 0 else 'below'} the floor"


# Called before each batch with its number (from 0) and the number of batches; True = stop.
StopCheck = Callable[[int, int], bool]


class EvaluationStoppedError(Exception):
    """An evaluation was stopped on this rank or another; raised on all ranks."""


def never_stop(number: int, n_batches: int) -> bool:
    """Return False: continue the evaluation."""
    return False


def evaluate_split(
    model: nn.Module,
    batches: Batches,
    rows: int,
    byte_lengths_V: Tensor,
    autocast: Callable[[], contextlib.AbstractContextManager[object]],
    dist: Distributed,
    stop: StopCheck = never_stop,
) -> Evaluation:
    """Evaluate the whole validation split. Rank r of n takes the batches r, r + n, r + 2 n, ...

    Args:
        rows: rows in one batch.

    Raises:
        EvaluationStoppedError: `stop` returned True on a rank.
    """
    n_batches, stopped = batches.n_eval_batches("val", rows), False

    def local_batches() -> Iterator[Sequence[Tensor | None]]:
        nonlocal stopped
        numbered = enumerate(batches.eval_batches("val", rows))
        for number, batch in islice(numbered, dist.rank, None, dist.size):
            if stopped := stop(number, n_batches):
                return
            yield batch

    def all_reduce(numbers: Sequence[float]) -> Sequence[float]:
        *sums, stops = dist.all_reduce_sum([*numbers, stopped])
        if stops:
            raise EvaluationStoppedError
        return sums

    return evaluate(model, local_batches(), byte_lengths_V, autocast, all_reduce=all_reduce)


def evaluate(
    model: nn.Module,
    batches: Iterable[Sequence[Tensor | None]],
    byte_lengths_V: Tensor,
    autocast: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    on_batch: Callable[[Tensor, Tensor], None] | None = None,
    all_reduce: Callable[[Sequence[float]], Sequence[float]] = tuple,
) -> Evaluation:
    """Compute the loss over batches (ids_BT, targets_BT) or (ids_BT, targets_BT, doc_BT or None).

    Sums are kept in float64, so that the result does not depend on the batch size (except for
    rounding in the logits). The model is in eval mode meanwhile. Random states are not changed.

    Args:
        byte_lengths_V: text bytes of each id, integers; 0 for special tokens.
        autocast: returns the context for the forward pass, see `utils.device.autocast`.
        on_batch: called after each batch with its targets_BT and their nats_BT (0 where ignored),
            both on the CPU; for example to record each token's loss.
        all_reduce: called once with [nats, tokens, bytes] of these batches; returns the sums over
            all processes. The default is for a single process.

    Raises:
        ValueError: there are no targets, or they have no bytes.
    """
    raw = unwrap(model)
    device = next(raw.parameters()).device
    byte_lengths_V = byte_lengths_V.to(device)
    sum_device = torch.device("cpu") if device.type == "mps" else device  # mps has no float64
    nats = torch.zeros((), dtype=torch.float64, device=sum_device)
    tokens = torch.zeros((), dtype=torch.int64, device=device)
    n_bytes = torch.zeros((), dtype=torch.int64, device=device)
    with torch.inference_mode(), eval_mode(raw):
        for batch in batches:
            ids_BT, targets_BT, *doc = (part.to(device) for part in batch if part is not None)
            with autocast():
                logits_BTV = model(ids_BT, doc_BT=doc[0]) if doc else model(ids_BT)
            nats_BT = cross_entropy_per_token(logits_BTV, targets_BT)
            nats += nats_BT.to(sum_device).double().sum()
            if on_batch is not None:
                on_batch(targets_BT.cpu(), nats_BT.cpu())
            scored_BT = targets_BT != IGNORE_INDEX
            tokens += scored_BT.sum()
            # A sum over all positions, ignored ones times 0: a selection would make the host wait.
            n_bytes += (byte_lengths_V[targets_BT.clamp(min=0)] * scored_BT).sum()
    all_nats, all_tokens, all_bytes = all_reduce((nats.item(), int(tokens), int(n_bytes)))
    if not all_tokens or not all_bytes:
        raise ValueError(f"nothing to score: {all_tokens} targets of {all_bytes} bytes")
    return Evaluation(nats=all_nats, tokens=int(all_tokens), bytes=int(all_bytes))


class Average:
    """An exponential moving average of weights, which begins in the middle of the run.

    The gradient of one batch is noisy, so the weights move around the point that training
    approaches. Their average is closer to it (Polyak & Juditsky 1992, SIAM J. Control Optim. 30,
    838). It costs a copy of the weights and little time, and training itself does not change.
    """

    def __init__(self, weights: Sequence[Tensor], optim: OptimConfig, train: TrainConfig) -> None:
        """Store the weights, which the optimizer changes in place."""
        self.weights = [weight.detach() for weight in weights]
        self.middle = train.max_steps // 2
        self.window = optim.average_fraction * train.max_steps  # steps: the time constant
        self.means: list[Tensor] = []  # none before the middle of the run

    def start(self) -> None:
        """Begin with the present weights."""
        self.means = [weight.clone() for weight in self.weights]

    def update(self, step: int) -> None:
        """Add the weights after a step. The first ones count the same: their mean is plain.

        If a resumed run has more steps than before, an average that began too early is dropped. If
        it has fewer and is past their middle, the first weights count for those before them, too.

        >>> weight = torch.zeros(1)
        >>> optim, train = OptimConfig(average_fraction=0.5), TrainConfig(max_steps=40)
        >>> average = Average([weight], optim, train)
        >>> for step in range(1, 41):
        ...     _ = weight.fill_(step)
        ...     average.update(step)
        >>> average.means  # of the steps 25, 30, 35 and 40
        [tensor([32.5000])]
        """
        n = step // AVERAGE_EVERY - self.middle // AVERAGE_EVERY
        if n < 1:
            self.means = []
        elif self.window and step % AVERAGE_EVERY == 0:
            if not self.means:
                self.start()
            share = min(1.0, max(1 / n, AVERAGE_EVERY / self.window))
            torch._foreach_lerp_(self.means, self.weights, share)

    def state(self, own: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Return the entries of a checkpoint: the average to use, the weights to go on with.

        Args:
            own: state dict with the weights.
        """
        if not self.means:
            return {"model": own}
        means = {x.data_ptr(): mean for x, mean in zip(self.weights, self.means, strict=True)}
        averaged = {name: means[x.data_ptr()] for name, x in own.items()}
        return {"model": averaged, "training_weights": own}

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Within the block, the weights have the values of their averages, if there are any."""
        if not self.means:
            yield
            return
        own = [weight.clone() for weight in self.weights]
        torch._foreach_copy_(self.weights, self.means)
        try:
            yield
        finally:
            torch._foreach_copy_(self.weights, own)
