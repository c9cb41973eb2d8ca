"""A pointer finds earlier positions where the model was about to predict something similar.

An ordinary attention head must learn for each word how to produce it again. A pointer stores, for
each earlier token, the hidden state before the token (the key) and the token itself (the value).
Where the present hidden state resembles a key, the pointer raises the logit of the token, so that
it can be copied. It also retrieves the token's embedding, so that it can be inflected ("knit
socks" and later "knitted socks").

It is a continuous cache (Grave et al. 2016, arXiv 1612.04426) with a learned comparison, inside one
softmax over the logits, and with a "none of them" option as in pointer sentinels (Merity et al.
2016, arXiv 1609.07843).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import causal_mask
from model.config import ModelConfig
from model.linear import Linear

# Before training, an attention weight of 1 raises a logit by about softplus of this bias, 2.1.
INITIAL_GATE_BIAS = 2.0


class Pointer(nn.Module):
    """a_ts = softmax over s <= t of q(h_t) . k(h_(s-1)) / sqrt(D), for token s; s = 0 is "none".

    For 1 <= s <= t, token s gets the logit gain softplus(gate(h_t)) * a_ts at position t. The
    output head reads h_t + out(sum of a_ts * layer_norm(e_s)), with the embedding e_s of token s.
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
        """Return the retrieved embeddings (B, T, D) and the logit gains (B, T, T).

        The gain [t, s] is added at position t to the logit of token s; it is 0 for s > t.

        Args:
            h_BTD: the blocks' output, after the final norm.
            embedded_BTD: the tokens' embeddings.
            mask_B1TT: True where a position may attend; None = causal.
        """
        D = h_BTD.shape[-1]
        # Shifted by one: the key of token s is the state before it. Column 0, zeros, means "none".
        keys_BTD = F.pad(self.key(h_BTD[:, :-1]), (0, 0, 1, 0))
        scores_BTT = self.query(h_BTD) @ keys_BTD.mT / D**0.5
        scores_BTT = scores_BTT.masked_fill(~self._allowed(h_BTD, mask_B1TT), float("-inf"))
        weights_BTT = F.pad(scores_BTT.softmax(dim=-1)[:, :, 1:], (1, 0))
        embedded_BTD = F.layer_norm(embedded_BTD, (D,))  # whatever its scale, to the scale of h
        retrieved_BTD = self.out(weights_BTT @ embedded_BTD.to(weights_BTT.dtype))
        return retrieved_BTD, F.softplus(self.gate(h_BTD)) * weights_BTT

    def _allowed(self, h_BTD: Tensor, mask_B1TT: Tensor | None) -> Tensor:
        """Return where s <= t and t may attend to position s - 1, bools (..., T, T).

        Column 0 is always True.
        """
        allowed_TT = causal_mask(h_BTD.shape[1], h_BTD.device)
        if mask_B1TT is None:
            return allowed_TT
        return allowed_TT & F.pad(mask_B1TT[:, 0, :, :-1], (1, 0), value=True)
