"""The model files of a Hugging Face folder, as transformers reads and writes them.

The tokenizer files of the same folder are handled by tok/formats/convert.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from model.config import ModelConfig
from model.hf.config import from_hf
from model.hf.weights import from_hf_weights
from utils.errors import UserError, errors_at, missing_package, with_fix
from utils.files import parse_json, read_bytes
from utils.suggest import shell_quote

WEIGHTS = "model.safetensors"
MAX_HEADER_BYTES = 1 << 22  # of 40,000 tensors; each of them takes 2 kB of memory
FOLDER_FIX = "get the folder again, or name another"
INDEX = "model.safetensors.index.json"  # names the files of sharded weights
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
T = TypeVar("T")


@dataclass(frozen=True)
class Pretrained:
    """The model of a folder, as a TinyGPT's settings and state dict."""

    config: ModelConfig
    weights: dict[str, Tensor]


def read_config(folder: Path) -> ModelConfig:
    """Return the settings of the model in a folder.

    Raises:
        UserError: there is no config.json, or TinyGPT does not support its model.
    """
    if (folder / "best.pt").exists() and not (folder / "config.json").exists():
        out = shell_quote(Path("exported", folder.resolve().name))
        export = f"python -m scripts.export --run {shell_quote(folder)} --out {out}"
        raise UserError(f"{folder}: a run, which has to be exported first: `{export}`")
    return _parse_json(folder / "config.json", from_hf)


def read_folder(folder: str | Path) -> Pretrained:
    """Read the model in a folder, only from safetensors files, which cannot contain code.

    Raises:
        UserError: a file is missing, damaged or not supported; the message names it.
    """
    folder = Path(folder)
    config = read_config(folder)
    tensors = read_tensors(folder)
    model_type = _parse_json(folder / "config.json", lambda content: str(content["model_type"]))
    with errors_at(folder, FOLDER_FIX):
        return Pretrained(config, from_hf_weights(model_type, config, tensors))


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder, from one file or several.

    Raises:
        UserError: there is no safetensors file, or one is damaged.
    """
    if (folder / WEIGHTS).exists():
        names = [WEIGHTS]
    elif (folder / INDEX).exists():
        names = _parse_json(folder / INDEX, lambda c: sorted(set(c["weight_map"].values())))
    else:
        if pickle := next((name for name in PICKLES if (folder / name).exists()), None):
            raise UserError(
                f"{folder / pickle}: a pickle, which may run code; write the model as safetensors "
                f"with transformers (`save_pretrained`) first"
            )
        raise UserError(f"{folder}: no {WEIGHTS} in it; {FOLDER_FIX}")
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError:
        raise missing_package("safetensors", "train.init_from") from None
    tensors: dict[str, Tensor] = {}
    for name in names:
        path = folder / Path(str(name)).name  # only files of this folder
        try:
            raw = read_bytes(path)
            if int.from_bytes(raw[:8], "little") > MAX_HEADER_BYTES:
                raise ValueError(f"a header of more than {MAX_HEADER_BYTES} bytes")
            tensors |= load(raw)
        except (SafetensorError, KeyError, ValueError) as error:
            raise UserError(f"{path}: damaged or not a safetensors file ({error})") from None
    return tensors


def _parse_json(path: Path, use: Callable[[dict[str, Any]], T]) -> T:
    """Return `use(content)` for the JSON object in a file; errors of both name the file."""
    raw = read_bytes(path)
    try:
        content = parse_json(raw)
        if not isinstance(content, dict):
            raise UserError("not a JSON object")
        return use(content)
    except UserError as error:
        raise UserError(f"{path}: {with_fix(error, FOLDER_FIX)}") from None
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: damaged ({reason}); {FOLDER_FIX}") from None
