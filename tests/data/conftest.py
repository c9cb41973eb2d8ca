"""Fixture: a folder of token files for the tests of windows and batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.batches import make


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("batches"))
