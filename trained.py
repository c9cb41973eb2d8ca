"""A trained run: its model, its tokenizer, and the checkpoint both came from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from model.config import ModelConfig
from model.gpt import TinyGPT
from model.load import load_model
from model.sampling.inference_weights import Weights
from settings import Config
from tok.tokenizer import BPETokenizer
from utils.config.load import flatten, load
from utils.device import pick_device
from utils.errors import UserError
from utils.run import checkpoint
from utils.run.folder import RunFolder

DEFAULT_RUN = "runs/tiny"  # where `make train` leaves the default model


@dataclass
class Loaded:
    """A trained model with its tokenizer and the checkpoint both came from."""

    model: TinyGPT
    tokenizer: BPETokenizer
    state: dict[str, Any]
    path: Path

    @cached_property
    def weights(self) -> Weights:
        """The model's, gathered for sampling; they do not follow if it is trained on."""
        return Weights(self.model)


def load_run(run_dir: str | Path, which: str = "best", device: str = "auto") -> Loaded:
    """Loads best.pt or last.pt of a run and the tokenizer beside it; also of one in training.

    Raises:
        UserError: no run, no checkpoint yet, a damaged one, or one of another tokenizer.
    """
    run = RunFolder(run_dir)
    run.require_run()
    path = run.path / f"{which}.pt"
    if not path.exists():
        raise UserError(f"{path}: no checkpoint yet; wait for the run's first evaluation")
    other = "last" if which == "best" else "best"
    state = checkpoint.load(path, cure=f"try --checkpoint {other}")
    tokenizer = BPETokenizer.load(run.tokenizer)
    if tokenizer.identity != state.get("tokenizer_sha256"):
        raise UserError(
            f"{run.tokenizer}: tokenizer {tokenizer.identity[:12]}, but {path} was trained with "
            f"{str(state.get('tokenizer_sha256'))[:12]}; put the original back"
        )
    place = pick_device(device)
    try:
        model = load_model(state, place)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    require_own_shape(run, path, model.config)
    return Loaded(model, tokenizer, state, path)


def require_own_shape(run: RunFolder, path: Path, found: ModelConfig) -> None:
    """Checks that a checkpoint's model is the one that config.yaml describes.

    Raises:
        UserError: names the first setting that differs.
    """
    config, _ = load(Config, [str(run.config)], {})
    theirs = flatten(found)
    for name, value in flatten(config.model).items():
        if value != theirs[name]:
            raise UserError(
                f"{path}: model.{name} is {theirs[name]}, but {run.config} says {value}; "
                "put the original back"
            )


def find_token(tokenizer: BPETokenizer, text: str) -> int:
    """The id of a special token, or of any text that is one token.

    >>> find_token(BPETokenizer([(97, 98)]), "ab"), find_token(BPETokenizer([]), "<|endoftext|>")
    (256, 256)

    Raises:
        UserError: the text is several tokens, or none.
    """
    if text in tokenizer.special_ids:
        return tokenizer.special_ids[text]
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        known = ", ".join(tokenizer.special_tokens)
        raise UserError(f"{text!r} is {len(ids)} tokens; name one that is one, such as {known}")
    return ids[0]
