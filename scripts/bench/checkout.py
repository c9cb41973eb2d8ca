"""Load nanoGPT's code from a checkout that the user names. Its files are run, never changed."""

import contextlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from model.config import ModelConfig
from utils.errors import UserError

# Settings of nanoGPT's GPTConfig, which have the same names in our ModelConfig.
FIELDS = ("block_size", "vocab_size", "n_layer", "n_head", "n_embd", "dropout", "bias")


def check_checkout(path: Path, *files: str | Path) -> None:
    """Check that a checkout has the files that are used.

    Raises:
        UserError: a file is missing.
    """
    for file in files:
        if not (path / file).exists():
            raise UserError(
                f"{path}: not a nanoGPT checkout, it has no {file}; "
                "git clone https://github.com/karpathy/nanoGPT and name the folder"
            )


def load_module(path: Path, name: str = "nanogpt_model") -> ModuleType:
    """Return a Python file as a module. The name must not be that of a package here (`model`)."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def make_model(checkout: Path, config: ModelConfig) -> Any:
    """Return nanoGPT's GPT in the shape of `config`, with random weights.

    Raises:
        UserError: there is no model.py.
    """
    check_checkout(checkout, "model.py")
    module = load_module(checkout / "model.py")
    settings = {name: getattr(config, name) for name in FIELDS}
    with contextlib.redirect_stdout(sys.stderr):  # stdout is reserved for the figures
        return module.GPT(module.GPTConfig(**settings))
