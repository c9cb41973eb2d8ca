"""Choosing the next token: filters on the logits, the random choice, and a seed for each sample."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Generator, Tensor, nn

ROUNDING = 1e-9  # a sum of probabilities this close below top_p has reached it
UNIFORMS_PER_CHUNK = 256  # per call of a generator: a call per number would be slow
# Up to this size, computing all ids in float64, or comparing all pairs, is faster than torch.topk.
SMALL_VOCAB_THRESHOLD = 256
# Sampling parameter -> test whether a value is allowed, and the allowed values in words.
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": (lambda value: 0 <= value < math.inf, "0 or more, and finite"),
    "top_k": (lambda value: not value or (isinstance(value, int) and value > 0), "0 or more"),
    "top_p": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "min_p": (lambda value: 0 <= value <= 1, "from 0 to 1"),
    "repetition_penalty": (lambda value: 0 < value < math.inf, "above 0, and finite"),
}


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters, applied in turn: repetition penalty, temperature, top_k, top_p, min_p.

    The temperature divides the logits; 0 = greedy decoding. For the others see `penalize`,
    `keep_top_k`, `keep_top_p` and `keep_min_p`.

    Raises:
        ValueError: names the first setting that is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, getattr(self, field.name))


def _check(name: str, value: Any) -> None:
    is_allowed, words = RANGES[name]
    if not is_allowed(value):
        raise ValueError(f"{name} must be {words}, got {value}")


def keep_top_k(logits_BV: Tensor, k: int | None) -> Tensor:
    """Keep the k largest logits of each row; set the others to -inf.

    0, None and k >= V keep all. Ties go to the lower id.

    >>> keep_top_k(torch.tensor([[1.0, 3.0, 2.0, 2.0]]), 2).tolist()
    [[-inf, 3.0, 2.0, -inf]]

    Raises:
        ValueError: k is negative.
    """
    _check("top_k", k)
    if not k or k >= logits_BV.shape[-1]:
        return logits_BV
    if not _host_can_read(logits_BV):
        if logits_BV.shape[-1] <= SMALL_VOCAB_THRESHOLD:
            return logits_BV.masked_fill(descending_ranks(logits_BV) >= k, -math.inf)
        smallest_B1 = logits_BV.topk(k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
    else:
        edge_B2 = logits_BV.topk(k + 1, dim=-1).values[:, -2:]  # the k-th and the next
        smallest_B1 = edge_B2[:, :1]
        if not _has_ties(edge_B2):
            return logits_BV.masked_fill(logits_BV < smallest_B1, -math.inf)
    above_BV, ties_BV = logits_BV > smallest_B1, logits_BV == smallest_B1
    n_kept_ties_B1 = k - above_BV.sum(dim=-1, keepdim=True)
    keep_BV = above_BV | (ties_BV & (ties_BV.cumsum(dim=-1) <= n_kept_ties_B1))
    return logits_BV.masked_fill(~keep_BV, -math.inf)


def descending_ranks(logits_BV: Tensor) -> Tensor:
    """Return the rank of each id, int64 (B, V): 0 for the largest logit. Ties go to the lower id.

    It compares all pairs, which a GPU does faster than sorting for few logits.

    >>> descending_ranks(torch.tensor([[1.0, 3.0, 2.0, 2.0]])).tolist()
    [[3, 0, 1, 2]]
    """
    ids_V = torch.arange(logits_BV.shape[-1], device=logits_BV.device)
    own_BV1, other_B1V = logits_BV[:, :, None], logits_BV[:, None]
    tie_first_VV = ids_V[None] < ids_V[:, None]
    before_BVV = torch.where(tie_first_VV, other_B1V >= own_BV1, other_B1V > own_BV1)
    return before_BVV.sum(dim=-1)


def keep_top_p(logits_BV: Tensor, p: float) -> Tensor:
    """Keep the smallest set of most likely ids whose probabilities reach p; set others to -inf.

    Nucleus sampling, Holtzman et al. 2019, arXiv 1904.09751. At least one id is kept; p = 1 keeps
    all. Ties go to the lower id.

    >>> logits_BV = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).log()
    >>> keep_top_p(logits_BV, 0.8).exp().round(decimals=3).tolist()
    [[0.0, 0.5, 0.3]]

    Raises:
        ValueError: p is not above 0 and at most 1.
    """
    _check("top_p", p)
    if p == 1:
        return logits_BV
    probs_BV, order_BV = logits_BV.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
    before_BV = probs_BV.cumsum(dim=-1) - probs_BV
    keep_sorted_BV = before_BV < p - ROUNDING
    keep_sorted_BV[:, 0] = True
    keep_BV = torch.zeros_like(keep_sorted_BV).scatter(-1, order_BV, keep_sorted_BV)
    return logits_BV.masked_fill(~keep_BV, -math.inf)


def keep_min_p(logits_BV: Tensor, p: float) -> Tensor:
    """Keep the ids at least p times as likely as the most likely id; set the others to -inf.

    Nguyen et al. 2024, arXiv 2407.01082. The most likely id is always kept; p = 0 keeps all.

    >>> logits_BV = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).log()
    >>> keep_min_p(logits_BV, 0.5).exp().round(decimals=3).tolist()
    [[0.0, 0.5, 0.3]]

    Raises:
        ValueError: p is not from 0 to 1.
    """
    _check("min_p", p)
    if p == 0:
        return logits_BV
    # The same tolerance as for top_p, relative to the bound, so that rounding drops no id.
    bound_B1 = logits_BV.amax(dim=-1, keepdim=True) + math.log(p) - ROUNDING
    return logits_BV.masked_fill(logits_BV < bound_B1, -math.inf)


def penalize(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Make ids of the context less likely: z / penalty where z > 0, else z * penalty.

    Keskar et al. 2019, "CTRL" (arXiv 1909.05858), section 4.1, in Hugging Face's form: dividing a
    negative logit would raise it. How often an id occurred makes no difference.

    >>> seen_BV = torch.tensor([[True, True, False]])
    >>> penalize(torch.tensor([[3.0, -1.0, 2.0]]), seen_BV, 2.0).tolist()
    [[1.5, -2.0, 2.0]]

    Raises:
        ValueError: the penalty is not above 0.
    """
    _check("repetition_penalty", penalty)
    if penalty == 1:
        return logits_BV
    penalized_BV = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return torch.where(seen_BV, penalized_BV, logits_BV)


