"""Byte-level BPE: BPETokenizer.

Ids: the 256 bytes first, then the merges in the order in which they were learned, then the special
tokens (an imported vocabulary may have them elsewhere: see tok.vocabulary). Text is cut into
pre-tokens (tok.patterns), and within each the learned merges are applied in order (Gage 1994;
Sennrich et al. 2016; on bytes: Radford et al. 2019).

The committed tok/bpe.json was made, and can be made again byte for byte, with
    python -m tok.bpe train data/tiny.txt --vocab-size 2048 --out tok/bpe.json
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial
from io import BytesIO
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from tok.encoding.encoder import Encoder, is_long
from tok.encoding.progress import ProgressLine
from tok.encoding.stream_decoder import StreamDecoder
from tok.errors import TokenizerError
from tok.patterns import check_pattern, to_bytes, to_text
from tok.tokenizer_file import content_of, from_json, identity_of, to_json
from tok.training.count_files import count_files, count_texts
from tok.training.counts import PretokenCounts
from tok.training.learn import learn_merges
from tok.vocabulary import (
    END_OF_TEXT,
    ByteOrder,
    assign_ordinary_ids,
    byte_ranks,
    bytes_by_id,
    check_merges,
    check_special_tokens,
    count_merges,
    dtype_for,
    name_byte_order,
    token_bytes,
    token_lengths,
)
from utils.files import read_bytes, write_atomic


class BPETokenizer:
    """Text <-> ids. Immutable; equal if it gives the same ids to every text."""

    def __init__(
        self,
        merges: Sequence[tuple[int, int]],
        special_tokens: Sequence[str] | Mapping[str, int] = (END_OF_TEXT,),
        *,
        pattern: str = "gpt2",
        byte_order: ByteOrder = "value",
    ) -> None:
        """`merges[i]` makes number 256 + i from two lower ones (a number is an id: tok.vocabulary).

        Args:
            special_tokens: they get the ids after the merges; or a mapping, token -> id.
            byte_order: "value", "gpt2", or the number of each of the 256 bytes.

        Raises:
            TokenizerError: a malformed merge, special token, pattern or byte order.
        """
        self.pattern = pattern
        self.byte_ranks = byte_ranks(byte_order)  # `byte_order` in full: that of each byte
        self.byte_order = name_byte_order(self.byte_ranks)
        self.merges = check_merges(merges)
        self._lengths = token_lengths(self.merges)  # by number, as merges are
        n_ordinary = len(self._lengths)
        #: Special token -> id, sorted by id.
        self.special_ids = check_special_tokens(special_tokens, n_ordinary)
        self.special_tokens = tuple(self.special_ids)
        # Number -> id; None if each number is its id (special tokens come last).
        self._ids_by_rank = assign_ordinary_ids(n_ordinary, list(self.special_ids.values()))
        #: The bytes of each id; a special token's are its text in UTF-8, an unused id has none.
        ordinary = token_bytes(self.merges, self.byte_ranks)
        self.token_bytes: list[bytes] = bytes_by_id(ordinary, self._ids_by_rank, self.special_ids)
        #: What encodes; beyond the methods below for streams, part by part (tok.encoding.parallel).
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
        """Learns merges from one text, or from several between which nothing is merged.

        The order of the texts does not matter. Special tokens in the text are plain text.

        >>> BPETokenizer.train("aaabdaaabac", vocab_size=260).merges
        ((97, 97), (97, 98), (256, 257))

        Args:
            vocab_size: all ids: 256 bytes, the merges, the special tokens.
            byte_order: numbers the bytes, and so decides between pairs that are equally frequent.
            pattern: how text is cut into pre-tokens, one of tok.patterns.PATTERNS.
            workers: processes that count, forked (threads where a fork is not safe, see
                tok.training.count_files); 0 for one on each core; the result is the same.
            progress: shows a progress line if stderr is a terminal.

        Raises:
            TokenizerError: no text, or a vocabulary that is too small or that the text can't fill.
        """
        check_pattern(pattern)
        texts = [text] if isinstance(text, (str, bytes, bytearray)) else text
        count = partial(count_texts, texts, pattern, workers)
        return cls._learn(count, vocab_size, special_tokens, byte_order, pattern, progress)

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
        """`train` on the content of files, which may be larger than the memory.

        Args:
            errors: "strict" refuses a file that is not UTF-8, "bytes" takes any bytes.
            on_bytes: called with the number of bytes read so far.

        Raises:
            TokenizerError: as `train`.
            UserError: a file that can't be read, or is not UTF-8.
        """
        check_pattern(pattern)
        count = partial(count_files, paths, pattern, errors, workers, on_bytes)
        return cls._learn(count, vocab_size, special_tokens, byte_order, pattern, progress)

    @classmethod
    def _learn(
        cls,
        count: Callable[[], PretokenCounts],
        vocab_size: int,
        special_tokens: Sequence[str],
        byte_order: ByteOrder,
        pattern: str,
        progress: bool,
    ) -> BPETokenizer:
        """Checks the settings before it counts, which may take long."""
        special_tokens = tuple(check_special_tokens(special_tokens, 256))
        n_merges = count_merges(vocab_size, len(special_tokens))
        byte_ids = byte_ranks(byte_order)
        pretokens = count()
        if not pretokens.n_bytes:
            raise TokenizerError("no text to train on: the corpus is empty")
        on_merge = ProgressLine("merges", n_merges, progress)
        merges = learn_merges(pretokens, n_merges, byte_ids, on_merge)
        on_merge.close()
        if len(merges) < n_merges:
            most = 256 + len(merges) + len(special_tokens)
            raise TokenizerError(
                f"vocabulary {vocab_size} can't be filled: this corpus gives at most {most}; "
                "choose a smaller vocabulary or more text"
            )
        return cls(merges, special_tokens, pattern=pattern, byte_order=byte_order)

    @cached_property
    def _content(self) -> dict[str, Any]:
        return content_of(self.merges, self.special_ids, self.pattern, self.byte_order)

    @cached_property
    def identity(self) -> str:
        """Hex sha256 of all that decides the ids; two tokenizers with the same one are the same."""
        return identity_of(self._content)

    def save(self, path: str | Path) -> None:
        """Writes the JSON file, whole or not at all.

        Raises:
            OSError: the file can't be written.
        """
        write_atomic(path, to_json(self._content))

    @classmethod
    def load(cls, path: str | Path) -> BPETokenizer:
        """Reads what `save` wrote, and checks all of it.

        Raises:
            UserError: the file can't be read.
            TokenizerError: it is not a whole, unchanged tokenizer file; the message names the file.
        """
        try:
            tokenizer = cls(**from_json(read_bytes(path)))
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None
        tokenizer.encoder.warm_up()
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """The number of ids, special tokens and unused ids (of an imported vocabulary) included."""
        return len(self.token_bytes)

    @property
    def ordinary_ids(self) -> Sequence[int]:
        """The ids of the bytes in byte order, then of the merges: all but the special ones."""
        return self._ids_by_rank or range(len(self._lengths))

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
        """The smallest type of an array that holds every id: uint16 or uint32."""
        return dtype_for(self.vocab_size)

    @cached_property
    def byte_lengths(self) -> np.ndarray:
        """int64[vocab_size]: bytes of text that each id stands for; 0 for special and unused."""
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

    def __reduce__(self) -> tuple[Any, ...]:  # to other processes, without the cache
        make = partial(type(self), pattern=self.pattern, byte_order=self.byte_order)
        return make, (self.merges, self.special_ids)

    def encode(
        self, text: str | bytes, *, allowed_special: bool | Collection[str] = False
    ) -> list[int]:
        """The ids of a text.

        Args:
            text: bytes too, as for `encode_bytes`.
            allowed_special: which special tokens the text may hold: False none (they are plain
                text), True all, or a set of some. Where several fit, the longest counts.

        Raises:
            TokenizerError: a lone surrogate in the text (it has no UTF-8 form), or a token in
                allowed_special that this tokenizer does not have.
        """
        if is_long(text):
            return self.encode_array(text, allowed_special=allowed_special).tolist()
        return self.encoder.encode_short(to_text(text), allowed_special)

    def encode_bytes(
        self, raw: bytes, *, allowed_special: bool | Collection[str] = False
    ) -> list[int]:
        """The ids of any bytes, UTF-8 or not; `decode_bytes` gives exactly them back."""
        return self.encode(raw, allowed_special=allowed_special)

    def encode_array(
        self, text: str | bytes, *, allowed_special: bool | Collection[str] = False
    ) -> np.ndarray:
        """`encode` (of a str) or `encode_bytes` as an array [N] of `dtype`, for large texts."""
        if not is_long(text):
            return np.array(self.encode(text, allowed_special=allowed_special), dtype=self.dtype)
        raw = to_bytes(to_text(text)) if isinstance(text, str) else bytes(text)
        parts = self.encoder.parts(BytesIO(raw).read, allowed_special)
        arrays = [ids.astype(self.dtype) for ids in self.encoder.encode_parts(parts)]
        return np.concatenate(arrays) if arrays else np.zeros(0, dtype=self.dtype)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, special tokens included; what is not UTF-8 in the end becomes U+FFFD.

        Raises:
            TokenizerError: an id out of range.
        """
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids` (a list, an array [N], any iterable of ints).

        Raises:
            TokenizerError: an id out of range.
        """
        return b"".join(map(self._bytes_of, ids))

    def stream_decoder(self) -> StreamDecoder:
        """A decoder to feed id by id."""
        return StreamDecoder(self._bytes_of)

    def _bytes_of(self, token_id: int) -> bytes:
        try:
            token_id = index(token_id)
        except TypeError:
            raise TokenizerError(f"an id must be an int, not {token_id!r:.40}") from None
        if not 0 <= token_id < len(self.token_bytes):
            raise TokenizerError(
                f"id {token_id} is out of range: the ids are 0 to {self.vocab_size - 1}"
            )
        if not self.token_bytes[token_id]:
            raise TokenizerError(f"id {token_id} stands for nothing in this vocabulary")
        return self.token_bytes[token_id]
