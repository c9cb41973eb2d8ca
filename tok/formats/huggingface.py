"""Hugging Face's tokenizer.json of a byte-level BPE.

A file is read only if this package gives exactly the ids of the `tokenizers` library. Any
other feature that would change an id (a normalizer, another pre-tokenizer, a prefix, dropout, ...)
is refused with an error that names it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tok.errors import TokenizerError
from tok.formats.printable_vocab import tokenizer_kwargs, vocab_dict
from tok.patterns import GPT2, PATTERNS, find_pattern
from tok.tokenizer import BPETokenizer
from tok.vocabulary import to_printable
from utils.errors import brief

TEMPLATE = Path(__file__).with_name("tokenizer.json.template")  # with one added token
_FLAGS = ("single_word", "lstrip", "rstrip")  # of an added token: they change what it matches


def write_huggingface(tokenizer: BPETokenizer) -> bytes:
    """Return the content of tokenizer.json.

    Raises:
        TokenizerError: two tokens have the same printable text, which the format can't represent.
    """
    ids = vocab_dict(tokenizer)
    texts = [to_printable(tokenizer.token_bytes[token_id]) for token_id in tokenizer.ordinary_ids]
    content = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    content["added_tokens"] = [
        {"id": token_id, "content": token} | content["added_tokens"][0]
        for token, token_id in tokenizer.special_ids.items()
    ]
    split = content["pre_tokenizer"]["pretokenizers"][0]
    split["pattern"] = {"Regex": PATTERNS[tokenizer.pattern].regex}
    merges = [[texts[first], texts[second]] for first, second in tokenizer.merges]
    content["model"] |= {"vocab": ids, "merges": merges}
    return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode("utf-8")


def read_huggingface(content: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of BPETokenizer.

    Args:
        content: of tokenizer.json, parsed.

    Raises:
        TokenizerError: the file uses an unsupported feature or its vocabulary is invalid; the
            message names the feature or the token.
    """
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else None
        raise TokenizerError(f"the model is {brief(kind)}, not BPE")
    pattern = _pattern_of(content.get("pre_tokenizer"))
    _check_other_steps(content)
    # unk_token and fuse_unk change no ids: a vocabulary with all 256 bytes has no unknown text.
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(name):
            raise TokenizerError(f"model.{name} is {brief(model[name])}; not supported")
    ids = model.get("vocab")
    if not isinstance(ids, dict):
        raise TokenizerError("model.vocab must be an object, token -> id")
    special_ids = _special_ids(content.get("added_tokens") or [], ids)
    return tokenizer_kwargs(
        ids,
        _parse_merges(model.get("merges")),
        special_ids,
        whole_first=bool(model.get("ignore_merges")),
    ) | {"pattern": pattern}


def _pattern_of(step: Any) -> str:
    """Return the name of the pattern that a pre_tokenizer splits by."""
    steps = _steps_of(step, "pretokenizers")
    *before, last = steps or [{}]
    if last.get("type") != "ByteLevel" or len(before) > 1:
        kinds = ", ".join(str(one.get("type")) for one in steps) or "none"
        raise TokenizerError(f"pre_tokenizer {kinds:.80}: only ByteLevel, or Split and ByteLevel")
    if last.get("add_prefix_space", True) is not False:
        raise TokenizerError("pre_tokenizer ByteLevel puts a space before the text; not supported")
    use_regex = last.get("use_regex", True)
    if not before and use_regex is True:
        return GPT2.name  # ByteLevel's built-in pattern
    if not before or use_regex is not False:
        raise TokenizerError("pre_tokenizer must split once: by Split, or by ByteLevel's use_regex")
    split = before[0]
    if split.get("type") != "Split":
        raise TokenizerError(f"pre_tokenizer {brief(split.get('type'))} is not supported")
    if split.get("behavior") not in ("Isolated", "isolated") or split.get("invert") is not False:
        raise TokenizerError("pre_tokenizer Split must be Isolated and not inverted")
    rule = split.get("pattern")
    text = rule.get("Regex") if isinstance(rule, dict) else None
    pattern = find_pattern(text)
    if pattern is None:
        raise TokenizerError(f"pattern {brief(text, 80)} is not one of {', '.join(PATTERNS)}")
    return pattern.name


