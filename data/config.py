"""The settings `data.*`."""

from __future__ import annotations

from dataclasses import dataclass

from data.documents import ERRORS
from data.readers import DEFAULT_JSON_FIELD
from data.windows import WINDOWS
from utils.config.schema import Dependencies, check, check_dependencies, setting

SPLITS = ("auto", "documents", "bytes")
# What other settings must be for a setting to have an effect. True: set; False: left empty.
PACKED = {"windows": ("packed",)}
NO_DIR = {"dir": False}
NO_FILES = NO_DIR | {"files": False}
FILES = NO_DIR | {"files": True}
DEPENDS_ON: Dependencies = {
    **dict.fromkeys(("files", "tokenizer", "cache_dir"), NO_DIR),
    **dict.fromkeys(("story_bytes", "val_story_bytes", "story_seed"), NO_FILES),
    **dict.fromkeys(("val_files", "include", "doc_sep", "json_field", "errors"), FILES),
    **dict.fromkeys(("split", "val_fraction"), FILES | {"val_files": False}),
    **dict.fromkeys(("stride", "shift", "mask_documents"), PACKED),
}


@dataclass(frozen=True)
class DataConfig:
    """Settings that choose the training text and cut it into windows."""

    dir: str = setting(
        "",
        "folder made by data.prepare; empty = prepare one from the settings below",
        may_change_on_resume=True,
        is_path=True,
    )
    files: tuple[str, ...] = setting(
        (),
        "files (text, .json, .jsonl, .gz) or folders; empty = generate stories",
        may_change_on_resume=True,
        is_path=True,
    )
    val_files: tuple[str, ...] = setting(
        (),
        "files for validation; empty = split off a part of data.files",
        may_change_on_resume=True,
        is_path=True,
    )
    include: tuple[str, ...] = setting(
        (),
        "patterns of the files to read in folders, such as '*.md'; empty = all files",
        may_change_on_resume=True,
    )
    doc_sep: str = setting(
        "", "separator of documents in a file: blank-line or a text; empty = none"
    )
    json_field: str = setting(
        DEFAULT_JSON_FIELD, "field of a JSON object that holds the document; empty = read as text"
    )
    split: str = setting("auto", "how validation is split off", choices=SPLITS)
    val_fraction: float = setting(
        0.1, "share of documents or bytes for validation", above=0, below=1
    )
    val_max_bytes: int = setting(
        0,
        "evaluate only the first bytes of the validation part, up to this many; 0 = all of it",
        minimum=0,
    )
    errors: str = setting("strict", "bytes = accept files that are not UTF-8", choices=ERRORS)
    stories: bool = setting(
        True, "generate stories if data.files is empty; false = refuse", may_change_on_resume=True
    )
    story_bytes: int = setting(2_000_000, "bytes of training stories", minimum=1000)
    val_story_bytes: int = setting(100_000, "bytes of validation stories", minimum=1000)
    story_seed: int = setting(
        1, "seed of the training stories; validation uses the next one", minimum=0
    )
    tokenizer: str = setting(
        "",
        "tokenizer file; empty = train one of model.vocab_size on the training text",
        may_change_on_resume=True,
        is_path=True,
    )
    cache_dir: str = setting(
        "artifacts",
        "folder that holds the prepared folders",
        may_change_on_resume=True,
        is_path=True,
    )
    windows: str = setting(
        "packed", "rows of a batch: one whole document each, or packed text", choices=WINDOWS
    )
    stride: int = setting(
        0, "packed: tokens from one window's start to the next; 0 = block_size", minimum=0
    )
    shift: bool = setting(False, "packed: cut the text at different positions in each epoch")
    mask_documents: bool = setting(False, "packed: limit attention to tokens of the same document")

    def __post_init__(self) -> None:
        check(self)
        check_dependencies(self, DEPENDS_ON, "data")
