"""TinyGPT: a decoder-only transformer, token ids in, logits out."""

import math

import torch
from torch import Tensor, nn

from model.attention import CausalSelfAttention, KeysValues, document_mask
from model.bigram import hash_bigrams
from model.config import INIT_STD, ModelConfig
from model.layers import MLP, check_ids, make_norm, rope_table
from model.linear import Linear, linear
from model.pointer import INITIAL_GATE_BIAS, Pointer
from utils.device import check_compiler_cache


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attn_norm = make_norm(config)
        self.attn = CausalSelfAttention(config)
        self.mlp_norm = make_norm(config)
        self.mlp = MLP(config)

    def forward(
        self,
        x_BTD: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        mask_B1TT: Tensor | None,
        kv_out: list[KeysValues] | None = None,
    ) -> Tensor:
        """Return the residual stream after the block, (B, T, D).

        For the arguments see `CausalSelfAttention.forward`.
        """
        x_BTD = x_BTD + self.attn(self.attn_norm(x_BTD), rope, mask_B1TT, kv_out)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class TinyGPT(nn.Module):
    """Token embedding, positions, blocks, final norm, output head.

    Learned positions count from the start of the row, also where a new document begins within it.
    The RoPE table is not a weight and is not part of checkpoints.
    """

    rope_cos_T1K: Tensor  # only with RoPE
    rope_sin_T1K: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        check_compiler_cache()  # weights on the meta device and optimizers import the compiler
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        if config.position == "learned":
            self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        else:
            cos_TK, sin_TK = rope_table(config.block_size, config.head_dim, config.rope_theta)
            # The middle axis broadcasts over the heads.
            self.register_buffer("rope_cos_T1K", cos_TK[:, None], persistent=False)
            self.register_buffer("rope_sin_T1K", sin_TK[:, None], persistent=False)
        if config.bigram_rows:
            self.bigram_embedding = nn.Embedding(config.bigram_rows, config.n_embd)
            self.bigram_dropout = nn.Dropout(config.bigram_dropout)
        if config.embedding_norm:
            self.embedding_norm = make_norm(config)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.final_norm = make_norm(config)
        if config.pointer:
            self.pointer = Pointer(config)
        if not config.tie_weights:
            self.head = Linear(config.n_embd, config.vocab_size, bias=False)
        self.init_weights()

    @property
    def head_weight(self) -> Tensor:
        """The output head's matrix (V, D); with tied weights, the token embedding itself."""
        return self.token_embedding.weight if self.config.tie_weights else self.head.weight

    def forward(self, ids_BT: Tensor, *, doc_BT: Tensor | None = None) -> Tensor:
        """Return logits (B, T, V); those at position t score the token after ids 0 to t.

        For the loss see `model.training.loss.cross_entropy_sum`. `doc_BT` is keyword-only, so that
        nanoGPT's `model(x, y)` is an error: it would pass targets as document numbers.

        Args:
            ids_BT: token ids, of any integer type, T at most block_size.
            doc_BT: document number of each token; attention is then limited to the document.

        Raises:
            ValueError: T is above block_size, or an id is not in the vocabulary. On a GPU and in
                compiled code PyTorch raises its own error for such an id, see `check_ids`.
        """
        x_BTD = self.hidden(ids_BT, doc_BT=doc_BT)
        mask_B1TT = document_mask(doc_BT) if doc_BT is not None and self.config.pointer else None
        return self.output(x_BTD, ids_BT, mask_B1TT)

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        doc_BT: Tensor | None = None,
        kv_out: list[KeysValues] | None = None,
    ) -> Tensor:
        """Return the output of the final norm, (B, T, D); arguments as in `forward`.

        Args:
            kv_out: a list to which each block appends its keys and values.

        Raises:
            ValueError: as `forward`.
        """
        rope = self.rope(ids_BT.shape[-1])  # embed checks the shape
        x_BTD = self.embed(ids_BT, doc_BT=doc_BT)
        mask_B1TT = None if doc_BT is None else document_mask(doc_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, rope, mask_B1TT, kv_out)
        return self.final_norm(x_BTD)

    def rope(self, T: int) -> tuple[Tensor, Tensor] | None:
        """Return cosine and sine of positions 0 to T - 1, each (T, 1, K); None without RoPE.

        Raises:
            ValueError: T is above block_size, also without RoPE.
        """
        if T > self.config.block_size:
            raise ValueError(f"{T} tokens do not fit in block_size {self.config.block_size}")
        if self.config.position != "rope":
            return None
        return self.rope_cos_T1K[:T], self.rope_sin_T1K[:T]

    def embed(self, ids_BT: Tensor, *, doc_BT: Tensor | None = None) -> Tensor:
        """Return the input of the first block, (B, T, D): tokens, bigrams and learned positions."""
        ids_BT = check_ids(ids_BT, self.config.vocab_size)
        x_BTD = self.token_embedding(ids_BT)
        if n_rows := self.config.bigram_rows:
            rows_BT = hash_bigrams(ids_BT, self.config.vocab_size, n_rows, doc_BT)
            bigrams_BTD = self.bigram_embedding(rows_BT)
            # Drops whole positions: the model must also predict without the bigram embedding, as it
            # does for a bigram that training never saw.
            kept_BT1 = self.bigram_dropout(torch.ones_like(bigrams_BTD[..., :1]))
            x_BTD = x_BTD + kept_BT1 * bigrams_BTD
        if self.config.position == "learned":
            x_BTD = x_BTD + self.position_embedding.weight[: ids_BT.shape[1]]
        if self.config.embedding_norm:
            x_BTD = self.embedding_norm(x_BTD)
        return self.dropout(x_BTD)

    def output(self, x_BTD: Tensor, ids_BT: Tensor, mask_B1TT: Tensor | None) -> Tensor:
        """Return logits (B, T, V) from `hidden`'s result: output head, and pointer if any."""
        if not self.config.pointer:
            return self.logits(x_BTD)
        ids_BT = ids_BT.long()
        retrieved_BTD, gains_BTT = self.pointer(x_BTD, self.token_embedding(ids_BT), mask_B1TT)
        return self._logits_with_gains(x_BTD + retrieved_BTD, gains_BTT, ids_BT)

    def _logits_with_gains(self, x_BTD: Tensor, gains_BTT: Tensor, ids_BT: Tensor) -> Tensor:
        """Return the output head's logits (B, T, V), with each token's gains added."""
        logits_BTV = self.logits(x_BTD)
        # In half precision, adding many small gains one by one would lose them.
        dtype = torch.promote_types(logits_BTV.dtype, torch.float32)
        ids_BTT = ids_BT[:, None].expand_as(gains_BTT)
        return logits_BTV.to(dtype).scatter_add(2, ids_BTT, gains_BTT.to(dtype))

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Return the output head's logits, without the pointer: (..., D) to (..., V)."""
        logits_BTV = linear(x_BTD, self.head_weight)
        if self.config.softcap:
            logits_BTV = self.config.softcap * torch.tanh(logits_BTV / self.config.softcap)
        return logits_BTV

    @torch.no_grad()
    def init_weights(self) -> None:
        """Initialise all weights by PyTorch's global random generator; the loss starts near ln V.

        As in GPT-2: normal with standard deviation 0.02, and biases 0. For the output matrices of
        attention and MLP 0.02 is divided by sqrt(2 * n_layer), because the residual stream adds up
        2 * n_layer of their outputs (Radford et al. 2019, section 2.3).
        """
        config = self.config
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=INIT_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.token_embedding.weight, std=config.embedding_std)
        if config.tie_weights:
            # The current token's logit is its embedding, normed to length sqrt(n_embd), times its
            # embedding: at first up to n_embd * std. Its exp must stay well below vocab_size.
            std = max(math.log(config.vocab_size) - 1.5, 0.1) / config.n_embd
            nn.init.normal_(self.token_embedding.weight, std=min(INIT_STD, std))
        if config.bigram_rows:
            nn.init.zeros_(self.bigram_embedding.weight)  # a bigram never seen adds nothing
        if config.pointer:
            nn.init.constant_(self.pointer.gate.bias, INITIAL_GATE_BIAS)
            nn.init.zeros_(self.pointer.out.weight)  # the pointer starts without influence
        for block in self.blocks:
            assert isinstance(block, Block)
            for matrix in (block.attn.proj.weight, block.mlp.proj.weight):
                if config.zero_init:
                    nn.init.zeros_(matrix)
                else:
                    nn.init.normal_(matrix, std=INIT_STD / math.sqrt(2 * config.n_layer))
