"""Write a model and its tokenizer as one GGUF file, for llama.cpp and programs based on it.

Keys and tensor names are those of llama.cpp (MIT) and of its library `gguf`. llama.cpp computes
GELU by the tanh approximation from a table in fp16, so its logits of GPT-2 and GPT-NeoX models
agree with ours to about 1e-3, and those of the other models to about 1e-5.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from model.attention import split_qkv
from model.config import ModelConfig
from model.gpt import TinyGPT
from model.hf.config import CLASSES
from scripts.export.hf_config import hf_model_type
from scripts.export.hf_weights import fill_missing_weights
from tok.formats.printable_vocab import vocab_dict
from tok.tokenizer import BPETokenizer
from tok.vocabulary import to_printable
from utils.config.tables import read_table
from utils.errors import UserError, missing_package
from utils.output import as_utf8

if TYPE_CHECKING:
    from gguf import GGUFWriter

FILE_NAME = "model.gguf"
# Hugging Face's model type -> llama.cpp's architecture.
ARCHITECTURES = {"gpt2": "gpt2", "gpt_neox": "gptneox", "llama": "llama", "qwen3": "qwen3"}
# Split pattern -> llama.cpp's name. "llama-bpe" splits like "dbrx", but encodes a pre-token that is
# in the vocabulary as that one token, even where the merges do not lead to it.
PRE_TOKENIZERS = {"gpt2": "gpt-2", "cl100k": "dbrx"}
# Our module names -> llama.cpp's, outside blocks and inside a block.
NAMES = read_table(Path(__file__).with_name("gguf_names.yaml"))


def gguf_kind(config: ModelConfig, tokenizer: BPETokenizer) -> str:
    """Return the Hugging Face model type of a config, if llama.cpp computes exactly this model.

    Raises:
        UserError: llama.cpp does not support the model or the tokenizer; gives the reason.
    """
    kind = hf_model_type(config)
    if kind not in ARCHITECTURES:
        raise UserError(f"llama.cpp has no {CLASSES[kind]} with these settings; export --to hf")
    if config.mlp == "relu2":
        raise UserError(
            f"model.mlp relu2: llama.cpp's {ARCHITECTURES[kind]} computes GELU; export --to hf"
        )
    if tokenizer.pattern not in PRE_TOKENIZERS:
        raise UserError(
            f"the tokenizer uses the split pattern {tokenizer.pattern}; GGUF export supports "
            f"{', '.join(PRE_TOKENIZERS)}; export --to hf"
        )
    return kind


def write_gguf(
    path: Path, model: TinyGPT, tokenizer: BPETokenizer, name: str, quantized: bool = False
) -> str:
    """Write the file in fp32; return llama.cpp's name for the architecture.

    Args:
        name: shown to users.
        quantized: write the matrices in llama.cpp's Q8_0, for benchmarks; their rows must have a
            multiple of 32 elements.

    Raises:
        UserError: see `gguf_kind`; the library `gguf` is not installed; two tokens have the same
            spelling.
    """
    config = model.config
    kind = gguf_kind(config, tokenizer)
    try:
        from gguf import GGMLQuantizationType, GGUFWriter, quants
    except ImportError:
        raise missing_package("gguf", "--to gguf") from None
    vocab_dict(tokenizer)  # refuses equal spellings: llama.cpp identifies a token by its spelling
    writer = GGUFWriter(path, ARCHITECTURES[kind])
    writer.add_name(as_utf8(name))
    _add_settings(writer, config, kind)
    _add_tokenizer(writer, tokenizer)
    for theirs, tensor in gguf_tensors(kind, config, model.state_dict()).items():
        if quantized and tensor.dim() == 2 and not theirs.startswith("position_embd"):
            q8_0 = GGMLQuantizationType.Q8_0
            writer.add_tensor(theirs, quants.quantize(tensor.numpy(), q8_0), raw_dtype=q8_0)
        else:
            writer.add_tensor(theirs, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return ARCHITECTURES[kind]


def gguf_tensors(
    kind: str, config: ModelConfig, weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors by llama.cpp's names, fp32; `kind` is Hugging Face's model type.

    Matrices have our layout, (out, in), and the joint qkv matrix has our order. The llama and qwen3
    architectures have separate q, k and v matrices. llama.cpp's RoPE for llama rotates pairs of
    adjacent rows, so the rows of q and k are reordered for it.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in fill_missing_weights(kind, config, weights).items():
        module, _, leaf = name.rpartition(".")
        if module in NAMES["outer"]:
            found[f"{NAMES['outer'][module]}.{leaf}"] = tensor.contiguous()
            continue
        _, layer, inner = module.split(".", 2)  # blocks.LAYER.INNER
        where = f"blk.{layer}."
        if inner != "attn.qkv" or kind in ("gpt2", "gpt_neox"):
            found[f"{where}{NAMES['block'][inner]}.{leaf}"] = tensor.contiguous()
            continue
        q, k, v = split_qkv(tensor, config, 0)
        if kind == "llama":
            q, k = _interleave_rotary_rows(q, config), _interleave_rotary_rows(k, config)
        for letter, rows in zip("qkv", (q, k, v), strict=True):
            found[f"{where}attn_{letter}.{leaf}"] = rows.contiguous()
    if kind == "gpt_neox" and config.tie_weights:  # llama.cpp's gptneox needs a separate head
        found["output.weight"] = found["token_embd.weight"]
    return found


def _interleave_rotary_rows(rows: Tensor, config: ModelConfig) -> Tensor:
    """Put rows i and i + K/2 of a head's K rows, which RoPE rotates as a pair, side by side."""
    halves = rows.unflatten(0, (-1, 2, config.head_dim // 2))
    return halves.transpose(1, 2).flatten(0, 2)


def _add_settings(writer: GGUFWriter, config: ModelConfig, kind: str) -> None:
    writer.add_file_type(0)  # all fp32
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.kv_heads)
    if kind in ("gpt2", "gpt_neox"):
        writer.add_layer_norm_eps(config.norm_eps)
    else:
        writer.add_layer_norm_rms_eps(config.norm_eps)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if kind == "gpt_neox":
        writer.add_parallel_residual(False)
    if kind != "gpt2":
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_rope_freq_base(config.rope_theta)


def _add_tokenizer(writer: GGUFWriter, tokenizer: BPETokenizer) -> None:
    from gguf import TokenType

    special = {token_id: token for token, token_id in tokenizer.special_ids.items()}
    tokens, types = [], []
    for token_id, raw in enumerate(tokenizer.token_bytes):
        tokens.append(special.get(token_id) or to_printable(raw) or f"[unused {token_id}]")
        ordinary = TokenType.NORMAL if raw else TokenType.UNUSED
        types.append(TokenType.CONTROL if token_id in special else ordinary)
    # Merges join ranks, see tok/vocabulary.py; `spelled` holds the tokens in order of rank.
    spelled = [to_printable(tokenizer.token_bytes[token_id]) for token_id in tokenizer.ordinary_ids]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZERS[tokenizer.pattern])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([f"{spelled[one]} {spelled[other]}" for one, other in tokenizer.merges])
    writer.add_bos_token_id(tokenizer.eot_id)
    writer.add_eos_token_id(tokenizer.eot_id)
    writer.add_add_bos_token(False)
