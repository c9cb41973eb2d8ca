"""Batched generation: prompts in, one new token per sample and step out.

Each sample has its own random generator and takes one number from it per token. So sample i depends
on its seed alone, not on the other samples of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model.eval_mode import unwrap
from model.gpt import TinyGPT
from model.sampling.compile import CompiledStep, CompileStats
from model.sampling.cuda_graph import CudaGraphRunner
from model.sampling.decoder import Decoder, cache_size_for
from model.sampling.inference_weights import InferenceWeights
from model.sampling.sampler import SamplingParams, TokenSelector, UniformStreams
from utils.errors import UserError


class Step(NamedTuple):
    """The new token of every sample; None for samples that finished earlier."""

    ids: list[int | None]
    logprobs: list[float | None]
    """In nats, under the model's own distribution: before temperature and filters."""


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
    """Continue all prompts in one batch, and yield one token per sample and step.

    A sample ends with `stop_id`, which is yielded, or after `max_new_tokens`. Finished samples are
    removed from the batch. Equal prompts are prefilled once. A prompt longer than block_size is cut
    to its last block_size ids. For contexts longer than block_size, see
    `model.sampling.decoder.Decoder`. The global random state is neither read nor changed. The
    model may be compiled or wrapped. It is in eval mode during each step; its previous mode is
    restored before every yield.

    Args:
        prompts: `[ids] * n` gives n samples of one prompt.
        seeds: one per prompt; `sample_seeds` derives several from one seed.
        params: None samples from the model's own distribution.
        is_finished: called after each step with the index of every sample that got a token; True
            ends the sample. Used for stop strings.
        engine: an engine of this model, shared by several calls; None makes one for this call.
        compiled: run the steps through torch.compile, see `model.sampling.compile`.

    Raises:
        ValueError: a prompt is empty (start a document with its end-of-text token) or has an id
            outside the vocabulary, the number of seeds is not the number of prompts, or a logit is
            not finite. As in every generator function, raised by the first `next` at the earliest.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts need as many seeds, got {len(seeds)}")
    if not all(prompts):
        raise ValueError("a prompt is empty; give at least one id, such as end-of-text")
    raw = unwrap(model)
    assert isinstance(raw, TinyGPT)
    if not prompts or max_new_tokens < 1:
        return
    vocab_size = raw.config.vocab_size
    for token_id in (int(token_id) for prompt in prompts for token_id in prompt):
        if not 0 <= token_id < vocab_size:
            raise ValueError(f"token id {token_id} in a prompt is not one of 0 to {vocab_size - 1}")
    prompts = [list(map(int, prompt))[-raw.config.block_size :] for prompt in prompts]
    with torch.inference_mode():  # left before each yield
        engine = engine or InferenceEngine(raw)
        assert engine.weights.model is raw, "the engine of another model"
        batch = engine.acquire_batch(
            prompts, seeds, max_new_tokens, params or SamplingParams(), compiled
        )
    try:
        yield from _steps(batch, max_new_tokens, stop_id, is_finished)
    except GeneratorExit:  # closed by the caller: treated as a normal end
        engine.release_batch(batch)
        raise
    engine.release_batch(batch)


def _steps(
    batch: DecodeBatch,
    max_new_tokens: int,
    stop_id: int | None,
    is_finished: Callable[[int], bool] | None,
) -> Iterator[Step]:
    # A GPU is given the next step before the host reads the ids of the current one, so that it
    # never waits for the host. On a CPU this would only delay the output.
    n_ahead = 1 if supports_cuda_graphs(batch.device) else 0
    n_samples, pending = len(batch.samples), list[PendingTokens]()
    for n_left in range(max_new_tokens - 1, -1, -1):
        with torch.inference_mode():
            pending.append(batch.step())
        while batch.samples and len(pending) > min(n_ahead, n_left):
            step = pending.pop(0).wait(n_samples, batch.finished)
            yield step
            new = [(i, token) for i, token in enumerate(step.ids) if token is not None]
            finished = [i for i, token in new if token == stop_id or is_finished and is_finished(i)]
            with torch.inference_mode():
                batch.remove(finished)
        if not batch.samples:
            return


def generate_ids(
    model: nn.Module, prompts: Sequence[Sequence[int]], *, seeds: Sequence[int], **options: Any
) -> list[list[int]]:
    """Return all new ids of each sample, including the stop id; arguments as in `generate`."""
    samples: list[list[int]] = [[] for _ in seeds]
    for step in generate(model, prompts, seeds=seeds, **options):
        for sample, token in zip(samples, step.ids, strict=True):
            if token is not None:
                sample.append(token)
    return samples


class PendingTokens:
    """The ids of one step, copied asynchronously to the host."""

    def __init__(self, samples: Sequence[int], chosen_2B: Tensor) -> None:
        """Start the copy.

        Args:
            samples: the sample index of each row.
            chosen_2B: the id and the log-probability of each row, float64.
        """
        self.samples = list(samples)
        # A copy, because the next step overwrites the tensor. PyTorch allocates pinned memory for
        # it, so the copy from a GPU does not block the host.
        self.chosen_2B = chosen_2B.to("cpu", non_blocking=True, copy=True)
        self.arrived = torch.cuda.Event() if chosen_2B.is_cuda else None
        if self.arrived is not None:
            self.arrived.record()

    def wait(self, n_samples: int, finished: Set[int]) -> Step:
        """Wait for the copy; return the step without the samples that are already finished.

        Raises:
            NonFiniteLogitsError: a logit of the model is not finite.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        step = Step([None] * n_samples, [None] * n_samples)
        for i, token, logprob in zip(self.samples, *self.chosen_2B.tolist(), strict=True):
            if i in finished:
                continue
            if math.isnan(logprob):
                raise NonFiniteLogitsError("the model's logits are not finite; train it again")
            step.ids[i], step.logprobs[i] = int(token), logprob
        return step


