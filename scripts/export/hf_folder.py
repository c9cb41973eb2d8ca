"""The files of a Hugging Face folder, as transformers loads them: the model and its tokenizer."""

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from model.config import ModelConfig
from model.hf.folder import WEIGHTS
from scripts.export.hf_config import hf_model_type, to_hf
from scripts.export.hf_weights import to_hf_weights
from tok.formats.huggingface import write_huggingface
from tok.tokenizer import BPETokenizer
from tok.vocabulary import END_OF_TEXT
from utils.errors import missing_package


def model_files(
    config: ModelConfig, weights: Mapping[str, Tensor], end_id: int
) -> dict[str, bytes]:
    """Return name -> content of the files that AutoModelForCausalLM loads.

    Args:
        end_id: id of the end-of-text token.

    Raises:
        UserError: no Hugging Face class supports the model, or safetensors is not installed.
    """
    model_type = hf_model_type(config)
    try:
        from safetensors.torch import save
    except ImportError:
        raise missing_package("safetensors", "--to hf") from None
    # A text begins after an end-of-text token, as in training. No pad token is named: transformers
    # masks pad tokens in prompts, which must not happen to the end-of-text token.
    special = {"bos_token_id": end_id, "eos_token_id": end_id, "pad_token_id": None}
    return {
        "config.json": json_bytes(to_hf(config) | special),
        "generation_config.json": json_bytes(special | {"max_length": config.block_size}),
        WEIGHTS: save(to_hf_weights(model_type, config, weights), metadata={"format": "pt"}),
    }


def folder_tokenizer_files(tokenizer: BPETokenizer, max_length: int) -> dict[str, bytes]:
    """Return name -> content of the files that transformers' AutoTokenizer loads.

    Args:
        max_length: context length of the model, in tokens.

    Raises:
        TokenizerError: tokenizer.json can't represent the tokenizer.
    """
    names = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    settings = {
        # By default the class depends on model_type, and some of those classes change ids.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
        **names,
    }
    return {
        "tokenizer.json": write_huggingface(tokenizer),
        "tokenizer_config.json": json_bytes(settings),
        "special_tokens_map.json": json_bytes(names),
    }


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Return indented JSON, for files that people read.

    >>> json_bytes({"n": 1})
    b'{\\n  "n": 1\\n}\\n'
    """
    return (json.dumps(content, indent=2) + "\n").encode()
