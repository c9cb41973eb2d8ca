"""The tokenizers that scripts.bench compares: how each trains, and how each encodes.

Other projects' libraries are imported where they are used; none is needed by anything else here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scripts.bench.tokenizer.corpus import safe_blocks
from tok.patterns import PATTERNS
from tok.tokenizer import BPETokenizer
from tok.vocabulary import END_OF_TEXT, from_printable

Job = dict[str, Any]
Calls = dict[str, Callable[[str], Any]]

# Import name -> name on PyPI.
PEERS = {
    "tokenizers": "tokenizers",
    "tiktoken": "tiktoken",
    "rustbpe": "rustbpe",
    "gigabpe": "gigabpe",
    "quicktok": "quicktok-v1",
}
# Peers that train number the bytes by value or by stand-in, and so part at the first tie.
TRAINED_BYTE_ORDER = {"rustbpe": "value", "tokenizers": "gpt2", "gigabpe": "gpt2"}
# Peers that take every line of a file for a text of its own, so that no pre-token holds a line end
# and what follows it.
TRAINED_BY_LINE = {"gigabpe"}
ENCODING_PEERS = ("tiktoken", "tokenizers", "quicktok")
FEED_BYTES = 1 << 18  # of text given to a peer's trainer at once: enough pieces for all cores
BATCH_BYTES = 1 << 14


def installed() -> list[str]:
    """The peers that can be imported here."""
    return [name for name in PEERS if find_spec(name)]


def train_ours(job: Job) -> Callable[[], Callable[[], list[bytes]]]:
    """Prepares our training; what it returns trains, and what that returns gives the tokens."""

    settings = {
        "vocab_size": job["vocab_size"],
        "special_tokens": [],
        "byte_order": job.get("byte_order", "value"),
    }

    def run() -> Callable[[], list[bytes]]:
        if job.get("by_line"):
            with open(job["corpus"], "rb") as lines:
                trained = BPETokenizer.train(lines, **settings)
        else:
            trained = BPETokenizer.train_files([job["corpus"]], **settings)
        if "save" in job:
            trained.save(job["save"])
        return lambda: trained.token_bytes[256:]

    return run


def train_tokenizers(job: Job) -> Callable[[], Callable[[], list[bytes]]]:
    """Hugging Face, given blocks of text: from a file it would take every line by itself."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=job["vocab_size"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )

    def run() -> Callable[[], list[bytes]]:
        theirs.train_from_iterator(feed(job["corpus"]), trainer)
        return lambda: [
            from_printable("".join(pair)) or b""
            for pair in json.loads(theirs.to_str())["model"]["merges"]
        ]

    return run


def train_rustbpe(job: Job) -> Callable[[], Callable[[], list[bytes]]]:
    """rustbpe, given blocks of text."""
    import rustbpe

    theirs = rustbpe.Tokenizer()

    def run() -> Callable[[], list[bytes]]:
        theirs.train_from_iterator(
            feed(job["corpus"]), job["vocab_size"], pattern=PATTERNS["gpt2"].regex
        )
        return lambda: [bytes(token) for token, rank in theirs.get_mergeable_ranks()[256:]]

    return run


def train_gigabpe(job: Job) -> Callable[[], Callable[[], list[bytes]]]:
    """gigabpe, given the file.

    Its alphabet is the bytes that occur, so that as many merges make fewer tokens.
    """
    import gigabpe

    n_merges = job["vocab_size"] - 256
    n_bytes = len(set(Path(job["corpus"]).read_bytes()))

    def run() -> Callable[[], list[bytes]]:
        _, merges = gigabpe.train_bpe(
            [job["corpus"]], n_merges + n_bytes, special_tokens=[], pretokenizer="bytelevel"
        )
        return lambda: [from_printable("".join(pair)) or b"" for pair in merges]

    return run


def feed(path: str) -> Iterator[str]:
    """A file as blocks of text between which every pattern has a cut."""
    for block in safe_blocks(Path(path).read_bytes(), FEED_BYTES):
        yield block.decode("utf-8")


TRAINERS: dict[str, Callable[[Job], Callable[[], Callable[[], list[bytes]]]]] = {
    "ours": train_ours,
    "tokenizers": train_tokenizers,
    "rustbpe": train_rustbpe,
    "gigabpe": train_gigabpe,
}


def load_ours(job: Job) -> Callable[[], Calls]:
    """From our file. The first call of each library gives a list and is the one for prompts."""

    def load() -> Calls:
        ours = BPETokenizer.load(job["files"]["ours"])
        return {"encode": ours.encode, "encode_array": ours.encode_array}

    return load


def load_tiktoken(job: Job) -> Callable[[], Calls]:
    """From the file of ranks."""
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    os.environ["TIKTOKEN_CACHE_DIR"] = ""  # read the file each time

    def load() -> Calls:
        ranks = load_tiktoken_bpe(job["files"]["tiktoken"])
        # Without any special token encode_to_numpy looks for the empty one at every byte.
        special = {END_OF_TEXT: max(ranks.values()) + 1}
        theirs = tiktoken.Encoding(
            "bench",
            pat_str=PATTERNS[job["pattern"]].regex,
            mergeable_ranks=ranks,
            special_tokens=special,
        )
        return {
            "encode_ordinary": theirs.encode_ordinary,
            "encode_to_numpy": lambda text: theirs.encode_to_numpy(text, disallowed_special=()),
        }

    return load


def load_tokenizers(job: Job) -> Callable[[], Calls]:
    """From the tokenizer.json; a batch is the same text in blocks."""
    import tokenizers

    def load() -> Calls:
        theirs = tokenizers.Tokenizer.from_file(job["files"]["hf"])
        theirs.encode_special_tokens = True

        def batch(text: str) -> list[list[int]]:
            parts = [part.decode("utf-8") for part in safe_blocks(text.encode(), BATCH_BYTES)]
            return [encoding.ids for encoding in theirs.encode_batch(parts)]

        return {"encode": lambda text: theirs.encode(text).ids, "encode_batch": batch}

    return load


def load_quicktok(job: Job) -> Callable[[], Calls]:
    """From files made by quicktok's own importer; it knows cl100k's pattern, not GPT-2's."""
    import quicktok

    folder = job["files"]["quicktok"]

    def load() -> Calls:
        theirs = quicktok.Tokenizer("bench", folder)
        return {
            "encode_ordinary": theirs.encode_ordinary,
            "encode_batch": lambda text: theirs.encode_batch([text], 1)[0],
        }

    return load


def write_quicktok(tokenizer: BPETokenizer, folder: Path) -> None:
    """The files of a vocabulary for quicktok, which are of a format of its own."""
    import quicktok
    from quicktok import _import_core

    folder.mkdir()
    ranks = {tokenizer.token_bytes[token_id]: token_id for token_id in tokenizer.ordinary_ids}
    _import_core.write_files(str(folder), "bench", ranks, {}, "llama3", False)
    tables = Path(quicktok.__file__).with_name("data")
    _import_core.ensure_tables(str(folder), str(tables), "llama3", False)


LOADERS: dict[str, Callable[[Job], Callable[[], Calls]]] = {
    "ours": load_ours,
    "tiktoken": load_tiktoken,
    "tokenizers": load_tokenizers,
    "quicktok": load_quicktok,
}