def next_probs(logits_BV: Tensor, params: SamplingParams, seen_BV: Tensor | None = None) -> Tensor:
    """Return the distribution that ids are sampled from, float64 (B, V).

    Temperature 0 gives all probability to the largest logit. Ties go to the lower id.

    >>> next_probs(torch.tensor([[1.0, 2.0, 2.0]]), SamplingParams(temperature=0)).tolist()
    [[0.0, 1.0, 0.0]]

    Args:
        seen_BV: True for the ids of the context; None penalizes none.
    """
    logits_BV = logits_BV.double()
    if seen_BV is not None:
        logits_BV = penalize(logits_BV, seen_BV, params.repetition_penalty)
    if params.temperature == 0:
        return nn.functional.one_hot(logits_BV.argmax(-1), logits_BV.shape[-1]).double()
    if params.temperature != 1:
        # The largest logit becomes 0 first, so that no small temperature produces an infinity.
        logits_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / params.temperature
    if params.top_k:
        logits_BV = keep_top_k(logits_BV, params.top_k)
    if params.top_p < 1:
        logits_BV = keep_top_p(logits_BV, params.top_p)
    if params.min_p > 0:
        logits_BV = keep_min_p(logits_BV, params.min_p)
    return logits_BV.softmax(dim=-1)


