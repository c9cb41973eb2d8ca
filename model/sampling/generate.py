"""Sampling: prompts -> new ids, a token of each sample at a time.

Each sample has its own generator and takes one number from it per token, so that sample i depends
on its seed alone, not on the other samples of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence, Set
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.eval_mode import unwrap
from model.gpt import TinyGPT
from model.sampling.compile import CompiledStep, CompileStats
from model.sampling.cuda_graph import CudaGraphRunner
from model.sampling.decoder import Decoder, cache_size_for
from model.sampling.inference_weights import InferenceWeights
from model.sampling.sampler import SamplingParams, TokenSelector, UniformStreams


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
    params: SamplingParams | None = None,
    stop_id: int | None = None,
    is_finished: Callable[[int], bool] | None = None,
    engine: InferenceEngine | None = None,
    compiled: bool = False,
) -> Iterator[Step]:
    """Continue all prompts in one batch, and yield a token of each per step.

    A sample ends with `stop_id`, which is yielded, or after `max_new_tokens`; ended samples cost
    nothing more. Equal prompts are read once, a prompt longer than block_size from its last
    block_size ids on. What the model sees beyond block_size: see
    `model.sampling.decoder.Decoder`. The global random state is neither read nor changed. The
    model (compiled or wrapped as it may be) is in eval mode while it computes, and in its own mode
    whenever the caller has the turn.

    Args:
        prompts: for several samples of one prompt `[ids] * n`.
        seeds: one per prompt; for several samples from one seed see `sample_seeds`.
        params: None draws from the model's own distribution.
        is_finished: asked after each step, with the number of a sample that got a token, whether
            the caller needs no more of it; for stop texts.
        engine: of the model, for several calls; None makes one for this call.
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
    raw = unwrap(model)
    assert isinstance(raw, TinyGPT)
    if not prompts or max_new_tokens < 1:
        return
    prompts = [list(prompt)[-raw.config.block_size :] for prompt in prompts]
    with torch.inference_mode():  # left before each yield
        engine = engine or InferenceEngine(raw)
        assert engine.weights.model is raw, "the engine of another model"
        batch = engine.take_batch(
            prompts, seeds, max_new_tokens, params or SamplingParams(), compiled
        )
    try:
        yield from _steps(batch, max_new_tokens, stop_id, is_finished)
    except GeneratorExit:  # the caller needs no more: the same as an end
        engine.put_back(batch)
        raise
    engine.put_back(batch)


def _steps(
    batch: DecodeBatch,
    max_new_tokens: int,
    stop_id: int | None,
    is_finished: Callable[[int], bool] | None,
) -> Iterator[Step]:
    # A GPU gets the next step before the last one's ids are read, and need not wait for the host.
    # A CPU would only show its tokens later.
    n_ahead = 1 if supports_cuda_graphs(batch.device) else 0
    n_samples, pending = len(batch.samples), list[PendingTokens]()
    for n_left in range(max_new_tokens - 1, -1, -1):
        with torch.inference_mode():
            pending.append(batch.draw())
        while batch.samples and len(pending) > min(n_ahead, n_left):
            step = pending.pop(0).step(n_samples, batch.ended)
            yield step
            new = [(i, token) for i, token in enumerate(step.ids) if token is not None]
            ended = [i for i, token in new if token == stop_id or is_finished and is_finished(i)]
            with torch.inference_mode():
                batch.remove(ended)
        if not batch.samples:
            return


def generate_ids(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    seeds: Sequence[int],
    max_new_tokens: int,
    params: SamplingParams | None = None,
    stop_id: int | None = None,
    engine: InferenceEngine | None = None,
    compiled: bool = False,
) -> list[list[int]]:
    """All new ids of each sample, with the stop id if there was one; see `generate`."""
    samples: list[list[int]] = [[] for _ in seeds]
    for step in generate(
        model,
        prompts,
        seeds=seeds,
        max_new_tokens=max_new_tokens,
        params=params,
        stop_id=stop_id,
        engine=engine,
        compiled=compiled,
    ):
        for sample, token in zip(samples, step.ids, strict=True):
            if token is not None:
                sample.append(token)
    return samples


