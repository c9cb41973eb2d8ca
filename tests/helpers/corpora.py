"""Real texts and vocabularies that the repository does not hold: where tests find them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import ROOT

VARIABLE = "LLM_TINY_TEST_DATA"  # a folder with some of the files below

# File -> where data.download puts it in a checkout, if it does.
DOWNLOADED = {"shakespeare.txt": ROOT / "corpora" / "tinyshakespeare" / "input.txt"}
HINTS = {"shakespeare.txt": f"run python -m data.download tinyshakespeare, or set {VARIABLE}"}


def corpus_path(name: str) -> Path:
    """The path of `shakespeare.txt`, `gpt2_r50k.tiktoken` or another file; skips if it is missing.

    Looks into the folder that the environment variable LLM_TINY_TEST_DATA names, then where
    data.download puts the corpus.
    """
    folder = os.environ.get(VARIABLE)
    places = [Path(folder) / name] if folder else []
    places += [DOWNLOADED[name]] if name in DOWNLOADED else []
    for place in places:
        if place.is_file():
            return place
    hint = HINTS.get(name, f"set {VARIABLE} to a folder that holds it")
    pytest.skip(f"{name} is not in this checkout: {hint}")