def inverse_cdf(probs_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Return each row's first id where the cumulative probability exceeds its `uniform_B`.

    It never returns an id of probability 0. The rows need not sum to 1.

    >>> probs_BV = torch.tensor([[0.5, 0.0, 0.5]] * 3, dtype=torch.float64)
    >>> inverse_cdf(probs_BV, torch.tensor([0.49, 0.5, 0.999], dtype=torch.float64)).tolist()
    [0, 2, 2]
    """
    cdf_BV = probs_BV.cumsum(dim=-1)
    # A float64 below 1 is at most 1 - 2**-53, so the product never rounds up to the whole sum.
    ids_B1 = torch.searchsorted(cdf_BV, uniform_B[:, None] * cdf_BV[:, -1:], right=True)
    return ids_B1[:, 0].clamp_(max=probs_BV.shape[-1] - 1)  # V only if a probability is NaN


def sample_next(
    logits_BV: Tensor, uniform_B: Tensor, params: SamplingParams, seen_BV: Tensor | None = None
) -> Tensor:
    """Sample one id per row, int64 (B,), with one number in [0, 1) per row (float64).

    >>> logits_BV = torch.tensor([[0.0, 1.0, 2.0]] * 2)
    >>> sample_next(logits_BV, torch.tensor([0.0, 0.9]).double(), SamplingParams()).tolist()
    [0, 2]

    Args:
        seen_BV: see `next_probs`.
    """
    if seen_BV is not None and params.repetition_penalty != 1:
        logits_BV = penalize(logits_BV.double(), seen_BV, params.repetition_penalty)
    if params.temperature == 0:
        return logits_BV.argmax(dim=-1)
    largest = k_largest(logits_BV, params.top_k)
    if largest is None:
        return inverse_cdf(next_probs(logits_BV, params), uniform_B)
    logits_Bk, ids_Bk = largest
    chosen_B = inverse_cdf(next_probs(logits_Bk, params), uniform_B)
    return ids_Bk.gather(1, chosen_B[:, None])[:, 0]


def k_largest(logits_BV: Tensor, k: int | None) -> tuple[Tensor, Tensor] | None:
    """Return what `keep_top_k` keeps: logits and ids (B, k), ids ascending in each row.

    The remaining steps then run on k numbers in float64 instead of V. Returns None where that is
    not faster or not equal: V is small, k keeps all, the k-th and the next logit are equal, or
    checking that would require waiting for a GPU.

    >>> logits_BV = torch.arange(300.0)[None]
    >>> k_largest(logits_BV, 2)
    (tensor([[298., 299.]]), tensor([[298, 299]]))
    """
    V = logits_BV.shape[-1]
    if not k or k >= V or V <= SMALL_VOCAB_THRESHOLD or not _host_can_read(logits_BV):
        return None
    values, ids = logits_BV.topk(k + 1, dim=-1)  # each (B, k + 1)
    if _has_ties(values[:, -2:]):
        return None
    ids_Bk = ids[:, :k].sort(dim=-1).values
    return logits_BV.gather(1, ids_Bk), ids_Bk


def _host_can_read(logits_BV: Tensor) -> bool:
    """Return whether the host can read values without a GPU sync; False under torch.compile."""
    return not (logits_BV.is_cuda or torch.compiler.is_compiling())


def _has_ties(edge_B2: Tensor) -> bool:
    return any(last == next_ for last, next_ in edge_B2.tolist())  # on a CPU faster than tensors


def chosen_logprobs(logits_BV: Tensor, ids_B: Tensor) -> Tensor:
    """Return the log-probability of one id per row under the unfiltered logits, in nats, (B,).

    NaN where a logit is NaN or +inf, or all are -inf: then the model is damaged.

    >>> chosen_logprobs(torch.zeros(1, 4), torch.tensor([2])).exp().tolist()
    [0.25]
    """
    return logits_BV.log_softmax(dim=-1).gather(1, ids_B[:, None])[:, 0]


def sample_seeds(seed: int, n_samples: int) -> list[int]:
    """Return n seeds derived from one. Seed i does not depend on n_samples.

    >>> sample_seeds(1, 3)[:2] == sample_seeds(1, 2)
    True
    """
    # A hash, because with seed + i, sample 1 of seed 0 would be sample 0 of seed 1.
    names = [f"{seed} {i}".encode("ascii") for i in range(n_samples)]
    return [int.from_bytes(hashlib.sha256(name).digest()[:7], "big") for name in names]  # < 2^56


class UniformStreams:
    """Random numbers in [0, 1): each row has its own generator and takes one number per token."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.generators = [Generator().manual_seed(seed) for seed in seeds]
        self.device, self.n_tokens = device, 0

    def next(self) -> Tensor:
        """Return the next number of each row, float64 (B,)."""
        index = self.n_tokens % UNIFORMS_PER_CHUNK
        if index == 0:
            size = (UNIFORMS_PER_CHUNK,)
            columns = [torch.rand(size, generator=g, dtype=torch.float64) for g in self.generators]
            self.uniform_TB = torch.stack(columns, dim=1).to(self.device)
        self.n_tokens += 1
        return self.uniform_TB[index]

    def compact(self, moves: Sequence[tuple[int, int]], n_rows: int) -> None:
        """Copy rows (source, target) in turn, then keep only the first n_rows."""
        for source, target in moves:
            self.generators[target] = self.generators[source]
            self.uniform_TB[:, target] = self.uniform_TB[:, source]
        del self.generators[n_rows:]
        self.uniform_TB = self.uniform_TB[:, :n_rows]


class TokenSelector:
    """Chooses next ids. Until `compact` it writes into the same tensors, as CUDA graphs require."""

    def __init__(
        self, params: SamplingParams, n_rows: int, vocab_size: int, device: torch.device
    ) -> None:
        self.params = params
        # Ids are chosen in float64, which mps lacks.
        self.device = torch.device("cpu") if device.type == "mps" else device
        self.uniform_B = torch.zeros(n_rows, dtype=torch.float64, device=self.device)
        # The ids and their log-probabilities: float64 holds both.
        self.chosen_2B = torch.zeros(2, n_rows, dtype=torch.float64, device=self.device)
        self.seen_BV: Tensor | None = None
        if params.repetition_penalty != 1:
            self.seen_BV = torch.zeros(n_rows, vocab_size, dtype=torch.bool, device=self.device)

    def reset(self, prompts: Sequence[Sequence[int]]) -> None:
        """Start with new prompts: only their ids count as seen for the repetition penalty."""
        if self.seen_BV is not None:
            self.seen_BV.zero_()
            for seen_V, prompt in zip(self.seen_BV, prompts, strict=True):
                seen_V[list(prompt)] = True

    def select(self, logits_BV: Tensor) -> Tensor:
        """Return the next id of each row, using `uniform_B`; also write it into `chosen_2B`."""
        logits_BV = logits_BV.to(self.device)
        ids_B = sample_next(logits_BV, self.uniform_B, self.params, self.seen_BV)
        self.chosen_2B[0].copy_(ids_B)
        self.chosen_2B[1].copy_(chosen_logprobs(logits_BV, ids_B))
        if self.seen_BV is not None:
            self.seen_BV.scatter_(1, ids_B[:, None], True)
        return ids_B

    def compact(self, moves: Sequence[tuple[int, int]], n_rows: int) -> None:
        """Copy rows (source, target) in turn, then keep only the first n_rows."""
        # Only seen_BV copies rows: the next step overwrites the other two before they are read.
        self.uniform_B = self.uniform_B[:n_rows]
        self.chosen_2B = self.chosen_2B[:, :n_rows].clone()  # contiguous
        if self.seen_BV is not None:
            for source, target in moves:
                self.seen_BV[target] = self.seen_BV[source]
            self.seen_BV = self.seen_BV[:n_rows]
