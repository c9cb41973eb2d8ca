"""Causal self-attention with several heads."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig
from model.layers import RMSNorm, apply_rope
from model.linear import Linear

KeysValues = tuple[Tensor, Tensor]  # each (B, G, T, K); the keys are rotated


def causal_mask(length: int, device: torch.device | str | None = None) -> Tensor:
    """Return bools (T, T): True where the token of the row may attend to the token of the column.

    >>> causal_mask(3).int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def document_mask(doc_BT: Tensor) -> Tensor:
    """Return a causal mask within documents, bools (B, 1, T, T).

    Args:
        doc_BT: document number of each token.

    >>> document_mask(torch.tensor([[0, 0, 1]]))[0, 0].int().tolist()
    [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    """
    same_BTT = doc_BT[:, :, None] == doc_BT[:, None, :]
    return (same_BTT & causal_mask(doc_BT.shape[1], doc_BT.device))[:, None]


def split_qkv(qkv: Tensor, config: ModelConfig, dim: int = -1) -> tuple[Tensor, Tensor, Tensor]:
    """Split an output of `attn.qkv`, or with dim 0 its weights, into q, k and v of all heads.

    >>> [part.tolist() for part in split_qkv(torch.arange(6), ModelConfig(n_head=1, n_embd=2))]
    [[0, 1], [2, 3], [4, 5]]
    """
    q, k, v = qkv.split(config.qkv_sizes, dim)
    return q, k, v


