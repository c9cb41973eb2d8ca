"""The well-known corpora of corpora.yaml: URLs, licence, size and sha256 of each file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config.tables import read_table

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


def read_corpora() -> tuple[KnownCorpus, ...]:
    """Return the corpora of corpora.yaml, next to this file."""
    table = read_table(Path(__file__).with_name("corpora.yaml"))
    return tuple(
        KnownCorpus(name, one["about"], one["licence"], tuple(map(read_source, one["files"])))
        for name, one in table.items()
    )


def read_source(entry: Mapping[str, Any]) -> Source:
    """Return a source from its entry in corpora.yaml."""
    return Source(
        Content(entry["name"], entry["size_bytes"], entry["sha256"]),
        tuple(entry["urls"]),
        entry["published"],
        entry.get("tried_by_us", False),
        tuple(Content(**member) for member in entry.get("members", ())),
    )


CORPORA = read_corpora()


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
