"""Data settings that contradict each other or have no effect are user errors."""

from __future__ import annotations

import pytest

from data.config import DataConfig
from utils.errors import UserError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dir": "x", "files": ("a",)}, "data.files has an effect only without data.dir"),
        ({"dir": "x", "story_seed": 2}, "data.story_seed has an effect only without data.dir"),
        ({"dir": "x", "doc_sep": "%"}, "data.doc_sep has an effect only without data.dir"),
        ({"val_files": ("a",)}, "data.val_files has an effect only with data.files"),
        ({"split": "bytes"}, "data.split has an effect only with data.files"),
        ({"val_fraction": 0.2}, "data.val_fraction has an effect only with data.files"),
        ({"doc_sep": "%"}, "data.doc_sep has an effect only with data.files"),
        ({"errors": "bytes"}, "data.errors has an effect only with data.files"),
        ({"files": ("a",), "story_bytes": 9000}, "data.story_bytes .* only without data.files"),
        ({"files": ("a",), "story_seed": 2}, "data.story_seed .* only without data.files"),
        (
            {"files": ("a",), "val_files": ("b",), "val_fraction": 0.2},
            "data.val_fraction has an effect only without data.val_files",
        ),
        (
            {"files": ("a",), "val_files": ("b",), "split": "bytes"},
            "data.split has an effect only without data.val_files",
        ),
        ({"windows": "documents", "stride": 3}, "only with data.windows packed"),
        ({"windows": "rows"}, "documents, packed"),
        ({"val_fraction": 1.0}, "must be below 1"),
    ],
)
def test_contradicting_settings_are_user_errors(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DataConfig(**settings)
