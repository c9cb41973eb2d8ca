"""One more token for each row, at the cost of one token: the model over a cache.

`TinyGPT.forward` computes all places of a row at once; `Decoder.step` computes one, and takes the
rest from the cache. For a single row little costs more than to start an operation and to read the
weights, so the step spells out what the modules do, in few operations, and calls none of them.
Tests hold it to `forward`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.attention import KeysValues
from model.bigram import hash_pairs
from model.config import ModelConfig
from model.eval_mode import eval_mode
from model.layers import apply_rope, rope_table
from model.sampling.inference_weights import InferenceWeights, Layer
from model.sampling.kv_cache import KVCache, StaticKVCache

Rope = tuple[Tensor, Tensor]


class Decoder:
    """A model that reads prompts, and then goes on token by token.

    Beyond block_size: with RoPE a token sees itself and the block_size - 1 before it, at their
    absolute places. With learned positions there is no place beyond the last, so a full row is read
    anew, from the last half of its tokens on.
    """

    def __init__(
        self,
        weights: InferenceWeights,
        prompts: Sequence[Sequence[int]],
        room: tuple[int, int],
        fixed: bool = False,
    ) -> None:
        """Makes room for one row per prompt, each of 1 to block_size ids.

        Args:
            room: see `cache_size_for`.
            fixed: `compute` can be recorded, see `model.sampling.kv_cache.StaticKVCache`.
        """
        self.weights, self.model, self.config = weights, weights.model, weights.model.config
        self.embedding = weights.embedding
        lengths = [len(prompt) for prompt in prompts]
        n_slots, n_positions = room
        self.cache = (StaticKVCache if fixed else KVCache)(
            self.config, lengths, n_slots, self.embedding
        )
        self.rope = self._rope_table(n_positions) if self.config.position == "rope" else None

    def begin(self, prompts: Sequence[Sequence[int]]) -> None:
        """Anew in the same room: as many prompts, none of them read yet."""
        self.cache.begin([len(prompt) for prompt in prompts])

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Reads the prompts, equal ones once; logits (B, V) of what may follow."""
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(prompts):
            rows_of.setdefault(tuple(prompt), []).append(row)
        h_BD = self.embedding.new_empty(len(prompts), self.config.n_embd)
        for prompt, rows in rows_of.items():
            ids_T = torch.tensor(prompt, device=self.embedding.device)
            h_BD[rows] = self._read(ids_T, rows, self.cache.starts[rows[0]])
        return self._logits(h_BD)

    def step(self, ids_B: Tensor) -> Tensor:
        """Takes the next id of each row, int64; logits (B, V) of what may follow it."""
        self.prepare()
        return self.compute(ids_B)

    def prepare(self) -> None:
        """The host's part of a step: to count, and to make room where none is left."""
        if self.config.position == "learned":
            self._make_place()
        self.cache.count()
        if self.rope is not None and self.cache.column >= len(self.rope[0]):
            self.rope = self._rope_table(2 * self.cache.column)

    def compute(self, ids_B: Tensor) -> Tensor:
        """The rest of a step. Over a `StaticKVCache` always the same, and without the host."""
        cache, weights = self.cache, self.weights
        before_B = cache.before() if self.config.bigram_rows else None
        cache.enter(ids_B)
        x_BD, rope = self._embed(ids_B, before_B)
        if self.config.pointer:
            cache.file_token(self._readable(ids_B))
        mask_X1n = self._mask_by_heads()
        targets, read = cache.layer_views()
        for i, layer in enumerate(weights.layers):
            q_BH1K, kv_2BHK = self._queries_keys_values(layer, x_BD, rope)
            cache.write(targets[i], kv_2BHK)
            y_BH1K = weights.batch_invariant_attention(
                q_BH1K, read[2 * i], read[2 * i + 1], mask_X1n
            )
            x_BD = layer.attn_proj(y_BH1K.flatten(1), x_BD)
            h_BD = layer.mlp_norm(x_BD)
            wide = layer.fc(h_BD)
            if layer.gate is None:
                wide = weights.activate(wide)
            else:
                wide = weights.activate(layer.gate(h_BD)) * wide
            x_BD = layer.mlp_proj(wide, x_BD)
        return self._logits(weights.final_norm(x_BD))

    def _mask_by_heads(self) -> Tensor | None:
        """For all layers: what is added to the scores of each row and head, (B * H, 1, n)."""
        mask_Bn, H = self.cache.mask(), self.config.n_head
        if mask_Bn is None:
            return None
        return mask_Bn[:, None, None].expand(-1, H, 1, -1).flatten(0, 1)

    def _queries_keys_values(
        self, layer: Layer, x_BD: Tensor, rope: Rope | None
    ) -> tuple[Tensor, Tensor]:
        H, K = self.config.n_head, self.config.head_size
        qkv_BN = layer.qkv(layer.attn_norm(x_BD))
        qkv_3BHK = qkv_BN.unflatten(1, (3, H, K)).transpose(0, 1)
        if self.config.qk_norm or rope is not None:
            qk_2BHK = qkv_3BHK[:2]
            if self.config.qk_norm:
                qk_2BHK = torch.rms_norm(qk_2BHK, (K,), None, self.config.norm_eps)
            if layer.qk_gain is not None:
                qk_2BHK = qk_2BHK * layer.qk_gain
            if rope is not None:
                qk_2BHK = apply_rope(qk_2BHK, *rope)
            qkv_3BHK = torch.cat((qk_2BHK, qkv_3BHK[2:]))
        return qkv_3BHK[0].contiguous()[:, :, None], qkv_3BHK[1:]

    def _embed(self, ids_B: Tensor, before_B: Tensor | None) -> tuple[Tensor, Rope | None]:
        """The tokens' vectors (B, D), and the rotation of their positions."""
        cache, n_rows = self.cache, self.config.bigram_rows
        x_BD = F.embedding(ids_B, self.embedding)  # new, so that others may be added in place
        if before_B is not None:
            V = self.config.vocab_size
            begins_B = cache.begins()
            if begins_B is not None:  # nothing stands before
                before_B = before_B.masked_fill(begins_B, V)
            rows_B = hash_pairs(before_B, ids_B, V, n_rows)
            x_BD.add_(F.embedding(rows_B, self.model.bigram_embedding.weight))
        place = cache.place()
        if self.config.position == "learned":
            x_BD.add_(self.model.position_embedding.weight[place])
        if self.weights.embedding_norm is not None:
            x_BD = self.weights.embedding_norm(x_BD)
        if self.rope is None:
            return x_BD, None
        cos_TK, sin_TK = self.rope
        return x_BD, (cos_TK[place][:, None], sin_TK[place][:, None])

    def _rope_table(self, n_positions: int) -> Rope:
        """As the model's own, which ends with block_size."""
        dtype = torch.promote_types(self.embedding.dtype, torch.float32)
        config = self.config
        cos_TK, sin_TK = rope_table(n_positions, config.head_size, config.rope_theta, dtype)
        return cos_TK.to(self.embedding), sin_TK.to(self.embedding)

    def _logits(self, h_BD: Tensor) -> Tensor:
        """From the final norm's output at the newest column to logits (B, V)."""
        if not self.config.pointer:
            return self._head(h_BD)
        read_BD, gains_Bn = self._point(h_BD)
        logits_BV = self._head(h_BD + read_BD)
        wide = torch.promote_types(logits_BV.dtype, torch.float32)
        ids_Bn = self.cache.ids_BS[:, : self.cache.visible]
        return logits_BV.to(wide).scatter_add(1, ids_Bn, gains_Bn.to(wide))

    def _head(self, h_BD: Tensor) -> Tensor:
        logits_BV = self.weights.head(h_BD)
        if cap := self.config.softcap:
            logits_BV = cap * self.weights.tanh(logits_BV / cap)
        return logits_BV

    def _point(self, h_BD: Tensor) -> tuple[Tensor, Tensor]:
        """What the pointer reads (B, D), and adds to the logit of each slot's id (B, n).

        Also files the key of the token to come, as it is made of h. The oldest column that a row
        may see has no key that it may see: as column 0 in training it stands for none of them.
        """
        cache, n, D = self.cache, self.cache.visible, self.config.n_embd
        B = len(cache.starts)
        query_BD, key_BD, gate_B1 = self.weights.ask(h_BD).split((D, D, 1), dim=1)
        keys_BnD, tokens_BnD = cache.found_2BSD[:, :, :n]
        query_BD1 = query_BD[:, :, None]
        if B == 1:  # one product alone is computed otherwise than one of several
            keys_BnD, query_BD1 = keys_BnD.expand(2, -1, -1), query_BD1.expand(2, -1, -1)
        scores_Bn = torch.bmm(keys_BnD, query_BD1)[:B, :, 0]
        mask_Bn, none_B1 = cache.mask(), cache.oldest()
        if mask_Bn is not None:
            scores_Bn = scores_Bn + mask_Bn
        weights_Bn = scores_Bn.scatter(1, none_B1, 0.0).softmax(dim=-1).scatter(1, none_B1, 0.0)
        found_BD = torch.bmm(weights_Bn[:, None], tokens_BnD)[:, 0]
        read_BD = self.weights.out(found_BD)
        gains_Bn = self.weights.softplus(gate_B1 + self.model.pointer.gate.bias) * weights_Bn
        cache.file_key(key_BD)
        return read_BD, gains_Bn

    def _readable(self, ids: Tensor) -> Tensor:
        return F.layer_norm(F.embedding(ids, self.embedding), (self.config.n_embd,))

    def _make_place(self) -> None:
        """For learned positions: reads full rows anew, from the last half of their tokens on."""
        cache, kept = self.cache, self.config.block_size // 2
        n_columns, starts = cache.column + 1, list(cache.starts)
        size = self.config.block_size
        full = [row for row, start in enumerate(starts) if n_columns - start == size]
        if not full:
            return
        last_Bh = cache.ids_BS[:, cache.slots(n_columns - kept, n_columns)]
        if len(full) == len(starts):  # all of them, so they can be alike again
            n_columns = kept
            cache.restart([kept] * len(starts))
        for row in full:
            starts[row] = n_columns - kept
        cache.set_starts(starts)
        for row in full if kept else ():
            self._read(last_Bh[row], [row], starts[row])

    def _read(self, ids_T: Tensor, rows: Sequence[int], first: int) -> Tensor:
        """Computes a context, into the cache of rows from a column on; the last place's h, (D,).

        Each context by itself, so that what a row holds does not depend on the rows beside it.
        """
        cache, T = self.cache, len(ids_T)
        slots_T = cache.slots(first, first + T)
        rows_R1 = torch.tensor(rows, device=ids_T.device)[:, None]
        kv_L: list[KeysValues] = []
        with eval_mode(self.model):
            h_TD = self.model.hidden(ids_T[None], kv_out=kv_L)[0]
        for kv_2BHSK, kv in zip(cache.kv_L2BHSK, kv_L, strict=True):
            for rows_BHSK, new_1HTK in zip(kv_2BHSK, kv, strict=True):
                rows_BHSK[rows_R1, :, slots_T] = new_1HTK.transpose(1, 2)
        cache.ids_BS[rows_R1, slots_T] = ids_T
        if self.config.pointer:
            keys_TD, tokens_TD = self.model.pointer.key(h_TD), self._readable(ids_T)
            after_T = cache.slots(first + 1, first + 1 + T)  # a key lies with the token after it
            cache.found_2BSD[0][rows_R1, after_T] = keys_TD
            cache.found_2BSD[1][rows_R1, slots_T] = tokens_TD
        return h_TD[-1]


def cache_size_for(
    config: ModelConfig,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    compiled: bool = False,
) -> tuple[int, int]:
    """Slots of a cache, and positions of a RoPE table to begin with (without RoPE: the slots).

    For steps that are compiled powers of two, so that there are few shapes, and a table that need
    not grow.

    >>> config = ModelConfig(vocab_size=11, block_size=64)
    >>> cache_size_for(config, [[1, 2, 3], [4]], 20), cache_size_for(config, [[1, 2, 3], [4]], 100, True)
    ((23, 23), (64, 128))
    """
    n_tokens = max(map(len, prompts)) + max_new_tokens
    if compiled:
        n_tokens = 1 << (n_tokens - 1).bit_length()
    n_slots = min(config.block_size, n_tokens)
    return n_slots, n_tokens if compiled and config.position == "rope" else n_slots
