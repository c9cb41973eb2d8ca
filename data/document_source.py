"""The documents that a run is trained and validated on, as the settings name them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.config import DataConfig
from data.documents import cut_at_character, read_documents
from data.download.known_corpora import download_hint
from data.readers import DEFAULT_JSON_FIELD, is_json_lines, kind_of
from data.stories import story as stories
from tok.text_files import expand_folders
from utils.errors import UserError
from utils.files import sha256_file

MIN_DOCUMENTS = 10  # with fewer, `auto` splits by bytes


class DocumentSource:
    """The training and validation documents that the settings name, and their fingerprint."""

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.files = expand_folders(config.files, download_hint)
        self.val_files = expand_folders(config.val_files, download_hint)
        self._check_json()

    def fingerprint(self) -> dict[str, Any]:
        """All that decides the documents: file contents and settings, or the stories' draw."""
        c = self.config
        if not self.files:
            draw = [c.story_seed, c.story_bytes, c.val_story_bytes]
            return {"stories": draw, "grammar": stories.grammar_identity()}
        found: dict[str, Any] = {
            "files": [sha256_file(path) for path in self.files],
            "val_files": [sha256_file(path) for path in self.val_files],
            "settings": [c.doc_sep, c.split, c.val_fraction, c.errors],
        }
        # The same bytes under another name may be other documents.
        kinds = [kind_of(path) for path in (*self.files, *self.val_files)]
        if any(kinds):
            found |= {"kinds": kinds, "json_field": c.json_field}
        return found

    def documents(self, part: str) -> Iterator[bytes]:
        """The documents of `train` or `val`, in order; one at least.

        Raises:
            UserError: unreadable, empty or not UTF-8 files; too few documents to split.
        """
        empty = True
        for document in self._choose(part):
            empty = False
            yield document
        if empty and self.val_files:
            names = self.config.files if part == "train" else self.config.val_files
            raise UserError(f"{', '.join(names)}: no text in it for the {part} part")
        if empty:
            raise UserError(
                f"the {part} part holds no text; give more text or another --data.val_fraction"
            )

    def _choose(self, part: str) -> Iterator[bytes]:
        c = self.config
        if not self.files and part == "train":
            return (
                story.encode() for story in stories.generate_stories(c.story_seed, c.story_bytes)
            )
        if not self.files:
            return (
                story.encode()
                for story in stories.generate_stories(c.story_seed + 1, c.val_story_bytes)
            )
        if self.val_files:
            return self._read(self.files if part == "train" else self.val_files)
        return self._split_bytes(part) if self.split == "bytes" else self._split_documents(part)

    @property
    def split(self) -> str:
        """How validation is split off; `auto` only where nothing is split."""
        if self.config.split != "auto" or self.val_files or not self.files:
            return self.config.split
        return "documents" if self._size[0] >= MIN_DOCUMENTS else "bytes"

    @functools.cached_property
    def _size(self) -> tuple[int, int]:
        """Number of documents and of their bytes in the files that are split.

        Raises:
            UserError: there is no text in them.
        """
        n_documents = n_bytes = 0
        for document in self._read(self.files):
            n_documents, n_bytes = n_documents + 1, n_bytes + len(document)
        if not n_documents:
            raise UserError(f"{', '.join(self.config.files)}: no text: the files are empty")
        return n_documents, n_bytes

    def _check_json(self) -> None:
        """Refuses a setting of JSON lines without any, and of text where there are only those.

        Raises:
            UserError: the setting has no effect.
        """
        c, files = self.config, (*self.files, *self.val_files)
        json_lines = [path for path in files if is_json_lines(path)]
        if c.json_field != DEFAULT_JSON_FIELD and not json_lines:
            raise UserError(
                "--data.json_field: has an effect only on JSON lines, and none of the files is "
                "named .jsonl or .ndjson"
            )
        if c.doc_sep and json_lines and len(json_lines) == len(files):
            raise UserError(
                f"--data.doc_sep: has no effect on {json_lines[0]}, where each line is a document; "
                "leave it out"
            )

    def _read(self, files: Sequence[Path]) -> Iterator[bytes]:
        hint = "convert the file, or pass --data.errors bytes to take any bytes"
        c = self.config
        return read_documents(files, c.doc_sep, c.errors, field=c.json_field, hint=hint)

    def _split_bytes(self, part: str) -> Iterator[bytes]:
        """The last val_fraction of the bytes is validation; the document there is cut in two."""
        total, place = self._size[1], 0
        border = total - math.floor(total * self.config.val_fraction)
        for document in self._read(self.files):
            cut = cut_at_character(document, min(max(border - place, 0), len(document)))
            place += len(document)
            if piece := document[:cut] if part == "train" else document[cut:]:
                yield piece

    def _split_documents(self, part: str) -> Iterator[bytes]:
        """Validation documents are spread evenly over the corpus, so that no draw decides them."""
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