class PendingTokens:
    """The ids of one step on their way to the host."""

    def __init__(self, samples: Sequence[int], chosen_2B: Tensor) -> None:
        """The number of each row's sample; its id and log-probability, float64."""
        self.samples = list(samples)
        # A copy: the next step will write into the same tensor. PyTorch takes memory for it that a
        # GPU writes to by itself, so nobody waits.
        self.chosen_2B = chosen_2B.to("cpu", non_blocking=True, copy=True)
        self.arrived = torch.cuda.Event() if chosen_2B.is_cuda else None
        if self.arrived is not None:
            self.arrived.record()

    def step(self, n_samples: int, ended: Set[int]) -> Step:
        """Wait for the ids, and leave out samples that had ended before.

        Raises:
            ValueError: the model's logits are not finite.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        step = Step([None] * n_samples, [None] * n_samples)
        for i, token, logprob in zip(self.samples, *self.chosen_2B.tolist(), strict=True):
            if i in ended:
                continue
            if math.isnan(logprob):
                raise ValueError("the model's logits are not finite; its weights are damaged")
            step.ids[i], step.logprobs[i] = int(token), logprob
        return step


class BatchKey(NamedTuple):
    """Batches with the same key are recorded and compiled alike."""

    n_rows: int
    room: tuple[int, int]
    params: SamplingParams
    compiled: bool


class InferenceEngine:
    """A model ready for sampling: its gathered weights, and what one call leaves for the next.

    That is the batch with its recorded or compiled steps. To record them again would take as long
    as some dozen of them.
    """

    def __init__(self, model: nn.Module) -> None:
        """Of a TinyGPT as it is now; the weights do not follow when it is trained further."""
        self.weights = InferenceWeights(model)
        self.compile_stats = CompileStats()
        self.cached_batch: DecodeBatch | None = None

    def take_batch(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        max_new_tokens: int,
        params: SamplingParams,
        compiled: bool = False,
    ) -> DecodeBatch:
        """The cached batch if its key is the same, or a new one; the caller owns it."""
        compiled = compiled and self.compile_stats.works
        room = cache_size_for(self.weights.model.config, prompts, max_new_tokens, compiled)
        key, batch = BatchKey(len(prompts), room, params, compiled), self.cached_batch
        if batch is not None and batch.key == key:
            self.cached_batch = None
            batch.begin(prompts, seeds)
            return batch
        if max_new_tokens > 1:
            self.cached_batch = None  # two would take twice the memory
        return DecodeBatch(self.weights, self.compile_stats, key, prompts, seeds)

    def put_back(self, batch: DecodeBatch) -> None:
        """Keep a batch for the next call. One that chose a single token has recorded nothing."""
        if batch.reusable and (batch.n_drawn > 1 or self.cached_batch is None):
            self.cached_batch = batch


class DecodeBatch:
    """The samples that are not finished, one in each row, and their next step."""

    def __init__(
        self,
        weights: InferenceWeights,
        compile_stats: CompileStats,
        key: BatchKey,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
    ) -> None:
        """Reads no prompt yet; each holds 1 to block_size ids."""
        self.key, self.device = key, weights.embedding.device
        recorded = supports_cuda_graphs(self.device)
        # Rows stay until this share of them is idle, where other shapes need a new record or
        # program.
        self.max_idle = 1.0 if key.compiled else 0.5 if recorded else 0.0
        self.reusable = recorded or key.compiled
        self.decoder = Decoder(weights, prompts, key.room, self.reusable)
        vocab_size = weights.model.config.vocab_size
        self.selector = TokenSelector(key.params, key.n_rows, vocab_size, self.device)
        self.ids_B = torch.zeros(key.n_rows, dtype=torch.int64, device=self.device)  # the last
        self.compiled = CompiledStep(DecodeBatch._compute, compile_stats) if key.compiled else None
        self.recorded = CudaGraphRunner(self.device)
        self._begin(prompts, seeds)

    def begin(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> None:
        """Start again with as many samples, in the same tensors."""
        self.decoder.begin(prompts)
        self._begin(prompts, seeds)

    def _begin(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> None:
        self.prompts = prompts
        self.uniforms = UniformStreams(seeds, self.selector.device)
        self.selector.begin(prompts)
        self.samples = list(range(len(seeds)))  # of each row
        self.ended: set[int] = set()
        self.n_drawn = 0

    def draw(self) -> PendingTokens:
        """Choose the next id of every row."""
        self.selector.uniform_B.copy_(self.uniforms.next())
        if self.n_drawn == 0:
            self.ids_B.copy_(self.selector.select(self.decoder.prefill(self.prompts)))
        else:
            rope = self.decoder.rope
            self.decoder.prepare()
            if self.decoder.rope is not rope:
                self.recorded.forget()
            self.recorded(self._step)
        self.n_drawn += 1
        return PendingTokens(self.samples, self.selector.chosen_2B)

    def _step(self) -> None:
        if self.compiled is not None:
            self.compiled(self)
        else:
            self._compute()

    def _compute(self) -> None:
        self.ids_B.copy_(self.selector.select(self.decoder.compute(self.ids_B)))

    def remove(self, ended: Sequence[int]) -> None:
        """Take samples out once enough rows are idle: the last row replaces each of them."""
        self.ended.update(ended)
        idle = [sample for sample in self.samples if sample in self.ended]
        if not idle or len(idle) < self.max_idle * len(self.samples):
            return
        if len(idle) == len(self.samples):
            self.samples = []
            return
        self.reusable = False
        moves: list[tuple[int, int]] = []
        for sample in idle:
            row, last = self.samples.index(sample), len(self.samples) - 1
            if row < last:
                moves.append((last, row))
                self.samples[row] = self.samples[last]
            self.samples.pop()
        B = len(self.samples)
        for source, target in moves:
            self.ids_B[target] = self.ids_B[source]
        self.ids_B = self.ids_B[:B]
        self.decoder.cache.compact(moves, B)
        self.selector.compact(moves, B)
        self.uniforms.compact(moves, B)
        self.recorded.forget()


def supports_cuda_graphs(device: torch.device) -> bool:
    """Whether a device can record steps and play them again; for others fixed shapes only cost."""
    return device.type == "cuda"
