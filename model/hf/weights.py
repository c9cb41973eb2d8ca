"""Weights of a TinyGPT from tensors of the Hugging Face classes in model/hf/config.py.

The opposite direction, scripts/export/hf_weights.py, uses the same table of names.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from model.attention import split_qkv
from model.config import ModelConfig
from model.flops import check_size
from model.gpt import TinyGPT
from utils.config.tables import read_table
from utils.errors import UserError


@dataclass(frozen=True)
class Names:
    """The names that one class has for the modules of a TinyGPT."""

    base: str  # prefix of all names but the output head's; files of the base model lack it
    outer: Mapping[str, str]  # of modules outside the blocks
    block: str  # of the list of blocks
    inner: Mapping[str, str | list[str]]  # in a block; three names for q, k and v
    head: str
    ignored: list[str]  # suffixes of buffers that older versions saved: masks, frequencies


QKV_LAYOUTS = {"gpt2": "transposed", "gpt_neox": "by head", "nanochat": "split, swapped"}
_TABLE = read_table(Path(__file__).with_name("tensor_names.yaml"))
NAMES = {kind: Names(**names) for kind, names in _TABLE.items()}


@dataclass(frozen=True)
class Entry:
    """The counterparts of one TinyGPT tensor in a Hugging Face file."""

    names: tuple[str, ...]
    layout: str = "same"  # see `to_hf_layout`


def from_hf_weights(
    kind: str, config: ModelConfig, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the state dict of a TinyGPT in fp32, from the tensors of a Hugging Face class.

    Args:
        kind: the model type, a key of NAMES.
        config: the result of `from_hf` for the folder's config.json.

    Raises:
        UserError: a tensor is missing, unexpected or of another shape; the message names it.
    """
    names = NAMES[kind]
    if kind == "gpt_neox":  # transformers 5 may save the output head as lm_head
        tensors = {k.replace("lm_head.", "embed_out."): v for k, v in tensors.items()}
    if not any(name.startswith(names.base) for name in tensors):  # the base model's file
        heads = (f"{names.head}.",)
        tensors = {k if k.startswith(heads) else names.base + k: v for k, v in tensors.items()}
    head, embedding = f"{names.head}.weight", f"{names.base}{names.outer['token_embedding']}.weight"
    if config.tie_weights and embedding not in tensors and head in tensors:
        tensors = {**tensors, embedding: tensors[head]}  # one tensor, saved under its other name
    weights: dict[str, Tensor] = {}
    check_size(config, len(tensors))
    meta = meta_state_dict(kind, config)
    entries = entries_of(kind, config, meta)
    for name, entry in entries.items():
        shapes_hf = [part.shape for part in to_hf_layout(entry.layout, meta[name], config)]
        parts = [_checked_tensor(tensors, *one) for one in zip(entry.names, shapes_hf, strict=True)]
        weights[name] = _from_hf(entry.layout, parts, config)
    used = {name for entry in entries.values() for name in entry.names}
    for name in sorted(tensors.keys() - used):  # buffers, or a tied head that is saved separately
        is_head = name == head and config.tie_weights
        is_tied = is_head and torch.equal(tensors[name], tensors[embedding])
        if not is_tied and not name.endswith(tuple(names.ignored)):
            raise UserError(f"tensor {name} is unknown to the class of config.json")
    # Without attention_bias this class still has the biases of the MLP and the norms.
    if kind == "gpt_neox" and not config.bias:
        for name in [name for name in weights if name.endswith(".bias")]:
            if weights.pop(name).any():
                raise UserError(
                    f"attention_bias is false, but {entries[name].names[0]} is not zero: TinyGPT "
                    "has biases everywhere or nowhere"
                )
    return weights


def meta_state_dict(kind: str, config: ModelConfig) -> dict[str, Tensor]:
    """Return the state dict, on the meta device, of the TinyGPT with all weights of the class."""
    bias = config.bias or kind in ("gpt2", "gpt_neox")
    config = replace(config, bias=bias, norm_gain=kind != "nanochat")
    with torch.device("meta"):
        return TinyGPT(config).state_dict()


