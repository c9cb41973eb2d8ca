"""Ids as text: numbers in decimal, a blank before each."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from tok.bpe import BPETokenizer


def id_text(tokenizer: BPETokenizer, ids: np.ndarray) -> bytes:
    """Ids (below the tokenizer's vocab_size) as text.

    >>> import numpy as np
    >>> from tok.bpe import BPETokenizer
    >>> id_text(BPETokenizer([]), np.array([0, 12, 256]))
    b' 0 12 256'
    """
    # uint8[ids, width]: each id's text, filled up with zero bytes. What is left without them is
    # the text of all.
    padded = _texts(tokenizer.vocab_size)[ids]
    return padded[padded != 0].tobytes()


@lru_cache(maxsize=1)
def _texts(vocab_size: int) -> np.ndarray:
    """uint8[vocab_size, width]: the text of each id, filled up with zero bytes."""
    import numpy as np

    texts = np.array([b" %d" % token_id for token_id in range(vocab_size)])
    return texts.view(np.uint8).reshape(vocab_size, -1)
