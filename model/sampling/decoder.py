"""Decoding with a KV cache: each step computes only the newest token of each row (sample).

`TinyGPT.forward` computes all positions of a row. `Decoder.step` computes one position and reads
the others from the cache. For a single row, most of the time goes into starting operations and
reading weights. So the step spells out what the modules compute, in few operations, and calls no
module. Tests compare it with `forward`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.attention import KeysValues, split_heads
from model.bigram import hash_pairs
from model.config import ModelConfig
from model.eval_mode import eval_mode
from model.layers import apply_rope, rope_table
from model.sampling.inference_weights import InferenceWeights, Layer
from model.sampling.kv_cache import KVCache, StaticKVCache

Rope = tuple[Tensor, Tensor]


class Decoder:
    """A model with a KV cache: it prefills prompts, then continues them token by token.

    Beyond block_size: with RoPE, a token sees itself and the block_size - 1 tokens before it, at
    their absolute positions. Learned positions end at block_size, so a full row is prefilled again
    with the last half of its tokens.
    """

    def __init__(
        self,
        weights: InferenceWeights,
        prompts: Sequence[Sequence[int]],
        cache_size: tuple[int, int],
        static: bool = False,
    ) -> None:
        """Allocate one row per prompt, each of 1 to block_size ids.

        Args:
            cache_size: see `cache_size_for`.
            static: allow CUDA graphs of `compute`, see `model.sampling.kv_cache.StaticKVCache`.
        """
        self.weights, self.model, self.config = weights, weights.model, weights.model.config
        self.embedding = weights.embedding
        lengths = [len(prompt) for prompt in prompts]
        n_slots, n_positions = cache_size
        make_cache = StaticKVCache if static else KVCache
        self.cache = make_cache(self.config, lengths, n_slots, self.embedding)
        self.rope = self._rope_table(n_positions) if self.config.position == "rope" else None

    def reset(self, prompts: Sequence[Sequence[int]]) -> None:
        """Empty the cache for the same number of prompts; `prefill` reads them."""
        self.cache.reset([len(prompt) for prompt in prompts])

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read the prompts, equal ones once; return the logits (B, V) of the next token."""
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(prompts):
            rows_of.setdefault(tuple(prompt), []).append(row)
        h_BD = self.embedding.new_empty(len(prompts), self.config.n_embd)
        for prompt, rows in rows_of.items():
            ids_T = torch.tensor(prompt, device=self.embedding.device)
            h_BD[rows] = self._prefill_rows(ids_T, rows, self.cache.starts[rows[0]])
        return self._logits(h_BD)

    def step(self, ids_B: Tensor) -> Tensor:
        """Append one id to each row, int64; return the logits (B, V) of the token after it."""
        self.prepare()
        return self.compute(ids_B)

    def prepare(self) -> None:
        """Do the host's part: shorten full rows, advance the cache, extend the RoPE table."""
        if self.config.position == "learned":
            self._shorten_full_rows()
        self.cache.advance()
        if self.rope is not None and self.cache.column >= len(self.rope[0]):
            self.rope = self._rope_table(2 * self.cache.column)

    def compute(self, ids_B: Tensor) -> Tensor:
        """Do the device's part of a step. With a `StaticKVCache` a CUDA graph can capture it."""
        cache, weights = self.cache, self.weights
        previous_B = cache.previous_ids() if self.config.bigram_rows else None
        cache.append_ids(ids_B)
        x_BD, rope = self._embed(ids_B, previous_B)
        if self.config.pointer:
            cache.write_pointer_value(self._pointer_values(ids_B))
        mask_X1n = self._mask_by_heads()
        targets, kv_views = cache.layer_views()
        for i, layer in enumerate(weights.layers):
            q_BGrK, kv_2BGK = self._queries_keys_values(layer, x_BD, rope)
            cache.write(targets[i], kv_2BGK)
            y_BGrK = weights.attention(q_BGrK, kv_views[2 * i], kv_views[2 * i + 1], mask_X1n)
            x_BD = layer.attn_proj(y_BGrK.flatten(1), x_BD)  # x + proj(y)
            h_BD = layer.mlp_norm(x_BD)
            hidden = layer.fc(h_BD)
            if layer.gate is None:
                hidden = weights.activate(hidden)
            else:
                hidden = weights.activate(layer.gate(h_BD)) * hidden
            x_BD = layer.mlp_proj(hidden, x_BD)
        return self._logits(weights.final_norm(x_BD))

    def _mask_by_heads(self) -> Tensor | None:
        """Return what all layers add to the scores of each row and head of keys, (B * G, 1, n)."""
        mask_Bn, G = self.cache.mask(), self.config.kv_heads
        if mask_Bn is None:
            return None
        return mask_Bn[:, None, None].expand(-1, G, 1, -1).flatten(0, 1)

    def _queries_keys_values(
        self, layer: Layer, x_BD: Tensor, rope: Rope | None
    ) -> tuple[Tensor, Tensor]:
        """Return queries (B, G, r, K), and keys and values (2, B, G, K)."""
        config = self.config
        qkv_BN = layer.qkv(layer.attn_norm(x_BD))
        if config.qk_norm or rope is not None:
            qk_BXK, v_BGK = split_heads(qkv_BN, config)
            if config.qk_norm:
                qk_BXK = torch.rms_norm(qk_BXK, (config.head_dim,), None, config.norm_eps)
            if layer.qk_gain is not None:
                qk_BXK = qk_BXK * layer.qk_gain
            if rope is not None:
                qk_BXK = apply_rope(qk_BXK, *rope)
            qkv_BN = torch.cat((qk_BXK, v_BGK), dim=1).flatten(1)
        G, K = config.kv_heads, config.head_dim
        q, k, v = config.qkv_sizes
        q_BN, kv_BN = qkv_BN.split((q, k + v), dim=1)  # one view of both, for one copy to the cache
        q_BGrK, kv_B2GK = q_BN.unflatten(1, (G, -1, K)), kv_BN.unflatten(1, (2, G, K))
        return q_BGrK.contiguous(), kv_B2GK.transpose(0, 1)

    def _embed(self, ids_B: Tensor, previous_B: Tensor | None) -> tuple[Tensor, Rope | None]:
        """Return the input of the first block (B, D), and cosine and sine of the positions."""
        cache, n_rows = self.cache, self.config.bigram_rows
        x_BD = F.embedding(ids_B, self.embedding)  # a new tensor, so in-place additions are safe
        if previous_B is not None:
            V = self.config.vocab_size
            if (is_first_B := cache.is_first()) is not None:
                previous_B = previous_B.masked_fill(is_first_B, V)
            rows_B = hash_pairs(previous_B, ids_B, V, n_rows)
            x_BD.add_(F.embedding(rows_B, self.model.bigram_embedding.weight))
        positions = cache.positions()
        if self.config.position == "learned":
            x_BD.add_(self.model.position_embedding.weight[positions])
        if self.weights.embedding_norm is not None:
            x_BD = self.weights.embedding_norm(x_BD)
        if self.rope is None:
            return x_BD, None
        cos_TK, sin_TK = self.rope
        return x_BD, (cos_TK[positions][:, None], sin_TK[positions][:, None])

    def _rope_table(self, n_positions: int) -> Rope:
        """Return the model's RoPE table, extended to `n_positions`."""
        dtype = torch.promote_types(self.embedding.dtype, torch.float32)
        config = self.config
        cos_TK, sin_TK = rope_table(n_positions, config.head_dim, config.rope_theta, dtype)
        return cos_TK.to(self.embedding), sin_TK.to(self.embedding)

    def _logits(self, h_BD: Tensor) -> Tensor:
        """Return logits (B, V) from the final norm's output at the newest column."""
        if not self.config.pointer:
            return self._head(h_BD)
        retrieved_BD, gains_Bn = self._point(h_BD)
        logits_BV = self._head(h_BD + retrieved_BD)
        dtype = torch.promote_types(logits_BV.dtype, torch.float32)
        ids_Bn = self.cache.ids_BS[:, : self.cache.n_visible]
        return logits_BV.to(dtype).scatter_add(1, ids_Bn, gains_Bn.to(dtype))

    def _head(self, h_BD: Tensor) -> Tensor:
        logits_BV = self.weights.head(h_BD)
        if cap := self.config.softcap:
            logits_BV = cap * self.weights.tanh(logits_BV / cap)
        return logits_BV

    def _point(self, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the retrieved embeddings (B, D), and the logit gain of each slot's id (B, n).

        It also stores the key of the next token, which is computed from h. The key of a row's
        oldest visible column was computed from the column before it, which is not visible. So that
        slot means "none of them", as column 0 does in training.
        """
        cache, n, D = self.cache, self.cache.n_visible, self.config.n_embd
        B = len(cache.starts)
        # The weights of the query are already divided by sqrt(D).
        query_BD, key_BD, gate_B1 = self.weights.pointer_inputs(h_BD).split((D, D, 1), dim=1)
        keys_BnD, values_BnD = cache.pointer_2BSD[:, :, :n]
        query_BD1 = query_BD[:, :, None]
        if B == 1:  # bmm adds in another order for a batch of one product
            keys_BnD, query_BD1 = keys_BnD.expand(2, -1, -1), query_BD1.expand(2, -1, -1)
        scores_Bn = torch.bmm(keys_BnD, query_BD1)[:B, :, 0]
        mask_Bn, none_B1 = cache.mask(), cache.oldest_slot()
        if mask_Bn is not None:
            scores_Bn = scores_Bn + mask_Bn
        weights_Bn = scores_Bn.scatter(1, none_B1, 0.0).softmax(dim=-1).scatter(1, none_B1, 0.0)
        found_BD = torch.bmm(weights_Bn[:, None], values_BnD)[:, 0]
        retrieved_BD = self.weights.pointer_out(found_BD)
        gains_Bn = self.weights.softplus(gate_B1 + self.model.pointer.gate.bias) * weights_Bn
        cache.write_pointer_key(key_BD)
        return retrieved_BD, gains_Bn

    def _pointer_values(self, ids: Tensor) -> Tensor:
        return F.layer_norm(F.embedding(ids, self.embedding), (self.config.n_embd,))

    def _shorten_full_rows(self) -> None:
        """Prefill rows of block_size tokens again with their last half; for learned positions."""
        cache, size = self.cache, self.config.block_size
        n_columns, n_kept, starts = cache.column + 1, size // 2, list(cache.starts)
        full = [row for row, start in enumerate(starts) if n_columns - start == size]
        if not full:
            return
        last_BT = cache.ids_BS[:, cache.slots(n_columns - n_kept, n_columns)]
        if len(full) == len(starts):  # all rows get the same length, so they can be aligned
            n_columns = n_kept
            cache.align_rows([n_kept] * len(starts))
        for row in full:
            starts[row] = n_columns - n_kept
        cache.set_starts(starts)
        for row in full if n_kept else ():
            self._prefill_rows(last_BT[row], [row], starts[row])

    def _prefill_rows(self, ids_T: Tensor, rows: Sequence[int], first: int) -> Tensor:
        """Fill the rows with a context from column `first` on; return the last token's h, (D,).

        h is the final norm's output. Each context is computed separately, so that a row does not
        depend on other rows.
        """
        cache, T = self.cache, len(ids_T)
        slots_T = cache.slots(first, first + T)
        rows_R1 = torch.tensor(rows, device=ids_T.device)[:, None]
        kv_L: list[KeysValues] = []
        with eval_mode(self.model):
            h_TD = self.model.hidden(ids_T[None], kv_out=kv_L)[0]
        for kv_2BGSK, kv in zip(cache.kv_L2BGSK, kv_L, strict=True):
            for cached_BGSK, new_1GTK in zip(kv_2BGSK, kv, strict=True):
                cached_BGSK[rows_R1, :, slots_T] = new_1GTK.transpose(1, 2)
        cache.ids_BS[rows_R1, slots_T] = ids_T
        if self.config.pointer:
            keys_TD, values_TD = self.model.pointer.key(h_TD), self._pointer_values(ids_T)
            after_T = cache.slots(first + 1, first + 1 + T)  # a key is stored with the next token
            cache.pointer_2BSD[0][rows_R1, after_T] = keys_TD
            cache.pointer_2BSD[1][rows_R1, slots_T] = values_TD
        return h_TD[-1]


def cache_size_for(
    config: ModelConfig,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    compiled: bool = False,
) -> tuple[int, int]:
    """Return the number of cache slots, and of positions in the first RoPE table.

    The two numbers differ only for compiled steps with RoPE, whose table must never grow. For
    compiled steps the number of tokens is rounded up to a power of two, so that few shapes are
    compiled. There are never more than block_size slots.

    >>> config, prompts = ModelConfig(vocab_size=11, block_size=64), [[1, 2, 3], [4]]
    >>> cache_size_for(config, prompts, 20), cache_size_for(config, prompts, 100, compiled=True)
    ((23, 23), (64, 128))
    """
    n_tokens = max(map(len, prompts)) + max_new_tokens
    if compiled:
        n_tokens = 1 << (n_tokens - 1).bit_length()
    n_slots = min(config.block_size, n_tokens)
    return n_slots, n_tokens if compiled and config.position == "rope" else n_slots
