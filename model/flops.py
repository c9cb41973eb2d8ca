"""The cost of a model: parameters, memory and FLOPs, computed from its settings alone."""

from dataclasses import astuple, dataclass

import psutil

from model.config import ModelConfig
from utils.errors import UserError

FLOAT32_BYTES = 4
BLOCK_OBJECT_BYTES = 30_000  # of Python's objects in a block, at least, besides its weights


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters; shared ones count once."""

    token_embedding: int
    position_embedding: int  # 0 without learned positions
    blocks: int
    final_norm: int
    head: int  # 0 when tied to the token embedding
    pointer: int = 0
    bigram_embedding: int = 0
    embedding_norm: int = 0

    @property
    def embedding(self) -> int:
        """Tables that are looked up, not multiplied: tokens, positions, bigrams."""
        return self.token_embedding + self.position_embedding + self.bigram_embedding

    @property
    def total(self) -> int:
        """All trainable parameters."""
        return sum(astuple(self))


def block_matrix_parameters(config: ModelConfig) -> int:
    """Return the number of weights in the matrices of one block.

    Attention has one matrix for queries, keys and values, and one for the output. The MLP has 2
    (swiglu: 3) matrices of D * mlp_width weights.

    >>> block_matrix_parameters(ModelConfig(n_embd=192))  # 12 * 192 ** 2
    442368
    """
    D, width = config.n_embd, config.mlp_width
    attention = D * (sum(config.qkv_sizes) + config.qkv_sizes[0])
    return attention + (3 if config.mlp == "swiglu" else 2) * D * width


def count_parameters(config: ModelConfig) -> Parameters:
    """Count the parameters by formula.

    >>> count_parameters(ModelConfig(vocab_size=256, n_layer=1, n_embd=8, n_head=2)).total
    4888
    """
    D, width = config.n_embd, config.mlp_width
    norm = D * (2 if config.norm == "layernorm" and config.bias else 1) * config.norm_gain
    block = block_matrix_parameters(config) + 2 * norm
    if config.bias:  # in attention of qkv and proj, in the MLP of fc (and gate) and proj
        block += sum(config.qkv_sizes) + D + (2 if config.mlp == "swiglu" else 1) * width + D
    if config.qk_norm:
        block += 2 * config.head_dim * config.norm_gain
    return Parameters(
        token_embedding=config.vocab_size * D,
        position_embedding=config.block_size * D if config.position == "learned" else 0,
        blocks=config.n_layer * block,
        final_norm=norm,
        head=0 if config.tie_weights else config.vocab_size * D,
        pointer=3 * D * D + D + 1 if config.pointer else 0,  # query, key, out; gate and its bias
        bigram_embedding=config.bigram_rows * D,
        embedding_norm=norm if config.embedding_norm else 0,
    )


def check_size(config: ModelConfig, n_tensors: int | None = None, n_rows: int = 0) -> None:
    """Check that a model can be built, before building it takes all memory or hours.

    Args:
        n_tensors: number of the stored weights that the model is to get; every block has some.
        n_rows: rows of a training step, each with int64 inputs and targets.

    Raises:
        UserError: this machine has too little memory, or there are fewer weights than blocks.
    """
    if n_tensors is not None and config.n_layer > n_tensors:
        raise UserError(
            f"model.n_layer is {config.n_layer}, but there are only {n_tensors} weights; "
            "put the original file back"
        )
    rope_table = 2 * config.block_size * config.head_dim * (config.position == "rope")
    needed = (count_parameters(config).total + rope_table) * FLOAT32_BYTES
    needed += config.n_layer * BLOCK_OBJECT_BYTES + n_rows * config.block_size * 16
    if needed > (total := psutil.virtual_memory().total):
        raise UserError(
            f"this needs {float(needed):.2g} bytes of memory, the machine has {float(total):.2g}; "
            "lower model.n_layer, n_embd, vocab_size, block_size or train.batch_size"
        )


@dataclass(frozen=True)
class Memory:
    """Bytes of memory in training, without code, data and the allocator's overhead."""

    weights: int
    gradients: int
    moments: int  # of the optimizer
    activations: int  # estimate

    @property
    def total(self) -> int:
        """The estimated peak, between the forward and the backward pass."""
        return sum(astuple(self))


def activation_elements(config: ModelConfig) -> int:
    """Estimate the elements kept per token for the backward pass, in eager mode (within 15%).

    A block keeps inputs and outputs of its two norms, 4 D (with rmsnorm 6 D); the attention's
    output, as wide as the queries; in the MLP 2 (swiglu 4) times mlp_width; and for attention:
    with the fused kernel, queries, keys, values, and with RoPE the rotated queries and keys;
    without it (attention: manual, or dropout, which it lacks on a CPU), three tensors as wide as
    the queries, the attention weights H * T (with dropout three times, and 2 D of noise), and
    with qk_norm queries, keys and values. qk_norm also keeps normed queries and keys. Without
    norm_gain, neither these nor rmsnorm's extra 2 D are kept.
    Outside the blocks: 2 D, and three (softcap: four) times V for the logits, their softmax and
    their gradient. See the code for the optional parts. T is block_size.
    """
    D, T = config.n_embd, config.block_size
    hidden = (4 if config.mlp == "swiglu" else 2) * config.mlp_width
    q, k, v = config.qkv_sizes
    block = 4 * D + q + hidden
    gain = config.norm_gain  # a gain's gradient needs the normed values
    block += 2 * D * (config.norm == "rmsnorm" and gain)
    block += (q + k) * (config.qk_norm and gain)
    stepwise = config.dropout or config.attention == "manual"
    if not stepwise or config.qk_norm:
        block += q + k + v
    block += 3 * q if stepwise else (q + k) * (config.position == "rope")
    if config.dropout:
        block += 2 * D + 3 * config.n_head * T
    elif config.attention == "manual":
        block += config.n_head * T
    outside = (3 if config.dropout else 2) * D + (D if config.bigram_rows else 0)
    outside += (1 + gain) * D if config.embedding_norm else 0
    outside += (4 if config.softcap else 3) * config.vocab_size
    if config.pointer:  # inputs, queries, keys; scores, weights, gains; a copy of the logits
        outside += 6 * D + 4 * T + config.vocab_size
    return config.n_layer * block + outside


