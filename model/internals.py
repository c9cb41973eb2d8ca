"""What a model computes on the way to its logits: the residual stream and attention weights.

For learners and tools. Nothing here runs in training or sampling, so that these stay fast.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.attention import document_mask
from model.eval_mode import eval_mode, unwrap
from model.gpt import Block, TinyGPT
from model.layers import check_ids


class Internals(NamedTuple):
    """The intermediate results of one forward pass."""

    logits_BTV: Tensor
    hidden: list[Tensor]
    """The residual stream (B, T, D): the first block's input, then each block's output;
    all before the final norm."""
    attention: list[Tensor]
    """Attention weights of each block, (B, H, T, T): [t, s] is how much token t reads token s."""
    gains_BTT: Tensor | None
    """What the pointer adds at position t to the logit of token s; None without a pointer."""


@torch.no_grad()
def internals(model: nn.Module, ids_BT: Tensor, *, doc_BT: Tensor | None = None) -> Internals:
    """Return logits, hidden states and attention weights, without dropout.

    Args:
        model: a TinyGPT, which may be compiled or wrapped.
        ids_BT: token ids, T at most block_size.
        doc_BT: document number of each token; attention is then limited to the document.

    Raises:
        ValueError: T is above block_size, or an id is not in the vocabulary.

    >>> from model.config import ModelConfig
    >>> model = TinyGPT(ModelConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=8))
    >>> inside = internals(model, torch.tensor([[1, 2, 3]]))
    >>> len(inside.hidden), inside.attention[0].shape
    (3, torch.Size([1, 2, 3, 3]))
    >>> inside.attention[1].sum(-1).allclose(torch.ones(1, 2, 3))
    True
    """
    raw = unwrap(model)
    assert isinstance(raw, TinyGPT)
    ids_BT = check_ids(ids_BT, raw.config.vocab_size)
    mask_B1TT = None if doc_BT is None else document_mask(doc_BT)
    attention: list[Tensor] = []
    with eval_mode(raw):
        rope = raw.rope(ids_BT.shape[1])
        hidden = [raw.embed(ids_BT, doc_BT=doc_BT)]
        for block in raw.blocks:
            assert isinstance(block, Block)
            attention.append(block.attn.weights(block.attn_norm(hidden[-1]), rope, mask_B1TT))
            hidden.append(block(hidden[-1], rope, mask_B1TT))
        h_BTD, gains_BTT = raw.final_norm(hidden[-1]), None
        if raw.config.pointer:
            _, gains_BTT = raw.pointer(h_BTD, raw.token_embedding(ids_BT), mask_B1TT)
        logits_BTV = raw.output(h_BTD, ids_BT, mask_B1TT)
    return Internals(logits_BTV, hidden, attention, gains_BTT)