def _steps_of(step: Any, key: str) -> list[dict[str, Any]]:
    """Return the steps of a (nested) Sequence as a flat list; [] for null."""
    if step is None:
        return []
    if not isinstance(step, dict):
        raise TokenizerError(f"expected an object, not {brief(step)}")
    if step.get("type") != "Sequence":
        return [step]
    parts = step.get(key)
    if not isinstance(parts, list):
        raise TokenizerError(f"a Sequence without a list of {key}")
    return [one for part in parts for one in _steps_of(part, key)]


def _check_other_steps(content: dict[str, Any]) -> None:
    """Raise TokenizerError for steps that change ids or decode differently."""
    for name in ("truncation", "padding"):
        if content.get(name) is not None:
            raise TokenizerError(f"{name} is set, which changes the ids; set it to null")
    # ByteLevel as a post-processor changes offsets only.
    allowed = {"normalizer": (), "post_processor": ("ByteLevel",), "decoder": ("ByteLevel",)}
    keys = {"normalizer": "normalizers", "post_processor": "processors", "decoder": "decoders"}
    for name, kinds in allowed.items():
        for step in _steps_of(content.get(name), keys[name]):
            if step.get("type") not in kinds and not _is_bare_template(step):
                raise TokenizerError(f"{name} {brief(step.get('type'))} is not supported")
    if not _steps_of(content.get("decoder"), "decoders"):
        raise TokenizerError("there is no decoder; llm-tiny decodes as ByteLevel does")


def _is_bare_template(step: dict[str, Any]) -> bool:
    """Return True for a template that adds no token.

    transformers 5 writes such a template when it saves a tokenizer of ours.

    >>> _is_bare_template({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}]})
    True
    """
    single = step.get("single")
    return (
        step.get("type") == "TemplateProcessing"
        and isinstance(single, list)
        and len(single) == 1
        and isinstance(single[0], dict)
        and list(single[0]) == ["Sequence"]
    )


def _special_ids(added: Any, ids: dict[str, Any]) -> dict[str, int]:
    """Return special token -> id from `added_tokens`; `ids` is the model's vocab, token -> id."""
    found: dict[str, int] = {}
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise TokenizerError("added_tokens must be a list of objects")
    for token in added:
        text, token_id = token.get("content"), token.get("id")
        for flag in _FLAGS:
            if token.get(flag):
                raise TokenizerError(f"added token {brief(text)} has {flag}; not supported")
        if not token.get("special"):
            raise TokenizerError(f"added token {brief(text)} is not special; not supported")
        if not isinstance(text, str) or text in found:
            raise TokenizerError(f"added token {brief(text)} is not a str, or given twice")
        # The library ignores this id: it uses the vocabulary's, or else the next one after the size
        # of the vocabulary, and after the added tokens: after all of them, or (in newer versions)
        # after those that are not in the vocabulary. `theirs`: the ids that its versions give.
        others = [i for name, i in found.items() if name not in ids]
        theirs = (
            {ids[text]}
            if text in ids
            else {max([len(ids), *(i + 1 for i in before)]) for before in (others, found.values())}
        )
        if type(token_id) is not int or theirs != {token_id}:
            raise TokenizerError(
                f"added token {brief(text)} has id {brief(token_id)} here, but the library that "
                f"reads such files gives it {' or '.join(map(str, sorted(theirs)))}; if {token_id} "
                "is right, add the token to model.vocab with this id"
            )
        found[text] = token_id
    if len({bool(token.get("normalized")) for token in added}) > 1:
        raise TokenizerError(
            "some added tokens are normalized and some are not: the library matches the latter "
            "first, which is not supported"
        )
    return found


def _parse_merges(merges: Any) -> Sequence[tuple[str, str]]:
    if not isinstance(merges, list):
        raise TokenizerError("model.merges must be a list")
    pairs = []
    for i, merge in enumerate(merges):
        if isinstance(merge, str) and merge.startswith("#version"):
            continue  # the head of a merges.txt; the library skips it anywhere in a list of strings
        # Files from before 2024 have "a b"; no byte is represented by a blank.
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if (
            not isinstance(parts, list)
            or len(parts) != 2
            or not all(isinstance(part, str) and part for part in parts)
        ):
            raise TokenizerError(f"model.merges: merge {i} is not a pair: {brief(merge)}")
        pairs.append((parts[0], parts[1]))
    return pairs