def training_memory(
    config: ModelConfig, batch_size: int, activation_bytes: int = FLOAT32_BYTES, moments: int = 2
) -> Memory:
    """Estimate the bytes for training on batches of batch_size rows of block_size tokens.

    Weights, gradients and moments are fp32.

    Args:
        batch_size: rows of one forward pass (of a micro-batch, with gradient accumulation).
        activation_bytes: bytes of each element kept: 4 in fp32, 2 under bf16 (which is slightly too
            low, because norms stay in fp32).
        moments: tensors of the weights' size that the optimizer keeps; AdamW has two.
    """
    weights = FLOAT32_BYTES * count_parameters(config).total
    tokens = batch_size * config.block_size
    return Memory(
        weights=weights,
        gradients=weights,
        moments=moments * weights,
        activations=activation_bytes * tokens * activation_elements(config),
    )


def kv_cache_bytes(config: ModelConfig) -> int:
    """Return the bytes of the KV cache for one sample of block_size tokens, pointer included.

    >>> kv_cache_bytes(ModelConfig(block_size=256, n_layer=4, n_embd=192))  # 2 * 4 * 256 * 192 * 4
    1572864
    """
    _, k, v = config.qkv_sizes
    per_token = config.n_layer * (k + v) + (2 * config.n_embd if config.pointer else 0)
    return config.block_size * per_token * FLOAT32_BYTES


def forward_flops_per_token(
    config: ModelConfig, length: int | None = None, *, causal: bool = True
) -> float:
    """Return the FLOPs of the forward pass per token, averaged over a row of T tokens.

    2 per matrix weight (a multiplication and an addition), for the blocks' matrices and the head,
    tied or not. Embedding lookups cost none. Attention: q k^T and the weighted sum of v cost 2
    each, per visible token, layer and element of the queries. With causal=True a token sees
    (T + 1) / 2 tokens on average, which is the necessary work. causal=False counts all T, as many
    papers do (Kaplan et al. 2020, arXiv 2001.08361; Chowdhery et al. 2022, arXiv 2204.02311). A
    pointer adds three matrices and two more such products. Norms, activations, softmax and
    rotations are not counted.

    >>> config = ModelConfig(vocab_size=256, block_size=3, n_layer=1, n_embd=8, n_head=2)
    >>> forward_flops_per_token(config)  # 2 * (12 * 64 + 8 * 256) + 4 * 8 * 2
    5696.0

    Args:
        length: T; None = block_size.
    """
    T = config.block_size if length is None else length
    matrices = config.n_layer * block_matrix_parameters(config) + config.n_embd * config.vocab_size
    n_visible = (T + 1) / 2 if causal else T
    pointer = config.n_embd * (6.0 * config.n_embd + 4.0 * n_visible) if config.pointer else 0.0
    return 2.0 * matrices + config.n_layer * 4.0 * config.qkv_sizes[0] * n_visible + pointer


def training_flops_per_token(
    config: ModelConfig, length: int | None = None, *, causal: bool = True
) -> float:
    """Return three times the forward FLOPs: for each product, the backward pass computes two."""
    return 3.0 * forward_flops_per_token(config, length, causal=causal)


def describe(config: ModelConfig, batch_size: int, moments: int = 2) -> str:
    """Return a table as text: parameters, training memory of a micro-batch, FLOPs."""
    count, memory = count_parameters(config), training_memory(config, batch_size, moments=moments)
    rows = [
        ("parameters", f"{count.total:,}"),
        ("  token embedding", f"{count.token_embedding:,}"),
        ("  position embedding", f"{count.position_embedding:,}"),
        ("  bigram embedding", f"{count.bigram_embedding:,}"),
        ("  blocks", f"{count.blocks:,} ({config.n_layer} of {count.blocks // config.n_layer:,})"),
        ("  embedding norm", f"{count.embedding_norm:,}"),
        ("  final norm", f"{count.final_norm:,}"),
        ("  head", f"{count.head:,}" + (" (tied)" if config.tie_weights else "")),
        ("  pointer", f"{count.pointer:,}"),
        (f"memory, {batch_size} x {config.block_size} tokens, fp32", mib(memory.total)),
        ("  weights", mib(memory.weights)),
        ("  gradients", mib(memory.gradients)),
        ("  optimizer's moments", mib(memory.moments)),
        ("  activations (estimate)", mib(memory.activations)),
        (f"KV cache in sampling, {config.block_size} tokens, fp32", mib(kv_cache_bytes(config))),
        ("FLOPs per token, causal", ""),
        ("  forward", f"{forward_flops_per_token(config):,.0f}"),
        ("  training", f"{training_flops_per_token(config):,.0f}"),
    ]
    return "\n".join(f"{name:<36} {value}".rstrip() for name, value in rows) + "\n"


def mib(n_bytes: int) -> str:
    """Return a number of bytes for people.

    >>> mib(5_500_000)
    '5.2 MiB'
    """
    return f"{n_bytes / 2**20:,.1f} MiB"
