"""All readers of files and values that someone else may have written, with valid contents."""

import functools
import gzip
import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from data.documents import read_documents
from data.prepared_folder import read_meta
from data.stories.story import floor_if_stories, sample_stories
from data.token_file import TokenFile
from model.hf.folder import INDEX, WEIGHTS, read_folder
from model.load import load_model
from sample import read_prompts
from tests.torture.reference import Reference
from tok.formats.convert import export_tokenizer, import_tokenizer
from tok.formats.gpt2 import ENCODER, MERGES
from tok.tokenizer import BPETokenizer
from train import Config
from utils.config.load import load
from utils.metrics import read_rows
from utils.run import checkpoint
from utils.run.folder import RunFolder
from utils.run.log import read_samples

TEXT = b"Once upon a time.\n\nTom \xc3\xa9 saw 12 dogs!  He ran.\n\n" * 3
FILES = {
    "a.txt": TEXT,
    "a.txt.gz": gzip.compress(TEXT),
    "a.jsonl": b'{"text": "a b", "n": 1}\n{"text": "\\u00e9"}\n',
    "a.json": b'[{"text": "one"}, {"text": "two\\n", "more": [1, {}]}]',
    "encoded": TEXT,
    "prompts": b"Once\nTom said \xc3\xa9\n",
    "flag": b"optim.lr=1e-3",
    "config.yaml": b"model: {n_layer: 2}\noptim:\n  lr: 3e-3  # high\n  betas: [0.9, 0.95]\n",
    "sweep.yaml": b"out: a\nseeds: [1, 2]\neach:\n  gelu: {model.mlp: gelu}\n  lr: [1e-3, 3e-3]\n",
    "story": sample_stories(0, 1)[0].text.encode(),
}


@functools.cache
def valid_folder(reference: Reference) -> Path:
    """Return a folder with a valid file for each reader."""
    folder = reference.folder / "valid"
    for part in (reference.done, next(reference.cache.glob("*/meta.json")).parent):
        shutil.copytree(part, folder, dirs_exist_ok=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    tokenizer = BPETokenizer.load(folder / "tokenizer.json")
    export_tokenizer(tokenizer, "gpt2", folder)
    export_tokenizer(tokenizer, "tiktoken", folder / "ranks")
    reference.export(folder / "hf").wait(0)
    shutil.copytree(folder / "hf", folder / "shards")
    (folder / "shards" / WEIGHTS).rename(folder / "shards" / "a")
    (folder / "shards" / INDEX).write_text(json.dumps({"weight_map": {"b": "a"}}), encoding="utf-8")
    return folder


def read_flag(path: Path) -> None:
    """Read a setting and its value as from the command line."""
    name, _, value = path.read_bytes().decode("utf-8", "surrogateescape").partition("=")
    load(Config, [], {name: value})


def encode(path: Path) -> None:
    """Encode any bytes, and decode them."""
    raw, tokenizer = path.read_bytes(), BPETokenizer.load(path.with_name("tokenizer.json"))
    assert tokenizer.decode_bytes(tokenizer.encode(raw)) == raw


@functools.cache
def sweep_reader() -> Callable[..., Any]:
    """Return `load_sweep` of scripts.sweep, which other scripts do not import."""
    return runpy.run_module("scripts.sweep.grid_file")["load_sweep"]


PROMPT_FLAGS = {"prompt": None, "prompt_sep": None}
READERS: dict[str, Callable[[Path], object]] = {
    "tokenizer.json": BPETokenizer.load,
    "hf/tokenizer.json": lambda path: import_tokenizer([path]),
    "ranks": lambda path: import_tokenizer([path], pattern="gpt2"),
    ENCODER: lambda path: import_tokenizer([path, path.with_name(MERGES)]),
    MERGES: lambda path: import_tokenizer([path.with_name(ENCODER), path]),
    "config.yaml": lambda path: load(Config, [str(path)], {}),
    "sweep.yaml": lambda path: sweep_reader()(str(path), Config).points(),
    "flag": read_flag,
    "prompts": lambda path: read_prompts(SimpleNamespace(**PROMPT_FLAGS, prompt_file=str(path))),
    "encoded": encode,
    "story": lambda path: floor_if_stories([path.read_bytes()]),
    "metrics.csv": read_rows,
    "samples.txt": read_samples,
    "run.json": lambda path: RunFolder(path.parent).read_record(),
    "meta.json": lambda path: read_meta(path.parent),
    "val.npy": lambda path: TokenFile(path).positions_of(0),
    "best.pt": lambda path: load_model(checkpoint.load(path, required=checkpoint.SCHEMA)),
}
TEXTS, MODELS = ("a.txt", "a.txt.gz", "a.json", "a.jsonl"), ("hf/config.json", f"hf/{WEIGHTS}")
READERS |= dict.fromkeys(TEXTS, lambda path: [*read_documents([path], "blank-line", "strict")])
READERS |= dict.fromkeys((*MODELS, f"shards/{INDEX}"), lambda path: read_folder(path.parent))
