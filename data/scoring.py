"""What a trained model is scored on: its own validation part, or any text cut in the same way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.batches import Batches
from data.config import DataConfig
from data.documents import BLANK_LINE, read_documents
from data.prepare import prepare, write_split
from data.prepared_folder import META, read_meta
from data.stories import story as stories
from data.token_file import TokenFile
from data.windows import IGNORE_INDEX
from tok.text_files import expand_folders
from tok.tokenizer import BPETokenizer
from utils.errors import UserError


def rebuild_run_data(
    config: DataConfig,
    vocab_size: int,
    folder: Path,
    identity: str,
    tokenizer: BPETokenizer | None = None,
) -> Path:
    """Makes the data of a run anew, whose folder is gone or has changed.

    Args:
        tokenizer: of a run whose settings don't say it.

    Raises:
        UserError: the settings don't say how it was made, or it comes out different.
    """
    if config.dir:
        raise UserError(f"{folder}: the run's data is gone or has changed; put the folder back")
    made = prepare(config, vocab_size, tokenizer=tokenizer)
    found = read_meta(made)["identity"]
    if found != identity:
        raise UserError(
            f"{made}: other data than the run was trained on ({found[:12]}, expected "
            f"{identity[:12]}); put the original files back, or give --text FILE"
        )
    return made


def document_separator(folder: Path, config: DataConfig) -> str:
    """What parts the documents of text like the run's; stories stand between blank lines."""
    if (folder / META).exists():
        corpus = read_meta(folder)["recipe"]["corpus"]
        return BLANK_LINE if "stories" in corpus else corpus["settings"][0]
    return config.doc_sep if config.files or config.dir else BLANK_LINE


def longest_document(path: Path, end_id: int) -> int:
    """Tokens of the longest document of a token file, its end-of-text token among them."""
    with contextlib.closing(TokenFile(path)) as tokens:
        return int(np.diff(tokens.positions_of(end_id), prepend=-1).max(initial=0))


def plan_validation(
    folder: Path, windows: str, block_size: int, end_id: int
) -> tuple[str, dict[str, float] | None, str]:
    """How val.npy is scored: its windows, its floor where the loss compares with it, and a note.

    Stories are scored each from its own start, however training cuts them: a story without its
    beginning has a higher loss, which no floor belongs to. Where block_size does not hold the
    longest one, there is no such score.
    """
    floor = read_meta(folder)["floor"]
    if floor is None:
        return windows, None, ""
    longest = longest_document(folder / "val.npy", end_id)
    if longest <= block_size:
        return "documents", floor, ""
    note = f"a story holds {longest} tokens, more than block_size {block_size}: no floor is told"
    return windows, None, note


def val_batches(
    folder: Path, config: DataConfig, *, block_size: int, end_id: int, windows: str
) -> Batches:
    """The windows of val.npy as in training; packed ones no longer than the text."""
    if windows == "packed":
        with contextlib.closing(TokenFile(folder / "val.npy")) as tokens:
            block_size = min(block_size, max(1, tokens.n_tokens))
    return Batches(
        folder,
        block_size=block_size,
        rows=1,
        end_id=end_id,
        seed=0,
        windows=windows,
        stride=min(config.stride, block_size),
        mask_documents=config.mask_documents,
        splits=("val",),
    )


def encode_text(
    path: str, separator: str, field: str, errors: str, tokenizer: BPETokenizer, into: Path
) -> int:
    """Encodes a text file or folder as documents into `into`/val.npy; the tokens of the longest.

    Raises:
        UserError: a file can't be read, or is not UTF-8 and `errors` is strict; there is no text.
    """
    files, hint = expand_folders([path]), "convert the file to UTF-8"
    documents = list(read_documents(files, separator, errors, field=field, hint=hint))
    if not documents:
        raise UserError(f"{path}: no text in it")
    write_split(into / "val.npy", documents, tokenizer, "text")
    return longest_document(into / "val.npy", tokenizer.eot_id)


def text_floor(path: str, separator: str, field: str) -> float | None:
    """The entropy floor of stories in nats per byte; None where one is not of the grammar."""
    documents = read_documents(expand_folders([path]), separator, "bytes", field=field)
    floor = stories.floor_if_stories(documents)
    return floor.nats_per_byte if floor else None


class TokenScores:
    """Takes the batches of `Batches.eval_batches` as an evaluation goes over them.

    Attributes:
        ids_N: the tokens of the split, in the order of the text.
        nats_N: -ln p of each given what its window holds before it, float32.
    """

    def __init__(self, batches: Batches, split: str, rows: int) -> None:
        """`rows`: as for eval_batches."""
        self._windows = batches.splits[split]
        self._rows = batches.eval_rows(split, rows)
        n_tokens = self._windows.tokens.n_tokens
        self.ids_N = self._windows.tokens.read(0, n_tokens)
        self.nats_N = np.full(n_tokens, np.nan, dtype=np.float32)
        self.n_scored = 0

    def add(self, targets_BT: torch.Tensor, nats_BT: torch.Tensor) -> None:
        """The next batch: its targets and their nats."""
        first_B = self._windows.target_spans(next(self._rows)).start_B
        for first, targets, nats in zip(
            first_B, targets_BT.numpy(), nats_BT.float().numpy(), strict=True
        ):
            scored = np.flatnonzero(targets != IGNORE_INDEX)
            places = first + scored
            assert (self.ids_N[places] == targets[scored]).all()
            self.nats_N[places] = nats[scored]
            self.n_scored += len(scored)


def token_records(scores: TokenScores, tokenizer: BPETokenizer) -> Iterator[dict[str, Any]]:
    """Each token's place (from 0), id, text and log-probability in nats.

    A token that is no whole characters has no text, but its bytes in hexadecimal.
    """
    assert scores.n_scored == len(scores.ids_N), "each token is scored once"
    pairs = zip(scores.ids_N.tolist(), scores.nats_N.tolist(), strict=True)
    for place, (token, nats) in enumerate(pairs):
        record = {"place": place, "id": token, **text_or_hex(tokenizer.token_bytes[token])}
        yield {**record, "logprob": -nats}


def text_or_hex(raw: bytes) -> dict[str, str | None]:
    """The text of bytes, or their numbers where they are no UTF-8.

    >>> text_or_hex(b"ab"), text_or_hex("é".encode()[:1])
    ({'text': 'ab'}, {'text': None, 'hex': 'c3'})
    """
    try:
        return {"text": raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {"text": None, "hex": raw.hex()}
