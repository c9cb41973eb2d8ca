"""The documents that the settings choose for training and validation."""

import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.config import DataConfig
from data.documents import cut_at_character, read_documents
from data.download.known_corpora import download_hint
from data.readers import DEFAULT_JSON_FIELD, check_json_field, is_json, kind_of
from data.stories import story as stories
from tok.text_files import check_include, describe_left_out, expand_folders, suggest_include
from utils.errors import UserError, plural
from utils.files import sha256_file
from utils.output import log

FIRST_OF_THREE = 0xE0  # from this byte on, UTF-8's first bytes are those of three bytes or four
MIN_DOCUMENTS = 10  # with fewer documents, `auto` splits by bytes


class DocumentSource:
    """The training and validation documents that the settings choose, and their recipe.

    Raises:
        UserError: a file is missing, or a setting has no effect on these files.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        if not config.files and not config.stories:
            raise UserError(
                "data.files is not set; name your text, such as --data.files mytext.txt"
            )
        self.files, self.val_files = (
            expand_folders(paths, download_hint, config.include, "--data.include")
            for paths in (config.files, config.val_files)
        )
        # Size of the whole validation part; counted while it is read, and only with val_max_bytes.
        self.val_part_bytes = 0
        self._counts: dict[Path, tuple[int, int]] = {}  # documents and bytes of each file read
        check_include((*config.files, *config.val_files), config.include, "--data.include")
        self._check_json()
        known = {path.resolve() for path in self.files}
        if both := [path for path in self.val_files if path.resolve() in known]:
            log(
                f"warning: {both[0]}: a file of data.val_files and of data.files; its validation "
                "loss is that of known text"
            )

    def recipe(self) -> dict[str, Any]:
        """Return everything that determines the documents: file hashes, settings, story seeds."""
        c, found = self.config, dict[str, Any]()
        # Optional entries are left out where they say nothing, as in old recipes.
        if c.val_max_bytes:
            found["val_max_bytes"] = c.val_max_bytes
        if not self.files:
            generated = [c.story_seed, c.story_bytes, c.val_story_bytes]
            return found | {"stories": generated, "grammar": stories.grammar_identity()}
        # A file name decides how its bytes are read.
        kinds = [kind_of(path) for path in (*self.files, *self.val_files)]
        if any(kinds):
            found |= {"kinds": kinds, "json_field": c.json_field}
        return found | {
            "files": [sha256_file(path) for path in self.files],
            "val_files": [sha256_file(path) for path in self.val_files],
            "settings": [c.doc_sep, c.split, c.val_fraction, c.errors],
        }

    def documents(self, part: str) -> Iterator[bytes]:
        """Yield the documents of a part, `train` or `val`, in order; at least one.

        Raises:
            UserError: a file is unreadable, empty or not UTF-8, or there are too few documents.
        """
        chosen = self._choose(part)
        if part == "val" and self.config.val_max_bytes:
            chosen = self._first_bytes(chosen)
        if first := next(chosen, None):
            yield first
            yield from chosen
        elif self.val_files:
            names = self.config.files if part == "train" else self.config.val_files
            raise UserError(
                f"{', '.join(names)}: no text in it for the {part} part; name other files"
            )
        else:
            raise UserError(
                f"the {part} part holds no text; give more text or another --data.val_fraction"
            )

    def describe_files(self) -> str:
        """Return what was read from the files, and what was left out, as a line for people.

        All documents of both parts must have been read before.
        """
        config = self.config
        counts = [self._counts[path] for path in (*self.files, *self.val_files)]
        n_documents, n_bytes = map(sum, zip(*counts, strict=True))
        n_empty = sum(not n for n, _ in counts)
        paths = (*config.files, *config.val_files)
        return (
            f"read {plural(len(counts) - n_empty, 'file')}: {plural(n_documents, 'document')}, "
            f"{n_bytes:,} bytes of text{describe_left_out(paths, config.include, n_empty)}"
        )

    def _first_bytes(self, documents: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the first documents that fit into val_max_bytes; count the bytes of all documents.

        If those that fit fill less than half of val_max_bytes, the start of the next document, cut
        at a character, is yielded too.
        """
        room = limit = self.config.val_max_bytes
        self.val_part_bytes = 0
        for document in documents:
            self.val_part_bytes += len(document)
            if len(document) <= room:
                room -= len(document)
                yield document
                continue
            if room > limit // 2 and (start := document[: cut_at_character(document, room)]):
                yield start
            room = 0

    def _choose(self, part: str) -> Iterator[bytes]:
        """Return all documents of a part; `documents` applies val_max_bytes."""
        c = self.config
        if not self.files:
            is_val = part == "val"  # validation uses the next seed
            n_bytes = c.val_story_bytes if is_val else c.story_bytes
            return map(str.encode, stories.generate_stories(c.story_seed + is_val, n_bytes))
        if self.val_files:
            return self._read(self.files if part == "train" else self.val_files)
        return self._split_bytes(part) if self.split == "bytes" else self._split_documents(part)

    @property
    def split(self) -> str:
        """Return how validation is split off; `auto` only if nothing is split."""
        if self.config.split != "auto" or self.val_files or not self.files:
            return self.config.split
        return "documents" if self._size[0] >= MIN_DOCUMENTS else "bytes"

    def count_bytes(self) -> tuple[int, int]:
        """Return the bytes of the training files, and those in characters of three or more bytes.

        Raises:
            UserError: the files hold no text, or can't be read.
        """
        return self._size[1:] if self.files else (self.config.story_bytes, 0)

    @functools.cached_property
    def _size(self) -> tuple[int, int, int]:
        """The number of documents in `files`, and the result of `count_bytes`.

        Raises:
            UserError: the files hold no text.
        """
        n_documents = n_bytes = n_wide = 0
        for document in self._read(self.files):
            n_documents, n_bytes = n_documents + 1, n_bytes + len(document)
            n_wide += 3 * int((np.frombuffer(document, np.uint8) >= FIRST_OF_THREE).sum())
        if not n_documents:
            raise UserError(
                f"{', '.join(self.config.files)}: no text: the files are empty; name other files"
            )
        return n_documents, n_bytes, min(n_wide, n_bytes)

    def _check_json(self) -> None:
        """Check that the settings about JSON and about text files have an effect.

        Raises:
            UserError: a setting has no effect on these files.
        """
        c, files = self.config, (*self.files, *self.val_files)
        json_files = [path for path in files if is_json(path)]
        if c.json_field not in (DEFAULT_JSON_FIELD, ""):
            check_json_field(files, "--data.json_field")
        if not c.json_field or not json_files or len(json_files) < len(files):
            return
        if c.doc_sep or c.errors != "strict":
            name, why = "errors", "because JSON is always UTF-8"
            if c.doc_sep:
                name, why = "doc_sep", "where each object is a document"
            raise UserError(f"--data.{name}: has no effect on {files[0]}, {why}; leave it out")

    def _read(self, files: Sequence[Path]) -> Iterator[bytes]:
        c = self.config
        hint = "convert the file, or pass --data.errors bytes to take any bytes"
        with suggest_include(files, (*c.files, *c.val_files), "--data.include"):
            for path in files:
                n_documents = n_bytes = 0
                for document in read_documents(
                    [path], c.doc_sep, c.errors, field=c.json_field, hint=hint
                ):
                    n_documents, n_bytes = n_documents + 1, n_bytes + len(document)
                    yield document
                self._counts[path] = n_documents, n_bytes

    def _split_bytes(self, part: str) -> Iterator[bytes]:
        """Yield a part. Validation is the last val_fraction of the bytes; one document is cut."""
        total, position = self._size[1], 0
        border = total - math.floor(total * self.config.val_fraction)
        for document in self._read(self.files):
            cut = cut_at_character(document, min(max(border - position, 0), len(document)))
            position += len(document)
            if rest := document[:cut] if part == "train" else document[cut:]:
                yield rest

    def _split_documents(self, part: str) -> Iterator[bytes]:
        """Yield a part. Validation documents are evenly spaced over the corpus, not random."""
        n = self._size[0]
        if n < 2:
            raise UserError(
                "one document can't be split by documents; use --data.split bytes, or name "
                "--data.doc_sep"
            )
        n_val = min(n - 1, max(1, round(n * self.config.val_fraction)))
        chosen = set(np.linspace(0, n - 1, n_val + 2)[1:-1].round().astype(int).tolist())
        for index, document in enumerate(self._read(self.files)):
            if (index in chosen) == (part == "val"):
                yield document
