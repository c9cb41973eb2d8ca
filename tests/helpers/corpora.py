"""Paths of real texts and vocabularies that are not in the repository; tests skip without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import ROOT

VARIABLE = "LLM_TINY_TEST_DATA"  # a folder with some of the files below

# File -> its path in a checkout after data.download.
DOWNLOADED = {"shakespeare.txt": ROOT / "corpora" / "tinyshakespeare" / "input.txt"}
HINTS = {"shakespeare.txt": f"run python -m data.download tinyshakespeare, or set {VARIABLE}"}


def corpus_path(name: str) -> Path:
    """The path of `shakespeare.txt`, `gpt2_r50k.tiktoken` or another file; skip if it is missing.

    The file is looked up in the folder of the environment variable LLM_TINY_TEST_DATA, then in
    the folder of data.download.
    """
    folder = os.environ.get(VARIABLE)
    paths = [Path(folder) / name] if folder else []
    paths += [DOWNLOADED[name]] if name in DOWNLOADED else []
    for path in paths:
        if path.is_file():
            return path
    hint = HINTS.get(name, f"set {VARIABLE} to a folder that holds it")
    pytest.skip(f"{name} is not in this checkout: {hint}")
