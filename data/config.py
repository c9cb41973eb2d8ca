"""The settings `data.*`."""

from dataclasses import dataclass

from data.documents import ERRORS
from data.readers import DEFAULT_JSON_FIELD
from data.windows import WINDOWS
from utils.config.schema import Dependencies, check, check_dependencies, path_setting, setting

SPLITS = ("auto", "documents", "bytes")  # ways to split off the validation part
# The values that other settings must have for a setting to have an effect. True: any but the empty
# value; False: empty.
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
    """Settings that choose the training and validation text, and how it is cut into windows."""

    dir: str = path_setting(
        "", "folder made by data.prepare; empty = prepare one from the other data settings"
    )
    files: tuple[str, ...] = path_setting(
        (), "files (text, .json, .jsonl, .gz) or folders for training; empty = generate stories"
    )
    val_files: tuple[str, ...] = path_setting(
        (), "files or folders for validation; empty = split off a part of data.files"
    )
    include: tuple[str, ...] = setting(
        (),
        "patterns of the files to read in folders, such as '*.md'; empty = all files",
        may_change_on_resume=True,
    )
    doc_sep: str = setting(
        "", "separator of documents in a file: blank-line or any text; empty = none"
    )
    json_field: str = setting(
        DEFAULT_JSON_FIELD, "field of JSON objects with the document; empty = read as plain text"
    )
    split: str = setting(
        "auto",
        "validation part: whole documents, or the last bytes; auto = bytes if documents are few",
        choices=SPLITS,
    )
    val_fraction: float = setting(
        0.1, "share of the documents or bytes that is kept for validation", above=0, below=1
    )
    val_max_bytes: int = setting(
        0, "keep only this many bytes of the validation part, from its start; 0 = all", minimum=0
    )
    errors: str = setting("strict", "strict = UTF-8 only; bytes = any bytes", choices=ERRORS)
    stories: bool = setting(
        True, "generate stories if data.files is empty; false = error", may_change_on_resume=True
    )
    story_bytes: int = setting(2_000_000, "bytes of training stories", minimum=1000)
    val_story_bytes: int = setting(100_000, "bytes of validation stories", minimum=1000)
    story_seed: int = setting(
        1, "seed of the training stories; validation uses the next seed", minimum=0
    )
    tokenizer: str = path_setting(
        "", "tokenizer file; empty = train one with model.vocab_size tokens on the training text"
    )
    cache_dir: str = path_setting("artifacts", "folder that holds the prepared folders")
    windows: str = setting(
        "packed", "row of a batch: one document, or text cut at any place", choices=WINDOWS
    )
    stride: int = setting(
        0, "packed: tokens from one window's start to the next; 0 = block_size", minimum=0
    )
    shift: bool = setting(False, "packed: cut the text at different positions in each epoch")
    mask_documents: bool = setting(False, "packed: limit attention to tokens of the same document")

    def __post_init__(self) -> None:
        check(self)
        check_dependencies(self, DEPENDS_ON, "data")
