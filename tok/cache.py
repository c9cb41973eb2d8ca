"""The ids of pre-tokens that were seen before: most of a text is made of few of them."""

from __future__ import annotations

from collections.abc import Callable

MAX_PIECES = 1 << 18
MAX_PIECE_CHARS = 128


class PieceCache(dict[str, tuple[int, ...]]):
    """Pre-token -> ids, worked out when first asked for. Bounded: when full it starts afresh.

    >>> cache = PieceCache(lambda piece: tuple(piece.encode()))
    >>> cache["ab"], len(cache)
    ((97, 98), 1)
    """

    def __init__(
        self, encode_piece: Callable[[str], tuple[int, ...]], max_pieces: int = MAX_PIECES
    ) -> None:
        super().__init__()
        self._encode_piece = encode_piece
        self._max_pieces = max_pieces

    def __missing__(self, piece: str) -> tuple[int, ...]:
        ids = self._encode_piece(piece)
        if len(piece) <= MAX_PIECE_CHARS:
            if len(self) >= self._max_pieces:
                self.clear()
            self[piece] = ids
        return ids
