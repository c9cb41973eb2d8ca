"""BPETokenizer: byte-level BPE (Gage 1994; Sennrich et al. 2016; on bytes: Radford et al. 2019).

Encoding splits text into pre-tokens (tok.patterns) and applies the learned merges to each in order.
The ids are those of the 256 bytes, then of the merges in the order of learning, then of the special
tokens (which have other ids in some imported vocabularies: see tok.vocabulary).

This command reproduces the committed tok/bpe.json byte for byte:
    python -m tok.bpe train data/tiny.txt --vocab-size 2048 --out tok/bpe.json
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial
from io import BytesIO
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from tok import vocabulary
from tok.encoding.encoder import Encoder, is_long
from tok.encoding.progress import ProgressLine
from tok.encoding.stream_decoder import StreamDecoder
from tok.errors import TokenizerError
from tok.patterns import check_pattern, to_bytes, to_text
from tok.tokenizer_file import content_of, from_json, identity_of, to_json
from tok.training.count_files import count_files, count_texts
from tok.training.counts import PretokenCounts
from tok.training.learn import learn_merges
from tok.vocabulary import END_OF_TEXT, ByteOrder
from utils.errors import brief, errors_at
from utils.files import read_bytes, write_atomic


class BPETokenizer:
    """Text <-> ids. Immutable. Two tokenizers are equal if they have the same `identity`."""

    def __init__(
        self,
        merges: Sequence[tuple[int, int]],
        special_tokens: Sequence[str] | Mapping[str, int] = (END_OF_TEXT,),
        *,
        pattern: str = "gpt2",
        byte_order: ByteOrder = "value",
    ) -> None:
        """
        Args:
            merges: merges[i] joins two lower ranks to rank 256 + i (see tok.vocabulary; ranks are
                ids unless special tokens have lower ids).
            special_tokens: a sequence, whose ids follow the merges; or a mapping, token -> id.
            byte_order: "value", "gpt2", or the rank of each of the 256 bytes.

        Raises:
            TokenizerError: a merge, special token, pattern or byte order is invalid.
        """
        self.pattern = pattern
        self.byte_ranks = vocabulary.byte_ranks(byte_order)  # bytes: rank of each byte
        self.byte_order = vocabulary.name_byte_order(self.byte_ranks)
        self.merges = vocabulary.check_merges(merges)
        self._lengths = vocabulary.token_lengths(self.merges)  # rank -> length in bytes
        n_ordinary = len(self._lengths)
        #: Special token -> id, sorted by id.
        self.special_ids = vocabulary.check_special_tokens(special_tokens, n_ordinary)
        self.special_tokens = tuple(self.special_ids)
        # Rank -> id; None if every rank equals its id (special tokens come last).
        special_ids = list(self.special_ids.values())
        self._id_of_rank = vocabulary.assign_ordinary_ids(n_ordinary, special_ids)
        ordinary = vocabulary.token_bytes(self.merges, self.byte_ranks)  # rank -> bytes
        #: Id -> bytes; for a special token its text in UTF-8, for an unused id b"".
        self.token_bytes: list[bytes] = vocabulary.bytes_by_id(
            ordinary, self._id_of_rank, self.special_ids
        )
        #: Encodes text; also used directly for streams (tok.encoding.parallel).
        self.encoder = Encoder(
            self.merges,
            self._lengths,
            self.byte_ranks,
            ordinary,
            self.ordinary_ids,
            self.special_ids,
            check_pattern(pattern),
        )

    @classmethod
    def train(
        cls,
        text: str | bytes | Iterable[str | bytes],
        *,
        vocab_size: int,
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        byte_order: ByteOrder = "value",
        pattern: str = "gpt2",
        workers: int = 0,
        progress: bool = False,
    ) -> BPETokenizer:
        """Learn merges from one or several texts. No token spans two texts.

        The order of the texts does not matter. Special tokens in a text are treated as plain text.

        >>> BPETokenizer.train("aaabdaaabac", vocab_size=260).merges
        ((97, 97), (97, 98), (256, 257))

        Args:
            vocab_size: number of ids: 256 bytes, the merges and the special tokens.
            byte_order: order of the byte ids, which decides between equally frequent pairs.
            pattern: rule that splits text into pre-tokens, a key of tok.patterns.PATTERNS.
            workers: processes that count pre-tokens, forked (threads where forking is unsafe, see
                tok.training.count_files); 0 = one per core. Does not affect the result.
            progress: show a progress line if stderr is a terminal.

        Raises:
            TokenizerError: there is no text, or `vocab_size` is too small, or too large for the
                text.
        """
        untrained = cls([], special_tokens, pattern=pattern, byte_order=byte_order)
        texts = [text] if isinstance(text, (str, bytes, bytearray)) else text
        count = partial(count_texts, texts, pattern, workers)
        return untrained._learn(count, vocab_size, progress)

    @classmethod
    def train_files(
        cls,
        paths: Iterable[str | Path],
        *,
        vocab_size: int,
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        byte_order: ByteOrder = "value",
        pattern: str = "gpt2",
        errors: str = "strict",
        workers: int = 0,
        on_bytes: Callable[[int], None] | None = None,
        progress: bool = False,
    ) -> BPETokenizer:
        """Learn merges from files, which may be larger than the memory. Arguments as in `train`.

        Args:
            errors: "strict" rejects a file that is not UTF-8, "bytes" accepts any bytes.
            on_bytes: called with the number of bytes read so far.

        Raises:
            TokenizerError: as in `train`.
            UserError: a file can't be read or is not UTF-8.
        """
        untrained = cls([], special_tokens, pattern=pattern, byte_order=byte_order)
        count = partial(count_files, paths, pattern, errors, workers, on_bytes)
        return untrained._learn(count, vocab_size, progress)

    def _learn(
        self, count: Callable[[], PretokenCounts], vocab_size: int, progress: bool
    ) -> BPETokenizer:
        """Count the pre-tokens (which may take long), and return this tokenizer with merges."""
        n_merges = vocabulary.count_merges(vocab_size, len(self.special_tokens))
        pretokens = count()
        if not pretokens.n_bytes:
            raise TokenizerError("no text to train on: the corpus is empty")
        with contextlib.closing(ProgressLine("merges", n_merges, progress)) as on_merge:
            # Ranks are ids here: special tokens come last.
            merges = learn_merges(pretokens, n_merges, self.byte_ranks, on_merge)
        if len(merges) < n_merges:
            max_size = 256 + len(merges) + len(self.special_tokens)
            raise TokenizerError(
                f"vocabulary {vocab_size} can't be filled: this corpus gives at most {max_size}; "
                f"use more text, or set vocab_size {max_size}"
            )
        make = partial(type(self), pattern=self.pattern, byte_order=self.byte_order)
        return make(merges, self.special_tokens)

    @cached_property
    def _content(self) -> dict[str, Any]:
        return content_of(self.merges, self.special_ids, self.pattern, self.byte_order)

    @cached_property
    def identity(self) -> str:
        """Hex SHA-256 of everything that determines the ids; equal for equal tokenizers."""
        return identity_of(self._content)

    def save(self, path: str | Path) -> None:
        """Write the JSON file atomically.

        Raises:
            OSError: the file can't be written.
        """
        write_atomic(path, to_json(self._content))

    @classmethod
    def load(cls, path: str | Path) -> BPETokenizer:
        """Read a file that `save` wrote, and validate it.

        Raises:
            UserError: the file can't be read.
            TokenizerError: the file is not a tokenizer file, or damaged; the message names it.
        """
        raw = read_bytes(path)
        with errors_at(path, "put the original file back", TokenizerError):
            tokenizer = cls(**from_json(raw))
        tokenizer.encoder.warm_up()
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of ids, including special tokens and, in an imported vocabulary, unused ids."""
        return len(self.token_bytes)

    @property
    def ordinary_ids(self) -> Sequence[int]:
        """Rank -> id: the ids of the bytes by rank, then of the merges; no special tokens."""
        return self._id_of_rank or range(len(self._lengths))

    @property
    def eot_id(self) -> int:
        """The id of the end-of-text token.

        Raises:
            TokenizerError: this tokenizer has none.
        """
        if END_OF_TEXT not in self.special_ids:
            raise TokenizerError(f"this tokenizer has no special token {END_OF_TEXT}")
        return self.special_ids[END_OF_TEXT]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest array type that holds every id: uint16 or uint32."""
        return vocabulary.dtype_for(self.vocab_size)

    @cached_property
    def byte_lengths(self) -> np.ndarray:
        """int64[V]: length of each id in bytes; 0 for special tokens and unused ids."""
        lengths_V = np.zeros(self.vocab_size, dtype=np.int64)
        lengths_V[self.ordinary_ids] = self._lengths
        lengths_V.flags.writeable = False
        return lengths_V

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BPETokenizer) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __repr__(self) -> str:
        return f"BPETokenizer(vocab_size={self.vocab_size}, identity={self.identity[:12]})"

    def __reduce__(self) -> tuple[Any, ...]:  # pickled for other processes without the caches
        make = partial(type(self), pattern=self.pattern, byte_order=self.byte_order)
        return make, (self.merges, self.special_ids)

    def encode(
        self, text: str | bytes, *, allowed_special: bool | Collection[str] = False
    ) -> list[int]:
        """Return the ids of a text.

        Args:
            text: a str, or bytes as in `encode_bytes`.
            allowed_special: the special tokens to recognise: False = none (they are plain text),
                True = all, or a set. Where several match, the longest is taken.

        Raises:
            TokenizerError: the text contains a lone surrogate, which has no UTF-8 form; or
                `allowed_special` contains a token that this tokenizer does not have.
        """
        if is_long(text):
            return self.encode_array(text, allowed_special=allowed_special).tolist()
        return self.encoder.encode_short(to_text(text), allowed_special)

    def encode_bytes(
        self, raw: bytes, *, allowed_special: bool | Collection[str] = False
    ) -> list[int]:
        """Return the ids of any bytes, UTF-8 or not. `decode_bytes` inverts this exactly."""
        return self.encode(raw, allowed_special=allowed_special)

    def encode_array(
        self, text: str | bytes, *, allowed_special: bool | Collection[str] = False
    ) -> np.ndarray:
        """Return the same ids as `encode` as an array [T] of `dtype`; for large texts."""
        if not is_long(text):
            return np.array(self.encode(text, allowed_special=allowed_special), dtype=self.dtype)
        raw = to_bytes(to_text(text)) if isinstance(text, str) else bytes(text)
        parts = self.encoder.parts(BytesIO(raw).read, allowed_special)
        arrays = [ids.astype(self.dtype) for ids in self.encoder.encode_parts(parts)]
        return np.concatenate(arrays) if arrays else np.zeros(0, dtype=self.dtype)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, including special tokens. Invalid UTF-8 becomes U+FFFD.

        Raises:
            TokenizerError: an id is out of range.
        """
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of `ids` (a list, an array [T] or any iterable of ints).

        Raises:
            TokenizerError: an id is out of range.
        """
        return b"".join(map(self._bytes_of, ids))

    def stream_decoder(self) -> StreamDecoder:
        """Return a decoder that is fed one id at a time."""
        return StreamDecoder(self._bytes_of)

    def _bytes_of(self, token_id: int) -> bytes:
        try:
            token_id = index(token_id)
        except TypeError:
            raise TokenizerError(f"an id must be an int, not {brief(token_id)}") from None
        if not 0 <= token_id < len(self.token_bytes):
            raise TokenizerError(
                f"id {token_id} is out of range: the ids are 0 to {self.vocab_size - 1}"
            )
        if not self.token_bytes[token_id]:
            raise TokenizerError(f"id {token_id} is not used in this vocabulary")
        return self.token_bytes[token_id]
