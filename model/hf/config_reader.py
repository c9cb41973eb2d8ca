"""Read keys of a Hugging Face config.json, check their types, and refuse those that are not read.

A key that is neither read nor listed as harmless could change the outputs of the model, as
`logit_scale` does. If it were skipped, they would be wrong without a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from utils.errors import UserError

# Reason -> keys that are harmless with any value.
HARMLESS = {
    "names and versions": (
        "model_type architectures _name_or_path name_or_path transformers_version _commit_hash "
        "transformers.js_config is_llama_config unsloth_fixed unsloth_version finetuning_task"
    ),
    "number format of the file or of a computation; tensors are converted to fp32": (
        "dtype torch_dtype use_bfloat16 reorder_and_upcast_attn pretraining_tp "
        "chunk_size_feed_forward"
    ),
    "how the same function is computed, or what else is returned": (
        "use_cache attn_implementation _attn_implementation _attn_implementation_autoset "
        "_attn_implementation_internal _experts_implementation gradient_checkpointing "
        "output_attentions output_hidden_states return_dict torchscript is_decoder"
    ),
    "initial weights": "initializer_range",
    "dropout, which a run sets itself": (
        "attn_pdrop resid_pdrop embd_pdrop attention_dropout hidden_dropout classifier_dropout "
        "summary_first_dropout"
    ),
    "heads of other tasks": (
        "id2label label2id num_labels _num_labels problem_type task_specific_params tf_legacy_loss "
        "summary_type summary_use_proj summary_activation summary_proj_to_labels"
    ),
    "the tokenizer, which has its own files": (
        "bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id mask_token_id "
        "unk_token_id decoder_start_token_id tokenizer_class prefix"
    ),
    "sampling, which has its own flags": (
        "do_sample temperature top_k top_p typical_p max_length min_length num_beams "
        "num_beam_groups num_return_sequences early_stopping diversity_penalty length_penalty "
        "repetition_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids "
        "forced_bos_token_id forced_eos_token_id suppress_tokens begin_suppress_tokens "
        "remove_invalid_values exponential_decay_length_penalty output_scores "
        "return_dict_in_generate"
    ),
    "the window of attention, which use_sliding_window turns on": (
        "sliding_window max_window_layers"
    ),
    "the size of a mask; positions end at n_positions": "n_ctx",
}
# Key -> the value with which it is harmless: the default of the classes, or what TinyGPT does.
HARMLESS_VALUES: dict[str, Any] = {
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "tie_encoder_decoder": False,
    "pruned_heads": {},
    "rope_interleaved": False,
    "use_sliding_window": False,
    "auto_map": {},
    "quantization_config": {},
}
_NAMES = frozenset(name for names in HARMLESS.values() for name in names.split())


class Reader:
    """Reads keys of config.json, or of an object in it, and checks their types.

    Attributes:
        keys_read: the keys that have decided a setting, or were checked.
    """

    def __init__(self, content: Mapping[str, Any], where: str = "") -> None:
        """Read `content`; `where` names it in messages if it is an object in config.json."""
        self.content, self.where = content, where
        self.keys_read: set[str] = set()

    def read(self, key: str, expected_type: type, default: Any = None) -> Any:
        """Return the value of a key, or the default if it is missing or null.

        Raises:
            UserError: missing without a default, of another type, or an integer below 1.
        """
        self.keys_read.add(key)
        value = self.content.get(key)
        if value is None:
            value = default
        if value is None:
            raise UserError(f"{self.where}{key} is missing")
        if expected_type is float and type(value) is int:
            value = float(value)
        if type(value) is not expected_type:
            kind = expected_type.__name__
            raise UserError(f"{self.where}{key} is {value!r:.40}, not of type {kind}")
        if type(value) is int and value < 1:
            raise UserError(f"{self.where}{key} is {value}, not 1 or more")
        return value

    def require(self, key: str, expected: Any, why: str) -> None:
        """Check that a key has the expected value, if it is present."""
        self.keys_read.add(key)
        value = self.content.get(key)
        if value is not None and value != expected:
            raise UserError(f"{self.where}{key} is {value!r:.40}: {why}")

    def theta(self) -> float:
        """Return the base of the rotary frequencies; check that nothing else changes them.

        Versions of transformers differ in which of several places they read: all must agree.
        """
        neox = self.content.get("model_type") == "gpt_neox"
        places = [self.rope_object("rope_scaling"), self.rope_object("rope_parameters"), self]
        theta_key, share_key = "rotary_emb_base", "rotary_pct"
        if not neox:
            theta_key, share_key = "rope_theta", "partial_rotary_factor"
        # The first object that is present decides. What it lacks is read from config.json itself.
        first = next((place for place in places if place.content), self)
        old_theta = self.read(theta_key, float, 10000.0)
        old_share = self.read(share_key, float, 0.25 if neox else 1.0)
        theta = old_theta if first is self else first.read("rope_theta", float, old_theta)
        share = (
            old_share if first is self else first.read("partial_rotary_factor", float, old_share)
        )
        for place in places:
            for key in ("rope_theta", "rotary_emb_base"):
                place.require(key, theta, f"elsewhere it is {theta}; remove one of them")
            for key in ("partial_rotary_factor", "rotary_pct"):
                place.require(key, 1.0, "TinyGPT rotates the whole head")
        if share != 1:
            raise UserError(f"{share_key} is {share}: TinyGPT rotates the whole head")
        for place in places[:2]:
            place.check_keys()
        return theta

    def rope_object(self, name: str) -> Reader:
        """Return a reader of an object that may change the rotary frequencies; check its type."""
        self.keys_read.add(name)
        rope = self.content.get(name) or {}
        if not isinstance(rope, Mapping):
            raise UserError(f"{name} is {rope!r:.40}, not an object")
        reader = Reader(rope, f"{name}: ")
        for key in ("rope_type", "type"):
            reader.require(key, "default", "TinyGPT supports only the default")
        return reader

    def check_keys(self) -> None:
        """Check that no key is skipped that could change the outputs; null counts as missing.

        Raises:
            UserError: names the first such key.
        """
        for key, value in self.content.items():
            harmless = key in _NAMES or HARMLESS_VALUES.get(key, ...) == value
            if value is None or key in self.keys_read or harmless and not self.where:
                continue
            raise UserError(
                f"{self.where}{key} is {value!r:.40}: TinyGPT does not read this key, which could "
                "change the numbers; if it does not change them, remove it"
            )
