"""SamplingParams: logits -> the next id. Filters, the draw itself, and a seed for each sample."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

ROUNDING = 1e-9  # a sum of probabilities this close below top_p has reached it
UNIFORMS_PER_CHUNK = 256  # of each generator: one by one they would cost more than the choice
SMALL_VOCAB_THRESHOLD = (
    256  # then float64, or to compare all pairs, costs less than to find the k largest
)


@dataclass(frozen=True)
class SamplingParams:
    """How an id is drawn: by repetition penalty, temperature, top_k, top_p and min_p, in turn.

    >>> SamplingParams(temperature=0.8, top_k=50).top_p
    1.0

    Args:
        temperature: divides the logits; 0 takes the largest.
        top_k: see `keep_top_k`.
        top_p: see `keep_top_p`.
        min_p: see `keep_min_p`.
        repetition_penalty: see `penalize`.

    Raises:
        ValueError: names the first setting that is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        top_k = self.top_k or 0
        checks = (
            ("temperature", 0 <= self.temperature < math.inf, "0 or more, and finite"),
            ("top_k", isinstance(top_k, int) and top_k >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 to 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0, and finite"),
        )
        for name, holds, words in checks:
            if not holds:
                raise ValueError(f"{name} must be {words}, got {getattr(self, name)}")


def keep_top_k(logits_BV: Tensor, k: int | None) -> Tensor:
    """Leaves the k largest logits of each row and sets the others to -inf.

    0, None and k >= V leave all. Of equal logits the smaller id stays.

    >>> keep_top_k(torch.tensor([[1.0, 3.0, 2.0, 2.0]]), 2).tolist()
    [[-inf, 3.0, 2.0, -inf]]

    Raises:
        ValueError: k is negative.
    """
    SamplingParams(top_k=k)
    if not k or k >= logits_BV.shape[-1]:
        return logits_BV
    if not _may_ask(logits_BV):
        if logits_BV.shape[-1] <= SMALL_VOCAB_THRESHOLD:
            return logits_BV.masked_fill(ranks(logits_BV) >= k, -math.inf)
        smallest_B1 = logits_BV.topk(k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
    else:
        edge_B2 = logits_BV.topk(k + 1, dim=-1).values[:, -2:]
        smallest_B1 = edge_B2[:, :1]
        if not _has_ties(edge_B2):
            return logits_BV.masked_fill(logits_BV < smallest_B1, -math.inf)
    above_BV, ties_BV = logits_BV > smallest_B1, logits_BV == smallest_B1
    room_B1 = k - above_BV.sum(dim=-1, keepdim=True)
    keep_BV = above_BV | (ties_BV & (ties_BV.cumsum(dim=-1) <= room_B1))
    return logits_BV.masked_fill(~keep_BV, -math.inf)


def ranks(logits_BV: Tensor) -> Tensor:
    """How many ids come before each one, the largest logit first, of equals the smaller id.

    All pairs are compared: for few logits a GPU does that faster than it sorts.

    >>> ranks(torch.tensor([[1.0, 3.0, 2.0, 2.0]])).tolist()
    [[3, 0, 1, 2]]
    """
    ids_V = torch.arange(logits_BV.shape[-1], device=logits_BV.device)
    mine_BV1, other_B1V = logits_BV[:, :, None], logits_BV[:, None]
    tie_first_VV = ids_V[None] < ids_V[:, None]
    before_BVV = torch.where(tie_first_VV, other_B1V >= mine_BV1, other_B1V > mine_BV1)
    return before_BVV.sum(dim=-1)


def keep_top_p(logits_BV: Tensor, p: float) -> Tensor:
    """Leaves the smallest set of likeliest ids whose probabilities reach p, the others become -inf.

    Nucleus sampling, Holtzman et al. 2019, arXiv 1904.09751. At least one id stays; p = 1 leaves
    all. Of equal probabilities the smaller id comes first.

    >>> logits_BV = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).log()
    >>> keep_top_p(logits_BV, 0.8).exp().round(decimals=3).tolist()
    [[0.0, 0.5, 0.3]]

    Raises:
        ValueError: p is not above 0 and at most 1.
    """
    SamplingParams(top_p=p)
    if p == 1:
        return logits_BV
    probs_BV, order_BV = logits_BV.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
    before_BV = probs_BV.cumsum(dim=-1) - probs_BV
    keep_sorted_BV = before_BV < p - ROUNDING
    keep_sorted_BV[:, 0] = True
    keep_BV = torch.zeros_like(keep_sorted_BV).scatter(-1, order_BV, keep_sorted_BV)
    return logits_BV.masked_fill(~keep_BV, -math.inf)


def keep_min_p(logits_BV: Tensor, p: float) -> Tensor:
    """Leaves the ids at least p times as likely as the likeliest, the others become -inf.

    Nguyen et al. 2024, arXiv 2407.01082. The likeliest always stays; p = 0 leaves all.

    >>> logits_BV = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).log()
    >>> keep_min_p(logits_BV, 0.5).exp().round(decimals=3).tolist()
    [[0.0, 0.5, 0.3]]

    Raises:
        ValueError: p is not from 0 to 1.
    """
    SamplingParams(min_p=p)
    if p == 0:
        return logits_BV
    # The same slack as for top_p, relative: what is p times as likely but for rounding stays.
    least_B1 = logits_BV.amax(dim=-1, keepdim=True) + math.log(p) - ROUNDING
    return logits_BV.masked_fill(logits_BV < least_B1, -math.inf)


def penalize(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Makes ids that stand in the context less likely: z / penalty where z > 0, else z * penalty.

    Keskar et al. 2019, "CTRL" (arXiv 1909.05858), section 4.1, in the form that Hugging Face gave
    it: dividing a negative logit would raise it. How often an id occurred makes no difference.
    1 changes nothing, less than 1 favours what was seen.

    >>> seen_BV = torch.tensor([[True, True, False]])
    >>> penalize(torch.tensor([[3.0, -1.0, 2.0]]), seen_BV, 2.0).tolist()
    [[1.5, -2.0, 2.0]]

    Raises:
        ValueError: the penalty is not above 0.
    """
    SamplingParams(repetition_penalty=penalty)
    if penalty == 1:
        return logits_BV
    less_BV = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return torch.where(seen_BV, less_BV, logits_BV)


def next_probs(logits_BV: Tensor, params: SamplingParams, seen_BV: Tensor | None = None) -> Tensor:
    """The distribution that is drawn from; (B, V) in float64.

    Temperature 0 puts everything on the largest logit (the smallest id among equals).

    >>> next_probs(torch.tensor([[1.0, 2.0, 2.0]]), SamplingParams(temperature=0)).tolist()
    [[0.0, 1.0, 0.0]]

    Args:
        seen_BV: True for the ids that stand in the context; None penalizes none.
    """
    logits_BV = logits_BV.double()
    if seen_BV is not None:
        logits_BV = penalize(logits_BV, seen_BV, params.repetition_penalty)
    if params.temperature == 0:
        return nn.functional.one_hot(logits_BV.argmax(-1), logits_BV.shape[-1]).double()
    if params.temperature != 1:
        # Largest first to 0: then no temperature, however small, makes an infinity.
        logits_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / params.temperature
    if params.top_k:
        logits_BV = keep_top_k(logits_BV, params.top_k)
    if params.top_p < 1:
        logits_BV = keep_top_p(logits_BV, params.top_p)
    if params.min_p > 0:
        logits_BV = keep_min_p(logits_BV, params.min_p)
    return logits_BV.softmax(dim=-1)


def inverse_cdf(probs_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The id of each row at which the running sum of probabilities passes its number in [0, 1).

    Never an id of probability 0. The rows need not sum to 1.

    >>> probs_BV = torch.tensor([[0.5, 0.0, 0.5]] * 3, dtype=torch.float64)
    >>> inverse_cdf(probs_BV, torch.tensor([0.49, 0.5, 0.999], dtype=torch.float64)).tolist()
    [0, 2, 2]
    """
    cdf_BV = probs_BV.cumsum(dim=-1)
    # A float64 below 1 is at most 1 - 2**-53, so the product never rounds up to the whole sum.
    ids_B1 = torch.searchsorted(cdf_BV, uniform_B[:, None] * cdf_BV[:, -1:], right=True)
    return ids_B1[:, 0].clamp_(max=probs_BV.shape[-1] - 1)  # beyond the last only if one is NaN


def sample_next(
    logits_BV: Tensor, uniform_B: Tensor, params: SamplingParams, seen_BV: Tensor | None = None
) -> Tensor:
    """Draws one id per row, int64 (B,), by each row's number in [0, 1) (float64).

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
    narrow = k_largest(logits_BV, params.top_k)
    if narrow is None:
        return inverse_cdf(next_probs(logits_BV, params), uniform_B)
    logits_Bk, ids_Bk = narrow
    chosen_B = inverse_cdf(next_probs(logits_Bk, params), uniform_B)
    return ids_Bk.gather(1, chosen_B[:, None])[:, 0]


def k_largest(logits_BV: Tensor, k: int | None) -> tuple[Tensor, Tensor] | None:
    """What `keep_top_k` leaves, without the others: logits and ids (B, k), ids rising in each row.

    Then k numbers go on in float64 instead of V. None where that does not pay or is not so easy:
    there are few logits, k leaves all, the k-th and the next logit are equal, or a GPU would have
    to be asked whether they are, and waited for.

    >>> logits_BV = torch.arange(300.0)[None]
    >>> k_largest(logits_BV, 2)
    (tensor([[298., 299.]]), tensor([[298, 299]]))
    """
    V = logits_BV.shape[-1]
    if not k or k >= V or V <= SMALL_VOCAB_THRESHOLD or not _may_ask(logits_BV):
        return None
    largest_Bk, ids_Bk = logits_BV.topk(k + 1, dim=-1)
    if _has_ties(largest_Bk[:, -2:]):
        return None
    ids_Bk = ids_Bk[:, :k].sort(dim=-1).values
    return logits_BV.gather(1, ids_Bk), ids_Bk


def _may_ask(logits_BV: Tensor) -> bool:
    """Whether the host may look at numbers: a GPU would be waited for, a compiler can't."""
    return not (logits_BV.is_cuda or torch.compiler.is_compiling())


def _has_ties(edge_B2: Tensor) -> bool:
    return any(last == next_ for last, next_ in edge_B2.tolist())  # on a CPU faster than tensors


def chosen_logprobs(logits_BV: Tensor, ids_B: Tensor) -> Tensor:
    """Log-probability in nats of one id per row under the logits as they are, (B,).

    NaN where a logit is NaN or +inf, or all are -inf: then the model is damaged.

    >>> chosen_logprobs(torch.zeros(1, 4), torch.tensor([2])).exp().tolist()
    [0.25]
    """
    return logits_BV.log_softmax(dim=-1).gather(1, ids_B[:, None])[:, 0]


def sample_seeds(seed: int, n_samples: int) -> list[int]:
    """A seed for each of several samples: the same first ones, however many are asked for.

    >>> sample_seeds(1, 3)[:2] == sample_seeds(1, 2)
    True
    """
    # A hash, as seed + i would make sample 1 of seed 0 the same as sample 0 of seed 1.
    names = [f"{seed} {i}".encode("ascii") for i in range(n_samples)]
    return [int.from_bytes(hashlib.sha256(name).digest()[:7], "big") for name in names]


class UniformStreams:
    """Numbers in [0, 1): each row has its own generator and takes one number from it per token."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.generators = [Generator().manual_seed(seed) for seed in seeds]
        self.device, self.n_taken = device, 0

    def next(self) -> Tensor:
        """The next number of each row, float64 (B,)."""
        place = self.n_taken % UNIFORMS_PER_CHUNK
        if place == 0:
            size = (UNIFORMS_PER_CHUNK,)
            columns = [torch.rand(size, generator=g, dtype=torch.float64) for g in self.generators]
            self.uniform_NB = torch.stack(columns, dim=1).to(self.device)
        self.n_taken += 1
        return self.uniform_NB[place]

    def compact(self, moves: Sequence[tuple[int, int]], n_rows: int) -> None:
        """Copy rows (source, target) in turn, then drop the rows from n_rows on."""
        for source, target in moves:
            self.generators[target] = self.generators[source]
            self.uniform_NB[:, target] = self.uniform_NB[:, source]
        del self.generators[n_rows:]
        self.uniform_NB = self.uniform_NB[:, :n_rows]


class TokenSelector:
    """Chooses the next id of each row, in the same tensors each time, as a CUDA graph needs it."""

    def __init__(
        self, params: SamplingParams, n_rows: int, vocab_size: int, device: torch.device
    ) -> None:
        self.params = params
        # Ids are chosen in float64, which mps does not have.
        self.device = torch.device("cpu") if device.type == "mps" else device
        self.uniform_B = torch.zeros(n_rows, dtype=torch.float64, device=self.device)
        # The ids and their log-probabilities: float64 holds both.
        self.chosen_2B = torch.zeros(2, n_rows, dtype=torch.float64, device=self.device)
        self.seen_BV: Tensor | None = None
        if params.repetition_penalty != 1:
            self.seen_BV = torch.zeros(n_rows, vocab_size, dtype=torch.bool, device=self.device)

    def begin(self, prompts: Sequence[Sequence[int]]) -> None:
        """Only the ids of the prompts count as seen, for the repetition penalty."""
        if self.seen_BV is not None:
            self.seen_BV.zero_()
            for seen_V, prompt in zip(self.seen_BV, prompts, strict=True):
                seen_V[list(prompt)] = True

    def select(self, logits_BV: Tensor) -> Tensor:
        """The next id of each row, by `uniform_B`; also written into `chosen_2B`."""
        logits_BV = logits_BV.to(self.device)
        ids_B = sample_next(logits_BV, self.uniform_B, self.params, self.seen_BV)
        self.chosen_2B[0].copy_(ids_B)
        self.chosen_2B[1].copy_(chosen_logprobs(logits_BV, ids_B))
        if self.seen_BV is not None:
            self.seen_BV.scatter_(1, ids_B[:, None], True)
        return ids_B

    def compact(self, moves: Sequence[tuple[int, int]], n_rows: int) -> None:
        """Copy rows (source, target) in turn, then drop the rows from n_rows on."""
        self.uniform_B = self.uniform_B[:n_rows]
        self.chosen_2B = self.chosen_2B[:, :n_rows].clone()
        if self.seen_BV is not None:
            for source, target in moves:
                self.seen_BV[target] = self.seen_BV[source]
            self.seen_BV = self.seen_BV[:n_rows]
