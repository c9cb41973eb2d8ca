"""Suggestions for unknown names: the nearest known name, or the synonym of another program."""

from __future__ import annotations

import difflib
from collections.abc import Collection

# Name of a setting in other programs -> its name here.
SYNONYMS = {
    "d_model": "model.n_embd",
    "hidden_size": "model.n_embd",
    "num_layers": "model.n_layer",
    "num_heads": "model.n_head",
    "num_key_value_heads": "model.n_kv_head",
    "head_dim": "model.head_size",
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
    """Return the nearest known dotted name, or None if none is near.

    Dashes count as underscores. A last part that matches exactly wins, in any section.

    >>> known = ["model.n_layer", "optim.lr", "optim.min_lr_ratio"]
    >>> [nearest(name, known) for name in ("model.n_layers", "n_layer", "optim.learning_rat", "z")]
    ['model.n_layer', 'model.n_layer', 'optim.lr', None]
    """
    name = normalize(name)
    synonyms = {other: ours for other, ours in SYNONYMS.items() if ours in known}
    leaves = {leaf_of(normalize(other)): other for other in known} | synonyms
    if leaf_of(name) in leaves:
        return leaves[leaf_of(name)]
    names = {normalize(other): other for other in known} | synonyms
    names |= {f"{ours.rpartition('.')[0]}.{other}": ours for other, ours in synonyms.items()}
    completions = [other for other in names if other.startswith(name)]
    if len(completions) == 1:
        return names[completions[0]]
    close = difflib.get_close_matches(name, names, n=1)
    return names[close[0]] if close else None


def normalize(name: str) -> str:
    """Return the spelling in which names are compared."""
    return name.replace("-", "_")


def leaf_of(name: str) -> str:
    """Return the last part of a dotted name.

    >>> leaf_of("model.n_layer")
    'n_layer'
    """
    return name.rpartition(".")[2]
