"""The prepared data of a run: folder, tokenizer and batches."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.batches import Batches
from data.config import DataConfig
from data.download.known_corpora import corpus_name
from data.ngrams import ngram_bits
from data.prepared_folder import read_meta, val_coverage
from data.token_file import TokenFile
from tok.tokenizer import BPETokenizer
from utils.errors import UserError
from utils.metrics import bits_per_byte
from utils.output import describe_count

ORDERS = range(2, 9)  # of n-gram models; eight bytes fit into 64 bits
MAX_COUNTED = 3_000_000  # training tokens that are counted, in a few seconds and 1 GB of memory
END = b"\xff"  # stands for the end-of-text token; this byte does not occur in UTF-8


@dataclass(frozen=True)
class Dataset:
    """A prepared folder, opened for training.

    Attributes:
        meta: content of meta.json.
        val_windows: kind of windows of val.npy, see `plan_validation`.
        floor: entropy floor of val.npy, the fields of data.stories.story.Floor; None if unknown or
            not comparable with the loss.
        note: a line for the user about the floor; may be empty.
    """

    folder: Path
    meta: dict[str, Any]
    tokenizer: BPETokenizer
    val_windows: str
    floor: dict[str, float] | None
    note: str

    @classmethod
    def load(cls, folder: Path, windows: str, block_size: int) -> Dataset:
        """Open a prepared folder.

        Args:
            windows: kind of the training windows, `packed` or `documents`.

        Raises:
            UserError: a file is missing or damaged.
        """
        meta = read_meta(folder)
        tokenizer = BPETokenizer.load(folder / "tokenizer.json")
        plan = plan_validation(folder, windows, block_size, tokenizer.eot_id)
        return cls(folder, meta, tokenizer, *plan)

    @property
    def notes(self) -> list[str]:
        """Lines for the user: `note`, and what evaluations cover if not all validation text."""
        covered = val_coverage(self.meta)
        line = covered and f"evaluations cover {covered} (data.val_max_bytes)"
        return [one for one in (self.note, line) if one]

    def batches(self, config: DataConfig, **options: Any) -> Batches:
        """Open the batches of both splits; see `data.batches.Batches` for the options."""
        options |= {"eot_id": self.tokenizer.eot_id, "val_windows": self.val_windows}
        return Batches(self.folder, config, **options)

    def tokens_per_row(self, windows: str, block_size: int) -> tuple[float, str]:
        """Return the mean number of tokens in a training window, and a phrase that explains it."""
        if windows == "documents":
            mean = self.meta["train"]["tokens"] / self.meta["train"]["documents"]
            return mean, f"{mean:.1f} of a document on average"
        return block_size, f"block_size {block_size}"

    def metadata(self) -> dict[str, Any]:
        """Return the entries of run.json that describe the data."""
        data = {"folder": str(self.folder), "floor": self.floor}
        data |= {name: self.meta[name] for name in ("identity", "train", "val")}
        floor_nats = self.floor and self.floor["total_nats"] / self.meta["val"]["tokens"]
        return {
            "data": data | {"corpus": corpus_name(self.meta["recipe"])},
            "floor_nats_per_token": floor_nats,
        }

    def compare_with_ngrams(self, nats_per_token: float) -> str:
        """Return how a model compares with the best n-gram model of bytes; "" if there is a floor.

        Args:
            nats_per_token: the model's loss on the validation split.
        """
        if self.floor:
            return ""
        val, train_tokens = self.meta["val"], self.meta["train"]["tokens"]
        bits = bits_per_byte(nats_per_token * val["tokens"], val["bytes"])
        text = self._bytes("val")
        found = ngram_bits(self._bytes("train"), text, 256, ORDERS)
        order, counted_bits = min(found.items(), key=lambda item: item[1])
        theirs = counted_bits / (text != END[0]).sum()
        part = f" of {describe_count(MAX_COUNTED)} tokens" if train_tokens > MAX_COUNTED else ""
        side = "below" if bits < theirs else "above"
        difference = f"{abs(bits / theirs - 1):.1%} {side} the {theirs:.4f} of"
        return f"{bits:.4f} bits/byte, {difference} counted {order}-grams of bytes{part}"

    def _bytes(self, split: str) -> np.ndarray:
        """Return the bytes of a split's first MAX_COUNTED tokens, uint8."""
        with contextlib.closing(TokenFile(self.folder / f"{split}.npy")) as tokens:
            ids = tokens.read(0, min(tokens.n_tokens, MAX_COUNTED))
        token_bytes = [*self.tokenizer.token_bytes]
        token_bytes[self.tokenizer.eot_id] = END
        return np.frombuffer(b"".join([token_bytes[i] for i in ids.tolist()]), np.uint8)


def longest_document(path: Path, eot_id: int) -> int:
    """Return the longest document's length in tokens, including its end-of-text token."""
    with contextlib.closing(TokenFile(path)) as tokens:
        return int(np.diff(tokens.positions_of(eot_id), prepend=-1).max(initial=0))


def plan_validation(
    folder: Path, windows: str, block_size: int, eot_id: int
) -> tuple[str, dict[str, float] | None, str]:
    """Return how val.npy is scored: kind of windows, entropy floor, and a note for the user.

    Each story is scored from its start, even if training cuts stories elsewhere: without its
    beginning a story has a higher loss, which cannot be compared with the floor. The floor is
    None if it is unknown, or if the longest story does not fit into block_size.
    """
    floor = read_meta(folder)["floor"]
    if floor is None:
        return windows, None, ""
    longest = longest_document(folder / "val.npy", eot_id)
    if longest <= block_size:
        return "documents", floor, ""
    note = (
        f"a story holds {longest} tokens, more than block_size {block_size}: no floor is reported"
    )
    return windows, None, note


def check_run_tokenizer(path: Path, identity: str) -> None:
    """Check that the tokenizer file of a run folder, if it exists, is the run's own.

    Raises:
        UserError: the file holds another tokenizer or is damaged.
    """
    if path.exists() and (found := BPETokenizer.load(path).identity) != identity:
        raise UserError(
            f"{path}: another tokenizer than the run's: {found[:12]}, expected "
            f"{identity[:12]}; put the original back, or remove the file"
        )
