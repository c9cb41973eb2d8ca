"""The table of well-known corpora: URLs, licence, size and sha256 of each file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CORPORA_FOLDER = "corpora"  # default of data.download; the configs name it too


@dataclass(frozen=True)
class Content:
    """A file with its size and sha256."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """A file to download: a text, or a zip file whose `members` are the texts."""

    content: Content
    urls: tuple[str, ...]  #: each delivers the file; tried in this order
    published: str  #: who publishes the sha256, and in which file
    tried_by_us: bool = False  #: the authors of llm-tiny have downloaded it
    members: tuple[Content, ...] = ()  #: the texts in a zip file, named as there

    def texts(self) -> tuple[Content, ...]:
        """Return the texts: the file itself, or its members, named without their folders."""
        return tuple(
            Content(Path(one.name).name, one.size_bytes, one.sha256)
            for one in self.members or (self.content,)
        )


@dataclass(frozen=True)
class KnownCorpus:
    """A corpus of one or more files."""

    name: str
    about: str
    licence: str
    sources: tuple[Source, ...]


# The URL names a revision by its hash, so the files there do not change.
_STORIES = (
    "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/"
    "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64/"
)
# On the Hugging Face hub, the Git LFS identity of a file is its sha256.
_STORIES_PUBLISHED = (
    "Hugging Face (Git LFS entry of this URL); "
    "github.com/bkase/gbllm, fixtures/corpora/tinystories.toml"
)

CORPORA = (
    KnownCorpus(
        "tinyshakespeare",
        "scenes from Shakespeare's plays",
        "public domain",
        (
            Source(
                Content(
                    "input.txt",
                    1_115_394,
                    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                ),
                (
                    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/"
                    "tinyshakespeare/input.txt",
                ),
                "github.com/tensorflow/datasets, "
                "tensorflow_datasets/datasets/tiny_shakespeare/checksums.tsv",
                tried_by_us=True,
            ),
        ),
    ),
    KnownCorpus(
        "tinystories",
        "2.7 million stories for small children, written by GPT-4 (TinyStories, version 2)",
        "CDLA-Sharing-1.0",
        (
            Source(
                Content(
                    "TinyStoriesV2-GPT4-train.txt",
                    2_227_753_162,
                    "6418d412de72888f52b5142c761ac21a582f7d1166f0bfbdb5f03ccfdec90443",
                ),
                (_STORIES + "TinyStoriesV2-GPT4-train.txt",),
                _STORIES_PUBLISHED,
            ),
            Source(
                Content(
                    "TinyStoriesV2-GPT4-valid.txt",
                    22_502_601,
                    "6874bae9a4c1a4e7edcf0e53b86c17817e9cf881fc75ff2368da457b80c0585d",
                ),
                (_STORIES + "TinyStoriesV2-GPT4-valid.txt",),
                _STORIES_PUBLISHED,
            ),
        ),
    ),
    KnownCorpus(
        "wikitext2",
        "720 Wikipedia articles rated Good or Featured (WikiText-2, not tokenized)",
        "CC BY-SA 3.0 and GFDL",
        (
            Source(
                Content(
                    "wikitext-2-raw-v1.zip",
                    4_721_645,
                    "ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11",
                ),
                (
                    "https://huggingface.co/datasets/ggml-org/ci/resolve/"
                    "927b3642933080f1b0e811e2f916e14c292992f9/wikitext-2-raw-v1.zip",
                    "https://wikitext.smerity.com/wikitext-2-raw-v1.zip",
                ),
                "github.com/ml-explore/mlx-data, python/mlx/data/datasets/wikitext.py",
                members=(
                    Content(
                        "wikitext-2-raw/wiki.train.raw",
                        10_940_747,
                        "6707892fa3788b5ab9ed78ab5ff37d9fe825f6011a2ad4fcd6a6d467f0e7da57",
                    ),
                    Content(
                        "wikitext-2-raw/wiki.valid.raw",
                        1_146_846,
                        "4cd0f6876d07a413aa911261ff6d363c72d757d47f0fdd6015702014c89cb9c7",
                    ),
                    Content(
                        "wikitext-2-raw/wiki.test.raw",
                        1_290_590,
                        "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08",
                    ),
                ),
            ),
        ),
    ),
    KnownCorpus(
        "enwik8",
        "the first 100 MB of Wikipedia in 2006, with XML markup",
        "GFDL",
        (
            Source(
                Content(
                    "enwik8.zip",
                    36_445_475,
                    "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
                ),
                ("https://mattmahoney.net/dc/enwik8.zip", "https://data.deepai.org/enwik8.zip"),
                "github.com/huggingface/datasets, datasets/enwik8/dataset_infos.json",
                members=(
                    Content(
                        "enwik8",
                        100_000_000,
                        "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
                    ),
                ),
            ),
        ),
    ),
    KnownCorpus(
        "text8",
        "100 MB of text from Wikipedia in 2006, lower-case letters and spaces only",
        "GFDL",
        (
            Source(
                Content(
                    "text8.zip",
                    31_344_016,
                    "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
                ),
                ("https://mattmahoney.net/dc/text8.zip",),
                "github.com/TheCoolestElliot/text-snn, src/snn/data.py; "
                "github.com/utndatasystems/compression-economics",
                members=(
                    Content(
                        "text8",
                        100_000_000,
                        "6e890197040d37d85beb962ae1f041ff1d9a9ca8d20c7d99c85027eebf51dca7",
                    ),
                ),
            ),
        ),
    ),
)


def corpus_name(recipe: Mapping[str, Any]) -> str:
    """Return the name of the known corpus that all files of a recipe belong to, else "".

    Args:
        recipe: `recipe` of meta.json; its files are compared by sha256.

    >>> corpus_name({"corpus": {"files": [CORPORA[0].sources[0].content.sha256], "val_files": []}})
    'tinyshakespeare'
    >>> corpus_name({"corpus": {"stories": [1, 2, 3]}}), corpus_name({"corpus": {"files": ["0"]}})
    ('', '')
    """
    corpus_recipe = recipe["corpus"]
    digests = {*corpus_recipe.get("files", ()), *corpus_recipe.get("val_files", ())}
    for corpus in CORPORA:
        texts = {text.sha256 for source in corpus.sources for text in source.texts()}
        if digests and digests <= texts:
            return corpus.name
    return ""


def download_hint(path: str | Path) -> str:
    """Return a hint how to download a missing file; "" if it belongs to no known corpus.

    >>> download_hint("corpora/enwik8/enwik8"), download_hint("mytext.txt")
    ('; `python -m data.download enwik8` downloads it', '')
    """
    parts = Path(path).parts
    if len(parts) > 1 and parts[0] == CORPORA_FOLDER and parts[1] in {one.name for one in CORPORA}:
        return f"; `python -m data.download {parts[1]}` downloads it"
    return ""
