"""A pointer: attention weights that raise the logits of the tokens they fall on.

An ordinary head must learn for each word how to write it again; a pointer can copy any token it
finds. After Merity et al. 2016, "Pointer sentinel mixture models" (arXiv 1609.07843), but added to
the logits instead of mixed with the probabilities, so that one softmax stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import causal_mask

if TYPE_CHECKING:
    from model.gpt import ModelConfig

GATE_START = 2.0  # how far a weight of 1 raises a logit at the start, before softplus


class Pointer(nn.Module):
    """gate(h_t) * softmax over s <= t of q(h_t) . k(h_s, e_s), as what token s gains at place t."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.key = nn.Linear(2 * config.n_embd, config.n_embd, bias=False)
        self.gate = nn.Linear(config.n_embd, 1)

    def forward(self, h_BTD: Tensor, embedded_BTD: Tensor, mask_B1TT: Tensor | None) -> Tensor:
        """What place t adds to the logit of the token at s: (B, T, T), 0 where s > t.

        Args:
            h_BTD: what the head reads.
            embedded_BTD: the tokens' embeddings.
            mask_B1TT: True where a place may look, instead of its whole past.
        """
        D = h_BTD.shape[-1]
        embedded_BTD = F.layer_norm(embedded_BTD, (D,))  # of any spread, as wide as h
        scores_BTT = self.query(h_BTD) @ self.key(torch.cat((h_BTD, embedded_BTD), -1)).mT
        allowed = (
            causal_mask(h_BTD.shape[1], h_BTD.device) if mask_B1TT is None else mask_B1TT[:, 0]
        )
        scores_BTT = (scores_BTT / D**0.5).masked_fill(~allowed, float("-inf"))
        return F.softplus(self.gate(h_BTD)) * scores_BTT.softmax(dim=-1)