def entries_of(kind: str, config: ModelConfig, ours: Iterable[str]) -> dict[str, Entry]:
    """Return the counterparts of TinyGPT's tensors, by our name; `ours` are the names."""
    names, found = NAMES[kind], {}
    outer = {module: names.base + theirs for module, theirs in names.outer.items()}
    outer["head"] = names.head
    for name in ours:
        module, _, leaf = name.rpartition(".")
        if module in outer:
            found[name] = Entry((f"{outer[module]}.{leaf}",))
            continue
        _, layer, inner = module.split(".", 2)
        if kind == "gpt_neox" and not config.bias and inner.startswith("attn.") and leaf == "bias":
            continue  # with attention_bias false, this class lacks only these
        theirs = names.inner[inner]
        words = [theirs] if isinstance(theirs, str) else theirs
        layout = "transposed" if kind == "gpt2" else "same"
        if inner == "attn.qkv":
            layout = QKV_LAYOUTS.get(kind, "split")
        where = f"{names.base}{names.block}.{layer}."
        found[name] = Entry(tuple(f"{where}{word}.{leaf}" for word in words), layout)
    return found


def to_hf_layout(layout: str, tensor: Tensor, config: ModelConfig) -> list[Tensor]:
    """Convert a tensor to its Hugging Face layout; several where q, k and v are separate tensors.

    split: q, k and v. transposed: GPT-2's matrices are (in, out). by head: GPT-NeoX's rows are
    [q; k; v] of head 0, then of head 1; those of TinyGPT are q of all heads, then k, then v.
    swapped: NanoChat rotates in the opposite direction, so the halves of each head's q and k are
    swapped.
    """
    if layout == "transposed":
        return [tensor.mT if tensor.ndim == 2 else tensor]
    if layout == "by head":
        heads = [part.unflatten(0, (-1, config.head_dim)) for part in split_qkv(tensor, config, 0)]
        return [torch.stack(heads, dim=1).flatten(0, 2)]
    if layout == "same":
        return [tensor]
    q, k, v = split_qkv(tensor, config, 0)
    if layout == "split, swapped":
        q, k = _swap_halves(q, config), _swap_halves(k, config)
    return [q, k, v]


def _from_hf(layout: str, parts: list[Tensor], config: ModelConfig) -> Tensor:
    """Invert `to_hf_layout`."""
    if layout == "by head":
        by_head = parts[0].unflatten(0, (-1, 3, config.head_dim))
        return torch.cat([part.flatten(0, 1) for part in by_head.unbind(1)])
    if layout.startswith("split"):
        q, k, v = parts
        if layout == "split, swapped":
            q, k = _swap_halves(q, config), _swap_halves(k, config)
        return torch.cat((q, k, v))
    return to_hf_layout(layout, parts[0], config)[0].clone(memory_format=torch.contiguous_format)


def _swap_halves(rows: Tensor, config: ModelConfig) -> Tensor:
    halves = rows.unflatten(0, (-1, 2, config.head_dim // 2))
    return halves.flip(1).flatten(0, 2)


def _checked_tensor(tensors: Mapping[str, Tensor], name: str, shape: torch.Size) -> Tensor:
    if name not in tensors:
        raise UserError(f"tensor {name} is missing, but config.json asks for it")
    tensor = tensors[name]
    if not tensor.is_floating_point():
        raise UserError(f"tensor {name} is {tensor.dtype}; quantised weights are not supported")
    if tensor.shape != shape:
        raise UserError(
            f"tensor {name} has shape {tuple(tensor.shape)}, but config.json asks for "
            f"{tuple(shape)}"
        )
    tensor = tensor.float()
    if not tensor.isfinite().all():
        raise UserError(f"tensor {name} holds NaN or infinity: the model is damaged; get it again")
    return tensor
