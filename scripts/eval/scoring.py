"""The data that an evaluation scores, prepared as in training, and the loss of each token."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.batches import Batches
from data.config import DataConfig
from data.dataset import longest_document
from data.documents import BLANK_LINE, read_documents
from data.prepare import prepare, write_split
from data.prepared_folder import META, read_meta
from data.stories import story as stories
from data.windows import IGNORE_INDEX
from tok.text_files import suggest_include
from tok.tokenizer import BPETokenizer
from utils.errors import UserError, looked_in


def rebuild_run_data(
    config: DataConfig,
    vocab_size: int,
    folder: Path,
    identity: str,
    tokenizer: BPETokenizer | None = None,
) -> Path:
    """Prepare the data of a run again, after its folder was removed or changed.

    Args:
        config: the run's settings.
        folder: the folder that is missing or changed.
        identity: the expected identity of the data.
        tokenizer: the run's tokenizer, if the settings do not name it.

    Raises:
        UserError: the settings do not describe the data, or the result has another identity.
    """
    if config.dir:
        raise UserError(
            f"{folder}: the run's data is missing or has changed{looked_in(folder)}; restore it"
        )
    made = prepare(config, vocab_size, tokenizer=tokenizer)
    found = read_meta(made)["identity"]
    if found != identity:
        raise UserError(
            f"{made}: other data than the run was trained on ({found[:12]}, expected "
            f"{identity[:12]}); put the original files back, or give --text FILE"
        )
    return made


def document_separator(folder: Path, config: DataConfig) -> str:
    """Return the document separator of the run's text. Stories are separated by blank lines."""
    if (folder / META).exists():
        corpus = read_meta(folder)["recipe"]["corpus"]
        # The first of the settings is data.doc_sep, see data/document_source.py.
        return BLANK_LINE if "stories" in corpus else corpus["settings"][0]
    return config.doc_sep if config.files or config.dir else BLANK_LINE


def encode_text(
    files: Sequence[Path],
    separator: str,
    field: str,
    errors: str,
    tokenizer: BPETokenizer,
    into: Path,
    folder: str,
) -> tuple[int, float | None]:
    """Encode text files into `into`/val.npy.

    Returns:
        The longest document's length in tokens; and the entropy floor in nats per byte, None if a
        document is not a story.

    Args:
        separator, field, errors: see `read_documents`.
        folder: the value of --text that the files are found from, for the message.

    Raises:
        UserError: a file can't be read, is not UTF-8 although `errors` is strict, or holds no text.
    """
    hint = "convert the file to UTF-8"
    with suggest_include(files, [folder], "--include"):
        documents = list(read_documents(files, separator, errors, field=field, hint=hint))
    if not documents:
        raise UserError(f"{files[0]}: no text in it; name another --text")
    write_split(into / "val.npy", documents, tokenizer, "text")
    floor = stories.floor_if_stories(documents)
    longest = longest_document(into / "val.npy", tokenizer.eot_id)
    return longest, floor.nats_per_byte if floor else None


class TokenScores:
    """The loss of each token of a split, collected while an evaluation runs over its batches.

    Attributes:
        ids_N: the tokens of the split, in the order of the text.
        nats_N: -ln p of each token given the preceding tokens in its window, float32.
    """

    def __init__(self, batches: Batches, split: str, rows: int) -> None:
        """Prepare for the batches of `batches.eval_batches(split, rows)`."""
        self._windows = batches.splits[split]
        self._rows = batches.eval_rows(split, rows)
        n_tokens = self._windows.tokens.n_tokens
        self.ids_N = self._windows.tokens.read(0, n_tokens)
        self.nats_N = np.full(n_tokens, np.nan, dtype=np.float32)
        self.n_scored = 0

    def add(self, targets_BT: torch.Tensor, nats_BT: torch.Tensor) -> None:
        """Store the losses (B, T) in nats of the next batch, given its targets (B, T)."""
        first_B = self._windows.targets(next(self._rows)).start_B
        for first, targets, nats in zip(
            first_B, targets_BT.numpy(), nats_BT.float().numpy(), strict=True
        ):
            scored = np.flatnonzero(targets != IGNORE_INDEX)
            positions = first + scored
            assert (self.ids_N[positions] == targets[scored]).all()
            self.nats_N[positions] = nats[scored]
            self.n_scored += len(scored)


def token_records(scores: TokenScores, tokenizer: BPETokenizer) -> Iterator[dict[str, Any]]:
    """Yield a JSON record for each token: place (from 0), id, text, logprob (in nats).

    A token that is not valid UTF-8 has its bytes in hexadecimal, `hex`, and None as its text.
    """
    assert scores.n_scored == len(scores.ids_N), "each token is scored once"
    pairs = zip(scores.ids_N.tolist(), scores.nats_N.tolist(), strict=True)
    for place, (token, nats) in enumerate(pairs):
        record = {"place": place, "id": token, **text_or_hex(tokenizer.token_bytes[token])}
        yield {**record, "logprob": -nats}


def text_or_hex(raw: bytes) -> dict[str, str | None]:
    """Return the text of bytes, or their hexadecimal form if they are not UTF-8.

    >>> text_or_hex(b"ab"), text_or_hex("é".encode()[:1])
    ({'text': 'ab'}, {'text': None, 'hex': 'c3'})
    """
    try:
        return {"text": raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {"text": None, "hex": raw.hex()}
