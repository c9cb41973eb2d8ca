"""Adapters for the tokenizer libraries that scripts.bench compares: training and encoding.

Other projects' libraries are optional and imported where they are used.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scripts.bench.process import Job
from scripts.bench.tokenizer.corpus import safe_blocks
from tok.patterns import PATTERNS
from tok.tokenizer import BPETokenizer
from tok.vocabulary import END_OF_TEXT, from_printable

# Functions that train, and that convert the result to the merged tokens.
Trainer = tuple[Callable[[], Any], Callable[[Any], list[bytes]]]
Calls = dict[str, Callable[[str], Any]]  # name of a method -> function that encodes a text

# Import name -> name on PyPI.
PEERS = {name: name for name in ("tokenizers", "tiktoken", "rustbpe", "gigabpe")}
PEERS |= {"quicktok": "quicktok-v1", "gigatoken": "gigatoken"}
# The order in which a trainer numbers the 256 bytes: by value, or by GPT-2's bytes_to_unicode
# characters. The order decides ties between pairs of equal count.
TRAINED_BYTE_ORDER = {"rustbpe": "value", "tokenizers": "gpt2", "gigabpe": "gpt2"}
# Trainers that treat every line of a file as a separate text, so that no pre-token contains a line
# end and the text after it.
TRAINED_BY_LINE = {"gigabpe"}
ENCODING_PEERS = ("tiktoken", "tokenizers", "quicktok", "gigatoken")
TRAIN_BLOCK_BYTES = 1 << 18  # small enough to give all cores of a parallel trainer work
ENCODE_BLOCK_BYTES = 1 << 14  # size of the texts in a batch


def installed_peers() -> list[str]:
    """Return the import names of the libraries that are installed."""
    return [name for name in PEERS if find_spec(name)]


def train_ours(job: Job) -> Trainer:
    """Prepare our training; return two functions, as all functions in TRAINERS do.

    The first trains and is timed. The second gets its result and returns the merged tokens. So
    neither the preparation nor the conversion of the tokens is timed.
    """
    settings = {
        "vocab_size": job["vocab_size"],
        "special_tokens": [],
        "byte_order": job.get("byte_order", "value"),
    }

    def train() -> BPETokenizer:
        if job.get("by_line"):
            with open(job["corpus"], "rb") as lines:
                return BPETokenizer.train(lines, **settings)
        return BPETokenizer.train_files([job["corpus"]], **settings)

    def tokens(trained: BPETokenizer) -> list[bytes]:
        if "save" in job:  # in the run whose merges the other trainers must equal
            trained.save(job["save"])
        return trained.token_bytes[256:]

    return train, tokens


def train_tokenizers(job: Job) -> Trainer:
    """Prepare Hugging Face's training on blocks: from a file it would take each line separately."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=job["vocab_size"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    return (
        lambda: theirs.train_from_iterator(text_blocks(job["corpus"]), trainer),
        lambda _: bytes_of_pairs(json.loads(theirs.to_str())["model"]["merges"]),
    )


def train_rustbpe(job: Job) -> Trainer:
    """Prepare rustbpe's training on blocks of text."""
    import rustbpe

    theirs, regex = rustbpe.Tokenizer(), PATTERNS["gpt2"].regex
    return (
        lambda: theirs.train_from_iterator(
            text_blocks(job["corpus"]), job["vocab_size"], pattern=regex
        ),
        lambda _: [bytes(token) for token, rank in theirs.get_mergeable_ranks()[256:]],
    )


def train_gigabpe(job: Job) -> Trainer:
    """Prepare gigabpe's training on the file.

    Its alphabet has only the bytes that occur, so the vocabulary size is set to give the same
    number of merges as the other trainers.
    """
    import gigabpe

    corpus, settings = job["corpus"], {"special_tokens": [], "pretokenizer": "bytelevel"}
    size = job["vocab_size"] - 256 + len(set(Path(corpus).read_bytes()))
    return (
        lambda: gigabpe.train_bpe([corpus], size, **settings),
        lambda trained: bytes_of_pairs(trained[1]),
    )


