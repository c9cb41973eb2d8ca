"""Vocabulary: the ids and bytes of all tokens (bytes, merges, special tokens), and their checks.

Ordinary tokens have a *rank*, as in tiktoken: the 256 bytes have ranks 0 to 255 (see BYTE_ORDERS),
and the token of merge i has rank 256 + i. Special tokens may have any id. The ordinary tokens get
the lowest remaining ids, in the order of their ranks. So rank and id are equal if all special
tokens come last, as they do in every vocabulary that this package trains.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import count, islice
from typing import Any

import numpy as np

from tok.errors import TokenizerError

# Bytes that GPT-2's bytes_to_unicode leaves as they are.
_PRINTABLE = (range(0x21, 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100))

Pair = tuple[int, int]  # two ranks
ByteOrder = str | Sequence[int]  # a name in BYTE_ORDERS, or the rank of each byte

END_OF_TEXT = "<|endoftext|>"

# Bytes of all tokens together. Without a limit, a hostile file of 40 merges could need 2^40 bytes.
MAX_VOCABULARY_BYTES = 1 << 28

# The largest id of a special token. Without a limit, a hostile file of one line could need a list
# of 2^60 ids.
MAX_ID = (1 << 22) - 1


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """Return the smallest array type that holds every id: uint16 or uint32.

    >>> dtype_for(65536), dtype_for(65537)
    (dtype('uint16'), dtype('uint32'))
    """
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def inverse(permutation: bytes) -> bytes:
    """Return the inverse of a permutation of 0 to 255: rank of each byte <-> byte of each rank.

    >>> inverse(bytes([2, 0, 1, *range(3, 256)]))[:3]
    b'\\x01\\x02\\x00'
    """
    return bytes(sorted(range(256), key=permutation.__getitem__))


@lru_cache(maxsize=1)
def bytes_to_unicode() -> str:
    """Return 256 characters, one for each byte: GPT-2's `bytes_to_unicode`, as a string.

    Printable bytes of Latin-1 represent themselves; the others become U+0100, U+0101, ...

    >>> bytes_to_unicode()[ord("a")], bytes_to_unicode()[ord(" ")], bytes_to_unicode()[0]
    ('a', 'Ġ', 'Ā')
    """
    printable = {byte for group in _PRINTABLE for byte in group}
    others = count(0x100)
    return "".join(chr(byte if byte in printable else next(others)) for byte in range(256))


def to_printable(raw: bytes) -> str:
    """Return bytes as printable text, one character per byte (see `bytes_to_unicode`).

    >>> to_printable("né n".encode())
    'nÃ©Ġn'
    """
    return raw.decode("latin-1").translate(bytes_to_unicode())


def from_printable(text: str) -> bytes | None:
    """Invert `to_printable`; return None if a character represents no byte.

    >>> from_printable("nÃ©Ġn").decode(), from_printable("two words")
    ('né n', None)
    """
    try:
        return bytes([_BYTE_OF[character] for character in text])
    except KeyError:
        return None


_BYTE_OF = {character: byte for byte, character in enumerate(bytes_to_unicode())}
# All bytes, sorted by their printable character: 0x21 first, 0xAD last.
_SORTED_BY_CHARACTER = bytes(sorted(range(256), key=bytes_to_unicode().__getitem__))
# Name -> the rank of each byte. "value": byte b has rank b. "gpt2": bytes sorted by their printable
# character, as in GPT-2's vocabulary, tiktoken's files and the output of Hugging Face's trainers.
BYTE_ORDERS = {"value": bytes(range(256)), "gpt2": inverse(_SORTED_BY_CHARACTER)}


def byte_ranks(byte_order: Any) -> bytes:
    """Return the ranks of the 256 bytes: element b is the rank of byte b.

    >>> byte_ranks("value")[97], byte_ranks("gpt2")[0x21], byte_ranks("gpt2")[0]
    (97, 0, 188)

    Raises:
        TokenizerError: `byte_order` is neither a known name nor a permutation of 0 to 255.
    """
    if isinstance(byte_order, str):
        if byte_order not in BYTE_ORDERS:
            known = ", ".join(BYTE_ORDERS)
            raise TokenizerError(f"unknown byte order {byte_order!r}; known: {known}")
        return BYTE_ORDERS[byte_order]
    given = list(byte_order) if isinstance(byte_order, (list, tuple, bytes)) else []
    if any(type(rank) is not int for rank in given) or sorted(given) != list(range(256)):
        raise TokenizerError(
            "a byte order must be a name or the numbers 0 to 255, one for each byte"
        )
    return bytes(given)


def name_byte_order(ranks: bytes) -> str | tuple[int, ...]:
    """Return the name of a byte order if it has one, else its ranks.

    >>> name_byte_order(bytes(range(256)))
    'value'
    """
    names = [name for name, known in BYTE_ORDERS.items() if known == ranks]
    return names[0] if names else tuple(ranks)


def assign_ordinary_ids(n_ordinary: int, special_ids: Sequence[int]) -> list[int] | None:
    """Return the id of each rank, or None if every rank equals its id.

    >>> assign_ordinary_ids(4, [0, 2])
    [1, 3, 4, 5]
    >>> assign_ordinary_ids(4, [4, 7])
    """
    if all(special_id >= n_ordinary for special_id in special_ids):
        return None
    taken = set(special_ids)
    free = (i for i in range(n_ordinary + len(taken)) if i not in taken)
    return list(islice(free, n_ordinary))


def bytes_by_id(
    ordinary: list[bytes], ordinary_ids: Sequence[int] | None, special_ids: Mapping[str, int]
) -> list[bytes]:
    """Return the bytes of each id; b"" for an unused id.

    >>> bytes_by_id([b"a", b"b"], None, {"<s>": 3})
    [b'a', b'b', b'', b'<s>']
    """
    ids = ordinary_ids or range(len(ordinary))
    by_id = [b""] * (max([ids[-1], *special_ids.values()]) + 1)
    for token_id, raw in zip(ids, ordinary, strict=True):
        by_id[token_id] = raw
    for token, token_id in special_ids.items():
        by_id[token_id] = token.encode("utf-8")
    return by_id


def check_merges(merges: Sequence[Any]) -> tuple[Pair, ...]:
    """Return the merges as a tuple of pairs.

    Raises:
        TokenizerError: a merge does not join two earlier ranks, or repeats an earlier merge; the
            message names the merge by its index, counted from 0.
    """
    index_of: dict[Pair, int] = {}
    for i, pair in enumerate(merges):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TokenizerError(f"merge {i} is not a pair of ids: {pair!r:.40}")
        for part in pair:
            if type(part) is not int or not 0 <= part < 256 + i:
                raise TokenizerError(
                    f"merge {i} joins {part!r:.40}, but the ids before it are 0 to {255 + i}"
                )
        first, second = pair
        if (first, second) in index_of:
            raise TokenizerError(
                f"merge {i} joins {first} and {second}, as merge {index_of[first, second]} does"
            )
        index_of[first, second] = i
    return tuple(index_of)


def token_lengths(merges: Sequence[Pair]) -> list[int]:
    """Return the length of each ordinary token in bytes, by rank.

    >>> token_lengths([(97, 98), (256, 256)])[255:]
    [1, 2, 4]

    Raises:
        TokenizerError: all tokens together exceed MAX_VOCABULARY_BYTES.
    """
    lengths = [1] * 256
    total = 0
    for i, (first, second) in enumerate(merges):
        lengths.append(lengths[first] + lengths[second])
        total += lengths[-1]
        if total > MAX_VOCABULARY_BYTES:
            raise TokenizerError(
                f"the tokens up to merge {i} are longer than {MAX_VOCABULARY_BYTES} bytes"
            )
    return lengths


def token_bytes(merges: Sequence[Pair], ranks: bytes) -> list[bytes]:
    """Return the bytes of each ordinary token, by rank. `ranks[b]` is the rank of byte b.

    >>> token_bytes([(97, 98), (256, 99)], byte_ranks("value"))[256:]
    [b'ab', b'abc']
    """
    tokens = [bytes([byte]) for byte in inverse(ranks)]
    for first, second in merges:
        tokens.append(tokens[first] + tokens[second])
    return tokens


def check_special_tokens(tokens: Any, n_ordinary: int) -> dict[str, int]:
    """Return special token -> id, sorted by id.

    A list of tokens gets the ids after the `n_ordinary` ordinary ones.

    >>> check_special_tokens(["<a>", "<b>"], 256)
    {'<a>': 256, '<b>': 257}

    Raises:
        TokenizerError: a token is not a str, is empty, has no UTF-8 form or occurs twice; an id is
            not an integer, is out of range or occurs twice.
    """
    if isinstance(tokens, (str, bytes)):
        raise TokenizerError(f"special tokens must be a list of str, not {tokens!r:.40}")
    given = tokens.items() if isinstance(tokens, Mapping) else zip(tokens, count(n_ordinary))
    checked: dict[str, int] = {}
    owners: dict[int, str] = {}
    for token, token_id in given:
        if not isinstance(token, str) or not token:
            raise TokenizerError(
                f"a special token must be a str that is not empty, not {token!r:.40}"
            )
        if any("\ud800" <= char <= "\udfff" for char in token):
            raise TokenizerError(f"special token {token!r:.40} holds a lone surrogate")
        if token in checked:
            raise TokenizerError(f"special token {token!r:.40} is given twice")
        if type(token_id) is not int or not 0 <= token_id <= MAX_ID:
            raise TokenizerError(
                f"special token {token!r:.40} has id {token_id!r:.40}; ids are 0 to {MAX_ID}"
            )
        if token_id in owners:
            raise TokenizerError(
                f"special tokens {owners[token_id]!r:.40} and {token!r:.40} have the same id, "
                f"{token_id}"
            )
        checked[token] = token_id
        owners[token_id] = token
    return dict(sorted(checked.items(), key=lambda item: item[1]))


def count_merges(vocab_size: Any, n_special: int) -> int:
    """Return the number of merges in a vocabulary of `vocab_size` ids.

    >>> count_merges(300, 1)
    43

    Raises:
        TokenizerError: `vocab_size` is not an integer, or too small for bytes and special tokens.
    """
    if type(vocab_size) is not int:
        raise TokenizerError(f"vocabulary size must be a whole number, not {vocab_size!r:.40}")
    if vocab_size < 256 + n_special:
        raise TokenizerError(
            f"vocabulary {vocab_size} is too small: 256 bytes and {n_special} special "
            f"{'token' if n_special == 1 else 'tokens'} need at least {256 + n_special}"
        )
    return vocab_size - 256 - n_special
