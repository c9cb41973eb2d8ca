"""A pointer: finds earlier places where the model was about to say the same kind of thing.

An ordinary head must learn for each word how to write it again. A pointer keeps, for each earlier
place, what the model thought before a token came (the key) and the token that came (the value).
Where the model now thinks alike, that token is raised in the logits, to be copied, and its
embedding is read, to be put into another form ("knit socks" and later "knitted socks").

A continuous cache (Grave et al. 2016, arXiv 1612.04426) with learned comparison, inside one softmax
over the logits, and with a place for "none of them", as in pointer sentinels (Merity et al. 2016,
arXiv 1609.07843).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import causal_mask
from model.config import ModelConfig
from model.linear import Linear

GATE_START = 2.0  # how far a weight of 1 raises a logit at the start, before softplus


class Pointer(nn.Module):
    """a_ts = softmax over s <= t of q(h_t) . k(h_(s-1)), for token s; s = 0 stands for none.

    Over 1 <= s <= t, token s gains gate(h_t) * a_ts at place t, and the head reads
    h_t + out(sum of a_ts * layer_norm(e_s)).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.query = Linear(config.n_embd, config.n_embd, bias=False)
        self.key = Linear(config.n_embd, config.n_embd, bias=False)
        self.out = Linear(config.n_embd, config.n_embd, bias=False)
        self.gate = Linear(config.n_embd, 1)

    def forward(
        self, h_BTD: Tensor, embedded_BTD: Tensor, mask_B1TT: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What place t reads, (B, T, D), and adds to the logit of token s, (B, T, T), 0 for s > t.

        Args:
            h_BTD: what the blocks give, after the final norm.
            embedded_BTD: the tokens' embeddings.
            mask_B1TT: True where a place may look, instead of its whole past.
        """
        D = h_BTD.shape[-1]
        # One place back: token s is found by what was thought before it. Column 0 is none of them.
        keys_BTD = F.pad(self.key(h_BTD[:, :-1]), (0, 0, 1, 0))
        scores_BTT = self.query(h_BTD) @ keys_BTD.mT / D**0.5
        weights_BTT = scores_BTT.masked_fill(~self._allowed(h_BTD, mask_B1TT), float("-inf"))
        found_BTT = F.pad(weights_BTT.softmax(dim=-1)[:, :, 1:], (1, 0))
        embedded_BTD = F.layer_norm(embedded_BTD, (D,))  # of any spread, as wide as h
        read_BTD = self.out(found_BTT @ embedded_BTD.to(found_BTT.dtype))
        return read_BTD, F.softplus(self.gate(h_BTD)) * found_BTT

    def _allowed(self, h_BTD: Tensor, mask_B1TT: Tensor | None) -> Tensor:
        """Where s <= t, and place s - 1 is one that t may look at; column 0 always. (..., T, T)"""
        allowed_TT = causal_mask(h_BTD.shape[1], h_BTD.device)
        if mask_B1TT is None:
            return allowed_TT
        return allowed_TT & F.pad(mask_B1TT[:, 0, :, :-1], (1, 0), value=True)
