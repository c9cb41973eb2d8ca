"""Counts of pre-tokens in a form that tests compare."""

from __future__ import annotations

from tok.training.counts import PretokenCounts


def as_dict(counts: PretokenCounts) -> dict[bytes, int]:
    """Return pre-token -> count."""
    raw, lengths_U, counts_U = counts.flattened()
    whole, ends_U = raw.tobytes(), lengths_U.cumsum()
    ranges = zip(ends_U - lengths_U, ends_U, strict=True)
    return dict(zip([whole[a:b] for a, b in ranges], counts_U.tolist(), strict=True))
