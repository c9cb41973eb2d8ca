"""The tokenizer file: one JSON object, byte for byte the same for the same tokenizer."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tok.errors import TokenizerError
from tok.patterns import PATTERNS, Pattern, check_pattern
from tok.unicode_classes import UNICODE_VERSION

FORMAT = "llm-tiny tokenizer"
VERSION = 1

# Key -> allowed types of its value.
_KEYS: dict[str, tuple[type, ...]] = {
    "format": (str,),
    "version": (int,),
    "pattern": (dict,),  # as from _pattern_entry
    "byte_order": (str, list),  # a name, or the rank of each byte
    "special_tokens": (list, dict),  # tokens whose ids follow the merges, or token -> id
    "merges": (list,),
    "identity": (str,),
}


def content_of(
    merges: Sequence[tuple[int, int]],
    special_ids: Mapping[str, int],
    pattern: str,
    byte_order: str | Sequence[int],
) -> dict[str, Any]:
    """Return the content of the file without "identity": everything that determines the ids.

    Special tokens are a list if their ids directly follow the merges, else token -> id.
    """
    after = range(256 + len(merges), 256 + len(merges) + len(special_ids))
    special_last = list(special_ids.values()) == list(after)
    return {
        "format": FORMAT,
        "version": VERSION,
        "pattern": _pattern_entry(PATTERNS[pattern]),
        "byte_order": byte_order if isinstance(byte_order, str) else list(byte_order),
        "special_tokens": list(special_ids) if special_last else dict(special_ids),
        "merges": [list(pair) for pair in merges],
    }


def _pattern_entry(pattern: Pattern) -> dict[str, str]:
    return {"name": pattern.name, "text": pattern.regex, "unicode": UNICODE_VERSION}


def identity_of(content: dict[str, Any]) -> str:
    """Return the hex SHA-256 of `content` as ASCII JSON without blanks, keys sorted."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def to_json(content: dict[str, Any]) -> bytes:
    """Return the bytes of the file, with one key or merge per line for readable diffs."""
    entries = {**content, "identity": identity_of(content)}
    merges = ",\n".join(f"    {json.dumps(pair)}" for pair in entries.pop("merges"))
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in entries.items()]
    lines.append(f'  "merges": [\n{merges}\n  ]' if merges else '  "merges": []')
    return ("{\n" + "\n".join(lines) + "\n}\n").encode("ascii")


def from_json(raw: bytes) -> dict[str, Any]:
    """Parse the bytes of a tokenizer file; return the keyword arguments of BPETokenizer.

    BPETokenizer itself checks the merges, special tokens and byte order.

    Raises:
        TokenizerError: not JSON, another format or version, a key that is missing, unknown or of
            the wrong type, or a content that does not match the file's "identity".
    """
    found = parse_json(raw)
    _check_shape(found)
    identity = found.pop("identity")
    if identity != identity_of(found):
        raise TokenizerError(
            f"the content has identity {identity_of(found)[:12]}, the file says {identity[:12]}: "
            "it was changed by hand or damaged; train it again or restore it"
        )
    pattern = found["pattern"]
    known = check_pattern(pattern.get("name"))
    if pattern != _pattern_entry(known):
        raise TokenizerError(
            f"its pattern {known.name!r} is not the one that this version of llm-tiny uses "
            f"(Unicode {UNICODE_VERSION}); train it again"
        )
    unchanged = ("merges", "special_tokens", "byte_order")
    return {"pattern": known.name, **{key: found[key] for key in unchanged}}


def parse_json(raw: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        TokenizerError: it is not JSON, or an object has a key twice.
    """
    try:
        return json.loads(raw, object_pairs_hook=no_duplicates)
    except TokenizerError:
        raise
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"not valid JSON: {error}") from None


def no_duplicates(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict; for `object_pairs_hook` of json.loads.

    Raises:
        TokenizerError: a key occurs twice; the message names it.
    """
    found = dict(items)
    if len(found) < len(items):
        twice = next(key for key, n in Counter(key for key, _ in items).items() if n > 1)
        raise TokenizerError(f"key {twice!r} given twice")
    return found


def _check_shape(found: Any) -> None:
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise TokenizerError(f'not a tokenizer file (no "format": "{FORMAT}")')
    if found.get("version") != VERSION or type(found["version"]) is not int:
        raise TokenizerError(
            f"format version {found.get('version')!r}, but this version of llm-tiny reads {VERSION}"
        )
    for key, types in _KEYS.items():
        if key not in found:
            raise TokenizerError(f"key {key!r} is missing")
        if type(found[key]) not in types:
            names = " or ".join(allowed_type.__name__ for allowed_type in types)
            raise TokenizerError(f"{key} must be a {names}, not {found[key]!r:.40}")
    if unknown := sorted(set(found) - set(_KEYS)):
        raise TokenizerError(f"unknown key {unknown[0]!r}")
