"""The name that was meant: the nearest one known, by our spelling or by that of other programs."""

from __future__ import annotations

import difflib
from collections.abc import Collection

# What other programs call a setting of ours.
SYNONYMS = {
    "d_model": "model.n_embd",
    "hidden_size": "model.n_embd",
    "num_layers": "model.n_layer",
    "num_heads": "model.n_head",
    "context_length": "model.block_size",
    "max_seq_len": "model.block_size",
    "learning_rate": "optim.lr",
    "max_lr": "optim.lr",
    "optimizer": "optim.name",
    "max_iters": "train.max_steps",
    "gradient_accumulation_steps": "train.grad_accum_steps",
    "eval_interval": "train.eval_every_steps",
    "log_interval": "train.log_every_steps",
    "out_dir": "run_dir",
}


def nearest(name: str, known: Collection[str]) -> str | None:
    """The nearest of the known dotted names; None where none is near. Dashes are underscores.

    The last part alone counts where it stands in another section.

    >>> known = ["model.n_layer", "optim.lr", "optim.min_lr_ratio"]
    >>> [nearest(name, known) for name in ("model.n_layers", "n_layer", "optim.learning_rat", "z")]
    ['model.n_layer', 'model.n_layer', 'optim.lr', None]
    """
    name = normalize(name)
    synonyms = {word: ours for word, ours in SYNONYMS.items() if ours in known}
    leaves = {leaf_of(normalize(other)): other for other in known} | synonyms
    if leaf_of(name) in leaves:
        return leaves[leaf_of(name)]
    whole = {normalize(other): other for other in known} | synonyms
    whole |= {f"{ours.rpartition('.')[0]}.{word}": ours for word, ours in synonyms.items()}
    longer = [word for word in whole if word.startswith(name)]  # a name cut short
    close = longer if len(longer) == 1 else difflib.get_close_matches(name, whole, n=1)
    return whole[close[0]] if close else None


def normalize(name: str) -> str:
    """The spelling in which names are compared."""
    return name.replace("-", "_")


def leaf_of(name: str) -> str:
    """The last part of a dotted name.

    >>> leaf_of("model.n_layer")
    'n_layer'
    """
    return name.rpartition(".")[2]