def bytes_of_pairs(merges: Iterable[Sequence[str]]) -> list[bytes]:
    """Return the tokens that merges of printable text make.

    >>> bytes_of_pairs([("a", "b"), ["Ġ", "ab"]])
    [b'ab', b' ab']
    """
    return [from_printable("".join(pair)) or b"" for pair in merges]


def text_blocks(path: str) -> Iterator[str]:
    """Yield a file as blocks of text that end at a boundary of every split pattern."""
    for block in safe_blocks(Path(path).read_bytes(), TRAIN_BLOCK_BYTES):
        yield block.decode("utf-8")


TRAINERS: dict[str, Callable[[Job], Trainer]] = {
    "ours": train_ours,
    "tokenizers": train_tokenizers,
    "rustbpe": train_rustbpe,
    "gigabpe": train_gigabpe,
}


def load_ours(job: Job) -> Calls:
    """Load our tokenizer; return its methods that encode, by name.

    For every library in LOADERS, the first method returns a list of ids and is also timed on
    prompts: short texts, one at a time.
    """
    ours = BPETokenizer.load(job["files"]["ours"])
    return {"encode": ours.encode, "encode_array": ours.encode_array}


def load_tiktoken(job: Job) -> Calls:
    """Return what `load_ours` returns, for tiktoken's file of ranks."""
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    os.environ["TIKTOKEN_CACHE_DIR"] = ""  # read the file each time
    ranks = load_tiktoken_bpe(job["files"]["tiktoken"])
    theirs = tiktoken.Encoding(
        "bench",
        pat_str=PATTERNS[job["pattern"]].regex,
        mergeable_ranks=ranks,
        # Without a special token encode_to_numpy searches for the empty string at every byte.
        special_tokens={END_OF_TEXT: max(ranks.values()) + 1},
    )
    return {
        "encode_ordinary": theirs.encode_ordinary,
        "encode_to_numpy": lambda text: theirs.encode_to_numpy(text, disallowed_special=()),
    }


def load_tokenizers(job: Job) -> Calls:
    """Return what `load_ours` returns, for tokenizer.json; encode_batch gets blocks."""
    import tokenizers

    theirs = tokenizers.Tokenizer.from_file(job["files"]["hf"])
    theirs.encode_special_tokens = True  # as ordinary text, as the other libraries do here

    def batch(text: str) -> list[list[int]]:
        parts = [part.decode("utf-8") for part in safe_blocks(text.encode(), ENCODE_BLOCK_BYTES)]
        return [encoding.ids for encoding in theirs.encode_batch(parts)]

    return {"encode": lambda text: theirs.encode(text).ids, "encode_batch": batch}


def load_quicktok(job: Job) -> Calls:
    """Return what `load_ours` returns, for the files of `write_quicktok`.

    quicktok has cl100k's pattern, not GPT-2's.
    """
    import quicktok

    theirs = quicktok.Tokenizer("bench", job["files"]["quicktok"])
    return {
        "encode_ordinary": theirs.encode_ordinary,
        "encode_batch": lambda text: theirs.encode_batch([text], 1)[0],
    }


def load_gigatoken(job: Job) -> Calls:
    """Return what `load_ours` returns, for tiktoken's file of ranks. Only encoding is compared."""
    import gigatoken

    theirs = gigatoken.Tokenizer.from_tiktoken(job["files"]["tiktoken"], job["pattern"])
    return {"encode": lambda text: list(theirs.encode(text)), "encode array": theirs.encode}


def write_quicktok(tokenizer: BPETokenizer, folder: Path) -> None:
    """Write a vocabulary in quicktok's own file format."""
    import quicktok
    from quicktok import _import_core

    folder.mkdir()
    ranks = {tokenizer.token_bytes[token_id]: token_id for token_id in tokenizer.ordinary_ids}
    # Llama 3's pattern is cl100k's.
    _import_core.write_files(str(folder), "bench", ranks, {}, "llama3", False)
    tables = Path(quicktok.__file__).with_name("data")
    _import_core.ensure_tables(str(folder), str(tables), "llama3", False)


LOADERS: dict[str, Callable[[Job], Calls]] = {
    "ours": load_ours,
    "tiktoken": load_tiktoken,
    "tokenizers": load_tokenizers,
    "quicktok": load_quicktok,
    "gigatoken": load_gigatoken,
}
