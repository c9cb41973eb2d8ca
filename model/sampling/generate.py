"""Sampling: prompts -> new ids, a token of each sample at a time.

Each sample has its own generator and takes one number from it per token, so that sample i depends
on its seed alone, not on how many others are drawn beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from model.eval_mode import raw_module
from model.gpt import TinyGPT
from model.sampling.compile import Compiled
from model.sampling.cuda_graph import Recorded
from model.sampling.decoder import Decoder, room_for
from model.sampling.inference_weights import Weights
from model.sampling.sampler import Drawing, chosen_logprobs, sample_next

NUMBERS_AT_ONCE = 256  # of each generator: one by one they would cost more than the draws


class Step(NamedTuple):
    """The new token of every sample; None for those that have ended."""

    ids: list[int | None]
    logprobs: list[float | None]
    """In nats, of the chosen id under the model's own distribution: no temperature, no filter."""


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    seeds: Sequence[int],
    max_new_tokens: int,
    drawing: Drawing | None = None,
    stop_id: int | None = None,
    gone: Set[int] = frozenset(),
    weights: Weights | None = None,
    compiled: bool = False,
) -> Iterator[Step]:
    """Draws a continuation of each prompt, side by side, and yields a token of each per step.

    A sample ends with `stop_id`, which is yielded, or after `max_new_tokens`; ended samples cost
    nothing more. Equal prompts are read once, a prompt longer than block_size from its last
    block_size ids on. What the model sees beyond block_size: see `model.sampling.decoder.Decoder`. The global
    random state is neither read nor changed. The model (compiled or wrapped as it may be) is in
    eval mode while it computes, and in its own mode whenever the caller has the turn.

    Args:
        prompts: for several samples of one prompt `[ids] * n`.
        seeds: one per prompt; for several samples from one seed see `sample_seeds`.
        drawing: None draws from the model's own distribution.
        gone: samples of no more use, such as those that met a stop text; looked at after each step.
        weights: the model's as they are now, gathered before; None gathers them.
        compiled: steps go through torch.compile, see `model.sampling.compile`.

    Raises:
        ValueError: a prompt is empty (start a document with its end-of-text token), there are not
            as many seeds as prompts, or the model's logits are not finite. All on the first step or
            later, as in every generator function.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts need as many seeds, got {len(seeds)}")
    if not all(prompts):
        raise ValueError("a prompt is empty; give at least one id, such as end-of-text")
    raw = raw_module(model)
    assert isinstance(raw, TinyGPT)
    if not prompts or max_new_tokens < 1:
        return
    prompts = [list(prompt)[-raw.config.block_size :] for prompt in prompts]
    with torch.inference_mode():  # left before each yield
        own = weights or Weights(raw)
        assert own.model is raw, "the weights of another model"
        batch = make_batch(own, prompts, seeds, max_new_tokens, drawing or Drawing(), compiled)
    try:
        yield from _steps(batch, max_new_tokens, stop_id, gone)
    except GeneratorExit:  # the caller needs no more: as good as an end
        batch.leave_to(weights)
        raise
    batch.leave_to(weights)


def _steps(
    batch: Batch, max_new_tokens: int, stop_id: int | None, gone: Set[int]
) -> Iterator[Step]:
    # A GPU is told the next step before the last one's ids are read, and need not wait for the
    # host. A CPU would only show its tokens later.
    n_ahead = 1 if can_be_recorded(batch.device) else 0
    n_samples, waiting = len(batch.samples), list[Drawn]()
    for n_left in range(max_new_tokens - 1, -1, -1):
        with torch.inference_mode():
            waiting.append(batch.draw())
        while batch.samples and len(waiting) > min(n_ahead, n_left):
            step = waiting.pop(0).step(n_samples, batch.ended)
            yield step
            drawn = [(i, token) for i, token in enumerate(step.ids) if token is not None]
            with torch.inference_mode():
                batch.remove([i for i, token in drawn if token == stop_id or i in gone])
        if not batch.samples:
            return


def generate_ids(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    seeds: Sequence[int],
    max_new_tokens: int,
    drawing: Drawing | None = None,
    stop_id: int | None = None,
    weights: Weights | None = None,
    compiled: bool = False,
) -> list[list[int]]:
    """All new ids of each sample, the stop id included where one came; see `generate`."""
    samples: list[list[int]] = [[] for _ in seeds]
    for step in generate(
        model,
        prompts,
        seeds=seeds,
        max_new_tokens=max_new_tokens,
        drawing=drawing,
        stop_id=stop_id,
        weights=weights,
        compiled=compiled,
    ):
        for sample, token in zip(samples, step.ids, strict=True):
            if token is not None:
                sample.append(token)
    return samples


class Drawn:
    """The ids of one step on their way to the host."""

    def __init__(self, samples: Sequence[int], drawn_2B: Tensor) -> None:
        """The number of each row's sample; its id and log-probability, float64."""
        self.samples = list(samples)
        # A copy: the next step will write into the same tensor. PyTorch takes memory for it that a
        # GPU writes to by itself, so nobody waits.
        self.drawn_2B = drawn_2B.to("cpu", non_blocking=True, copy=True)
        self.arrived = torch.cuda.Event() if drawn_2B.is_cuda else None
        if self.arrived is not None:
            self.arrived.record()

    def step(self, n_samples: int, ended: Set[int]) -> Step:
        """What was drawn, once it is there, less the samples that had ended before.

        Raises:
            ValueError: the model's logits are not finite.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        step = Step([None] * n_samples, [None] * n_samples)
        for i, token, logprob in zip(self.samples, *self.drawn_2B.tolist(), strict=True):
            if i in ended:
                continue
            if math.isnan(logprob):
                raise ValueError("the model's logits are not finite; its weights are damaged")
            step.ids[i], step.logprobs[i] = int(token), logprob
        return step


def make_batch(
    weights: Weights,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    max_new_tokens: int,
    drawing: Drawing,
    compiled: bool = False,
) -> Batch:
    """The batch that was drawn last with these weights, if it has the right shapes; or a new one.

    To record its steps anew would take as long as some dozen of them.
    """
    compiled = compiled and weights.compiles
    room = room_for(weights.model.config, prompts, max_new_tokens, compiled)
    shape = Shape(len(prompts), room, drawing, compiled)
    if isinstance(weights.spare, Batch) and weights.spare.shape == shape:
        batch, weights.spare = weights.spare, None  # nobody else's while it is in use
        batch.begin(prompts, seeds)
        return batch
    if max_new_tokens > 1:
        weights.spare = None  # two would take twice the memory
    return Batch(weights, shape, prompts, seeds)


class Shape(NamedTuple):
    """Batches alike in this are recorded and compiled alike."""

    n_rows: int
    room: tuple[int, int]
    drawing: Drawing
    compiled: bool


class Batch:
    """The samples that go on, one in each row, and what the next draw needs."""

    def __init__(
        self,
        weights: Weights,
        shape: Shape,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
    ) -> None:
        """Reads no prompt yet; each holds 1 to block_size ids."""
        self.shape, self.drawing, compiled = shape, shape.drawing, shape.compiled
        self.device = weights.embedding.device
        recorded = can_be_recorded(self.device)
        # Rows stay until so many are of no use, where other shapes are a new record or program.
        self.most_idle = 1.0 if compiled else 0.5 if recorded else 0.0
        self.reusable = recorded or compiled
        self.decoder = Decoder(weights, prompts, shape.room, self.reusable)
        # Ids are drawn in float64, which mps does not have.
        self.draw_device = torch.device("cpu") if self.device.type == "mps" else self.device
        self.ids_B = torch.zeros(len(seeds), dtype=torch.int64, device=self.device)  # the last
        self.numbers_B = torch.zeros(len(seeds), dtype=torch.float64, device=self.draw_device)
        # Ids once more, and their log-probabilities: float64 holds both.
        self.drawn_2B = torch.zeros(2, len(seeds), dtype=torch.float64, device=self.draw_device)
        self.seen_BV: Tensor | None = None
        if self.drawing.repetition_penalty != 1:
            size = (len(seeds), weights.model.config.vocab_size)
            self.seen_BV = torch.zeros(size, dtype=torch.bool, device=self.draw_device)
        self.compiled = Compiled(Batch._compute, weights) if compiled else None
        self.recorded = Recorded(self.device)
        self._begin(prompts, seeds)

    def begin(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> None:
        """Anew with as many samples, in the same tensors."""
        self.decoder.begin(prompts)
        self._begin(prompts, seeds)

    def _begin(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> None:
        self.prompts = prompts
        self.generators = [Generator().manual_seed(seed) for seed in seeds]  # of each row
        self.samples = list(range(len(seeds)))  # of each row
        self.ended: set[int] = set()
        self.n_drawn = 0
        if self.seen_BV is not None:
            self.seen_BV.zero_()
            for seen_V, prompt in zip(self.seen_BV, prompts, strict=True):
                seen_V[list(prompt)] = True

    def draw(self) -> Drawn:
        """Draws the next id of every row."""
        self.numbers_B.copy_(self._numbers())
        if self.n_drawn == 0:
            logits_BV = self.decoder.prefill(self.prompts)
            self._choose(logits_BV)
        else:
            rope = self.decoder.rope
            self.decoder.prepare()
            if self.decoder.rope is not rope:
                self.recorded.forget()
            self.recorded(self._step)
        self.n_drawn += 1
        return Drawn(self.samples, self.drawn_2B)

    def _step(self) -> None:
        if self.compiled is not None:
            self.compiled(self)
        else:
            self._compute()

    def _compute(self) -> None:
        self._choose(self.decoder.compute(self.ids_B))

    def _choose(self, logits_BV: Tensor) -> None:
        logits_BV = logits_BV.to(self.draw_device)
        ids_B = sample_next(logits_BV, self.numbers_B, self.drawing, self.seen_BV)
        self.drawn_2B[0].copy_(ids_B)
        self.drawn_2B[1].copy_(chosen_logprobs(logits_BV, ids_B))
        if self.seen_BV is not None:
            self.seen_BV.scatter_(1, ids_B[:, None], True)
        self.ids_B.copy_(ids_B)

    def _numbers(self) -> Tensor:
        """A number of each row's own generator, from 0 to 1, float64 (B,)."""
        turn = self.n_drawn % NUMBERS_AT_ONCE
        if turn == 0:
            shape = (NUMBERS_AT_ONCE,)
            columns = [torch.rand(shape, generator=g, dtype=torch.float64) for g in self.generators]
            self.numbers_NB = torch.stack(columns, dim=1).to(self.draw_device)
        return self.numbers_NB[turn]

    def remove(self, ended: Sequence[int]) -> None:
        """Takes samples out, if they are enough: the last row comes into the place of each."""
        self.ended.update(ended)
        gone = [sample for sample in self.samples if sample in self.ended]
        if not gone or len(gone) < self.most_idle * len(self.samples):
            return
        if len(gone) == len(self.samples):
            self.samples = []
            return
        self.reusable = False
        for sample in gone:
            row, last = self.samples.index(sample), len(self.samples) - 1
            if row < last:
                self.decoder.cache.move(last, row)
                self.ids_B[row] = self.ids_B[last]
                if self.seen_BV is not None:
                    self.seen_BV[row] = self.seen_BV[last]
                self.numbers_NB[:, row] = self.numbers_NB[:, last]
                self.generators[row], self.samples[row] = self.generators[last], self.samples[last]
            self.generators.pop()
            self.samples.pop()
        B = len(self.samples)
        self.decoder.cache.keep_rows(B)
        self.ids_B, self.numbers_B = self.ids_B[:B], self.numbers_B[:B]
        self.numbers_NB, self.drawn_2B = self.numbers_NB[:, :B], self.drawn_2B[:, :B].clone()
        if self.seen_BV is not None:
            self.seen_BV = self.seen_BV[:B]
        self.recorded.forget()

    def leave_to(self, weights: Weights | None) -> None:
        """For the next call with these weights. One drawn token has recorded nothing to replace."""
        if weights is not None and self.reusable and (self.n_drawn > 1 or weights.spare is None):
            weights.spare = self


def can_be_recorded(device: torch.device) -> bool:
    """Whether a device can record steps and play them again; for others fixed shapes only cost."""
    return device.type == "cuda"