def split_heads(qkv: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Split (..., N), the output of `attn.qkv`, into heads: (..., H + G, K) and (..., G, K).

    The first tensor has the queries' heads, then the keys' heads, because norm and rotation treat
    them alike and each split costs a copy in the backward pass. The second has the values' heads.
    """
    n_q, n_k, n_v = config.qkv_heads
    qk, v = qkv.unflatten(-1, (-1, config.head_dim)).split((n_q + n_k, n_v), dim=-2)
    return qk, v


class CausalSelfAttention(nn.Module):
    """softmax(q k^T / sqrt(K)) v over each token's past. Vaswani et al. 2017, arXiv 1706.03762.

    With G < H heads of keys and values, each serves H / G neighbouring heads of queries:
    grouped-query attention, Ainslie et al. 2023, arXiv 2305.13245.

    Two implementations with equal results: "sdpa" calls PyTorch's fused kernel, "manual" computes
    the formula step by step.
    """

    mask_TT: Tensor  # causal; only with "manual"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.dropout = config.dropout
        self.manual = config.attention == "manual"
        self.qkv = Linear(config.n_embd, sum(config.qkv_sizes), bias=config.bias)
        self.proj = Linear(config.qkv_sizes[0], config.n_embd, bias=config.bias)
        norm = (config.head_dim, config.norm_eps, config.norm_gain)
        self.q_norm = RMSNorm(*norm) if config.qk_norm else None
        self.k_norm = RMSNorm(*norm) if config.qk_norm else None
        self.proj_dropout = nn.Dropout(config.dropout)
        if self.manual:
            self.register_buffer("mask_TT", causal_mask(config.block_size), persistent=False)

    def forward(
        self,
        x_BTD: Tensor,
        rope: tuple[Tensor, Tensor] | None = None,
        mask_B1TT: Tensor | None = None,
        kv_out: list[KeysValues] | None = None,
    ) -> Tensor:
        """Return the attention output, (B, T, D), for normed inputs (B, T, D).

        Args:
            rope: cosine and sine of these T positions, each (T, 1, K); None for no rotation.
            mask_B1TT: True where a token may attend; None = causal.
            kv_out: a list to which keys and values are appended, for a KV cache.
        """
        q_BHTK, k_BGTK, v_BGTK = self._heads(self.qkv(x_BTD), rope)
        if kv_out is not None:
            kv_out.append((k_BGTK, v_BGTK))
        attend = self._attend_manual if self.manual else self._attend_fused
        y_BHTK = attend(q_BHTK, k_BGTK, v_BGTK, mask_B1TT)
        return self.proj_dropout(self.proj(y_BHTK.transpose(1, 2).flatten(2)))

    def _heads(
        self, qkv_BTN: Tensor, rope: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, H, T, K), keys and values (B, G, T, K): split, norm, then rotate."""
        if rope is None and self.q_norm is None:
            q_BHTK, k_BGTK, v_BGTK = (
                part_BTN.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)
                for part_BTN in split_qkv(qkv_BTN, self.config)
            )
            return q_BHTK, k_BGTK, v_BGTK
        n_heads = self.config.qkv_heads[:2]
        qk_BTXK, v_BTGK = split_heads(qkv_BTN, self.config)
        if self.q_norm is not None and self.q_norm.weight is None:  # no gain: one call for q and k
            qk_BTXK = self.q_norm(qk_BTXK)
        elif self.q_norm is not None and self.k_norm is not None:
            q_BTHK, k_BTGK = qk_BTXK.split(n_heads, dim=2)
            qk_BTXK = torch.cat((self.q_norm(q_BTHK), self.k_norm(k_BTGK)), dim=2)
        # After the norms, as in Qwen3. Without gain the order is irrelevant: RoPE keeps lengths.
        if rope is not None:
            qk_BTXK = apply_rope(qk_BTXK, *rope).to(v_BTGK.dtype)
        q_BHTK, k_BGTK = qk_BTXK.transpose(1, 2).split(n_heads, dim=1)
        return q_BHTK, k_BGTK, v_BTGK.transpose(1, 2)

    def _attend_fused(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        # The function below ignores eval mode: without this line, evaluations would use dropout.
        dropout = self.dropout if self.training else 0.0
        # On a GPU, PyTorch's fast kernels for fp32 and for masks do not accept groups.
        if q.device.type != "cpu":
            k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=mask is None,
            enable_gqa=k.shape[1] != q.shape[1],
        )

    def _attend_manual(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        T = q.shape[2]
        weights_BHTT = attention_weights(q, k, self.mask_TT[:T, :T] if mask is None else mask)
        v_BHTK = repeat_heads(v, q.shape[1])
        return F.dropout(weights_BHTT, self.dropout, self.training).to(v.dtype) @ v_BHTK

    def weights(
        self, x_BTD: Tensor, rope: tuple[Tensor, Tensor] | None, mask_B1TT: Tensor | None
    ) -> Tensor:
        """Return the attention weights (B, H, T, T), without dropout; arguments as in `forward`."""
        q_BHTK, k_BGTK, _ = self._heads(self.qkv(x_BTD), rope)
        mask = causal_mask(x_BTD.shape[1], x_BTD.device) if mask_B1TT is None else mask_B1TT
        return attention_weights(q_BHTK, k_BGTK, mask)


def repeat_heads(x_BGTK: Tensor, n_head: int) -> Tensor:
    """Return (B, H, T, K): each of the G heads repeated for the n_head / G heads of queries.

    >>> repeat_heads(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1), 4).flatten().tolist()
    [1.0, 1.0, 2.0, 2.0]
    """
    n_queries = n_head // x_BGTK.shape[1]
    return x_BGTK.repeat_interleave(n_queries, dim=1) if n_queries > 1 else x_BGTK


def attention_weights(q_BHTK: Tensor, k_BGTK: Tensor, mask: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(K)), (B, H, T, T), where the mask is True; 0 elsewhere.

    >>> q = torch.zeros(1, 2, 2, 4)  # two heads of queries share one head of keys
    >>> attention_weights(q, q[:, :1], causal_mask(2))[0, 1].tolist()
    [[1.0, 0.0], [0.5, 0.5]]
    """
    k_BHTK = repeat_heads(k_BGTK, q_BHTK.shape[1])
    scores_BHTT = q_BHTK @ k_BHTK.transpose(-2, -1) / math.sqrt(q_BHTK.shape[-1])
    return scores_BHTT.masked_fill(~mask, float("-inf")).softmax(dim=-1)
