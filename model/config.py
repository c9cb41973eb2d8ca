"""The model's settings, `model.*`."""

import math
from dataclasses import dataclass

from utils.config.schema import Dependencies, check, check_dependencies, setting
from utils.errors import UserError

INIT_STD = 0.02  # standard deviation of initial weights, as in GPT-2

# Setting -> the settings without which it has no effect: their values, or True = not 0.
DEPENDS_ON: Dependencies = {
    "rope_theta": {"position": ("rope",)},
    "bigram_dropout": {"bigram_rows": True},
}


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and components of the model."""

    vocab_size: int = setting(2048, "number of token ids", minimum=1)
    block_size: int = setting(256, "maximum context length in tokens", minimum=1)
    n_layer: int = setting(4, "number of blocks", minimum=1)
    n_head: int = setting(6, "attention heads in each block", minimum=1)
    n_kv_head: int = setting(
        0,
        "heads of keys and values, each for n_head / n_kv_head heads of queries; 0 = n_head",
        minimum=0,
    )
    n_embd: int = setting(192, "width of the residual stream", minimum=1)
    head_size: int = setting(0, "width of one attention head; 0 = n_embd / n_head", minimum=0)
    dropout: float = setting(
        0.0,
        "dropout rate for embeddings, attention weights, and outputs of attention and MLP",
        minimum=0.0,
        below=1.0,
    )
    bias: bool = setting(False, "biases in linear layers and layer norms")
    position: str = setting("rope", "position encoding", choices=("learned", "rope"))
    rope_theta: float = setting(10000.0, "base of the rotary frequencies", above=0.0)
    norm: str = setting("layernorm", "kind of norm", choices=("layernorm", "rmsnorm"))
    norm_gain: bool = setting(True, "norms have a learned gain for each dimension")
    norm_eps: float = setting(
        1e-5, "added to the variance (rmsnorm: mean square) in every norm", above=0.0
    )
    embedding_norm: bool = setting(False, "add a norm after the embeddings")
    mlp: str = setting(
        "gelu", "activation of the MLP", choices=("gelu", "gelu_tanh", "relu2", "swiglu")
    )
    mlp_ratio: float = setting(
        4.0, "MLP width / n_embd; swiglu: 2/3 of that width", above=0.0, maximum=1e6
    )
    qk_norm: bool = setting(False, "apply RMSNorm to each head's queries and keys, before RoPE")
    tie_weights: bool = setting(False, "the output head shares the token embedding's weights")
    softcap: float = setting(
        0.0, "logits z become softcap * tanh(z / softcap); 0 is off", minimum=0.0
    )
    embedding_std: float = setting(
        INIT_STD, "initial standard deviation of an untied token embedding", above=0.0
    )
    bigram_rows: int = setting(
        0, "rows in the table of the hashed bigram embedding; 0 = no such embedding", minimum=0
    )
    bigram_dropout: float = setting(
        0.0, "share of positions where training omits the bigram embedding", minimum=0.0, below=1.0
    )
    pointer: bool = setting(False, "find and copy earlier tokens, see model/pointer.py")
    zero_init: bool = setting(False, "start the output matrices of attention and MLP at zero")
    attention: str = setting(
        "sdpa", "sdpa = fused kernel, manual = step by step", choices=("sdpa", "manual")
    )

    def __post_init__(self) -> None:
        check(self)
        check_dependencies(self, DEPENDS_ON, "model")
        if self.n_embd % self.n_head and not self.head_size:
            raise UserError(
                f"model.n_embd {self.n_embd} is not a multiple of model.n_head {self.n_head}; "
                "change one of them, or set model.head_size"
            )
        if self.n_head % self.kv_heads:
            raise UserError(
                f"model.n_head {self.n_head} is not a multiple of model.n_kv_head "
                f"{self.n_kv_head}; change one of them"
            )
        if self.bias and not self.norm_gain and self.norm == "layernorm":
            raise UserError(
                "model.norm_gain false removes the biases of layer norms too: "
                "set model.bias false, or model.norm rmsnorm"
            )
        if self.tie_weights and self.embedding_std != INIT_STD:
            raise UserError(
                "model.embedding_std has an effect only without model.tie_weights; drop one of them"
            )
        if self.position == "rope" and self.head_dim % 2:
            sizes = f"model.n_embd {self.n_embd} / model.n_head {self.n_head} is {self.head_dim}"
            raise UserError(
                "model.position rope needs an even head size, but "
                + (f"model.head_size is {self.head_size}" if self.head_size else sizes)
                + "; change it"
            )

    @property
    def head_dim(self) -> int:
        """K, the width of one head: `head_size`, or n_embd / n_head if that is 0."""
        return self.head_size or self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        """G, the number of heads of keys, and of values: `n_kv_head`, or n_head if that is 0."""
        return self.n_kv_head or self.n_head

    @property
    def qkv_heads(self) -> tuple[int, int, int]:
        """The numbers of heads of queries, of keys and of values: (H, G, G)."""
        return self.n_head, self.kv_heads, self.kv_heads

    @property
    def qkv_sizes(self) -> tuple[int, int, int]:
        """Widths of the queries, the keys and the values of one token, all heads together.

        One matrix computes all three. Its rows are in this order, and within the queries, keys or
        values in the order of the heads. `model.attention.split_qkv` splits by these widths.

        >>> ModelConfig(n_embd=192, n_head=6).qkv_sizes
        (192, 192, 192)
        >>> ModelConfig(n_embd=192, n_head=6, n_kv_head=2, head_size=16).qkv_sizes
        (96, 32, 32)
        """
        q, k, v = (heads * self.head_dim for heads in self.qkv_heads)
        return q, k, v

    @property
    def mlp_width(self) -> int:
        """The MLP's hidden width: mlp_ratio * n_embd; for swiglu 2/3 of that.

        With 2/3, three matrices have the parameters of the usual two. A width that is not whole
        (rounding errors aside) is rounded up to a multiple of 8, which matrix kernels prefer.

        >>> ModelConfig(n_embd=192).mlp_width, ModelConfig(n_embd=192, mlp="swiglu").mlp_width
        (768, 512)
        >>> ModelConfig(n_embd=128, n_head=4, mlp="swiglu").mlp_width  # 2/3 of 512 is 341.3
        344
        """
        width = self.mlp_ratio * self.n_embd * (2 / 3 if self.mlp == "swiglu" else 1)
        whole = round(width)
        if whole and abs(width - whole) < 1e-6 * width:
            return whole
        return 8 * math.ceil(width / 8)