class NonFiniteLogitsError(UserError, ValueError):
    """A logit is infinite or NaN, so no token can be chosen."""


class BatchKey(NamedTuple):
    """Everything that decides tensor shapes and operations of a step.

    A batch can be reused for another call with the same key.
    """

    n_rows: int
    cache_size: tuple[int, int]
    params: SamplingParams
    compiled: bool


class InferenceEngine:
    """A model prepared for sampling: its gathered weights, and one batch cached between calls.

    The cached batch holds the captured or compiled step. Capturing it again would take as long as
    some dozen steps.
    """

    def __init__(self, model: nn.Module) -> None:
        """Prepare a TinyGPT as it is now. After any change of its weights, make a new engine."""
        self.weights = InferenceWeights(model)
        self.compile_stats = CompileStats()
        self.cached_batch: DecodeBatch | None = None

    def acquire_batch(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        max_new_tokens: int,
        params: SamplingParams,
        compiled: bool = False,
    ) -> DecodeBatch:
        """Return the cached batch if its key matches, or else a new one. The caller owns it."""
        compiled = compiled and self.compile_stats.works
        cache_size = cache_size_for(self.weights.model.config, prompts, max_new_tokens, compiled)
        key, batch = BatchKey(len(prompts), cache_size, params, compiled), self.cached_batch
        if batch is not None and batch.key == key:
            self.cached_batch = None
            batch.reset(prompts, seeds)
            return batch
        if max_new_tokens > 1:
            self.cached_batch = None  # two batches would take twice the memory
        return DecodeBatch(self.weights, self.compile_stats, key, prompts, seeds)

    def release_batch(self, batch: DecodeBatch) -> None:
        """Cache a batch for the next call. One of a single step has no graph: it replaces none."""
        if batch.reusable and (batch.n_steps > 1 or self.cached_batch is None):
            self.cached_batch = batch


class DecodeBatch:
    """The unfinished samples of a call, one per row, and the state of their next step."""

    def __init__(
        self,
        weights: InferenceWeights,
        compile_stats: CompileStats,
        key: BatchKey,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
    ) -> None:
        """Allocate everything. The first `step` reads the prompts, each of 1 to block_size ids."""
        self.key, self.device = key, weights.embedding.device
        uses_graphs = supports_cuda_graphs(self.device)
        # Finished rows are removed once their share of all rows reaches this bound. Another number
        # of rows needs a new CUDA graph or compilation, which costs more than computing idle rows.
        self.max_idle_share = 1.0 if key.compiled else 0.5 if uses_graphs else 0.0
        self.reusable = uses_graphs or key.compiled
        self.decoder = Decoder(weights, prompts, key.cache_size, static=self.reusable)
        vocab_size = weights.model.config.vocab_size
        self.selector = TokenSelector(key.params, key.n_rows, vocab_size, self.device)
        self.ids_B = torch.zeros(key.n_rows, dtype=torch.int64, device=self.device)  # newest ids
        self.compiled = CompiledStep(DecodeBatch._compute, compile_stats) if key.compiled else None
        self.cuda_graph = CudaGraphRunner(self.device)
        self._start(prompts, seeds)

    def reset(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> None:
        """Start again with the same number of samples, in the same tensors."""
        self.decoder.reset(prompts)
        self._start(prompts, seeds)

    def _start(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> None:
        self.prompts = prompts
        self.uniforms = UniformStreams(seeds, self.selector.device)
        self.selector.reset(prompts)
        self.samples = list(range(len(seeds)))  # the sample index of each row
        self.finished: set[int] = set()
        self.n_steps = 0

    def step(self) -> PendingTokens:
        """Choose the next id of every row."""
        self.selector.uniform_B.copy_(self.uniforms.next())
        if self.n_steps == 0:
            self.ids_B.copy_(self.selector.select(self.decoder.prefill(self.prompts)))
        else:
            rope = self.decoder.rope
            self.decoder.prepare()
            if self.decoder.rope is not rope:
                self.cuda_graph.reset()
            self.cuda_graph(self._run)
        self.n_steps += 1
        return PendingTokens(self.samples, self.selector.chosen_2B)

    def _run(self) -> None:
        if self.compiled is not None:
            self.compiled(self)
        else:
            self._compute()

    def _compute(self) -> None:
        self.ids_B.copy_(self.selector.select(self.decoder.compute(self.ids_B)))

    def remove(self, finished: Sequence[int]) -> None:
        """Mark samples as finished, and drop their rows once enough rows are idle.

        The last row is moved into the place of each dropped row.
        """
        self.finished.update(finished)
        idle = [sample for sample in self.samples if sample in self.finished]
        if not idle or len(idle) < self.max_idle_share * len(self.samples):
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
        self.cuda_graph.reset()


def supports_cuda_graphs(device: torch.device) -> bool:
    """Return whether steps can be captured. On other devices static shapes only cost time."""
    return device.type == "cuda"
