"""The finished runs in a folder, such as that of a sweep, with settings and results."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from scripts.report import run_figures
from train import Config
from utils.config.load import load
from utils.config.schema import flatten
from utils.config.strict_yaml import format_value
from utils.errors import UserError, looked_in, plural
from utils.metrics import read_rows
from utils.output import log
from utils.run.folder import RunFolder

# Settings that do not change the losses: a run with another value is still the same one.
MAY_DIFFER = (
    "run_dir",
    "train.num_threads",
    "data.cache_dir",
    "train.log_every_steps",
    "train.sample_tokens",
    "train.sample_prompt",
    "train.tensorboard",
)
LADDER_MAY_DIFFER = ("train.seed", "train.max_steps", "train.eval_every_steps")


@dataclass(frozen=True)
class FinishedRun:
    """A run whose last step was evaluated, with a finite loss."""

    path: Path
    config: Config
    tokens: int  # seen in training
    figures: dict[str, float]  # see `run_figures`
    data: str  # identity of data and tokenizer
    floor: float | None  # nats per token


def read_run(run: RunFolder) -> FinishedRun | None:
    """Return a run, or None if it is not finished or its loss is not finite.

    Raises:
        UserError: no run there, or a file of it is damaged.
    """
    record, (config, _) = run.read_record(), load(Config, [str(run.config)], {})
    rows, texts = read_rows(run.metrics) if run.metrics.exists() else [], run_figures(run.metrics)
    if not rows or not rows[-1]["val_loss"] or int(rows[-1]["step"]) < config.train.max_steps:
        return None
    figures = {name: float(text or "nan") for name, text in texts.items()}
    identity, floor = record["data"]["identity"], record["floor_nats_per_token"]
    found = FinishedRun(run.path, config, int(rows[-1]["tokens"]), figures, identity, floor)
    return found if math.isfinite(figures["val_loss"]) else None


def finished_runs(folder: str, flag: str) -> list[FinishedRun]:
    """Return all finished runs in a folder, in the order of their names; log how many are not.

    Args:
        flag: that named the folder, for messages.

    Raises:
        UserError: the folder has no runs, or one of them is damaged.
    """
    runs = [RunFolder(record.parent) for record in sorted(Path(folder).glob("*/run.json"))]
    if not runs:
        raise UserError(f"{flag} {folder}: no runs there{looked_in(folder)}; name a sweep's folder")
    finished = [found for run in runs if (found := read_run(run))]
    if left_out := len(runs) - len(finished):
        log(f"{flag} {folder}: {left_out} of {plural(len(runs), 'run')} left out: not finished")
    return finished


def difference(found: Config, wanted: Config, ignored: Collection[str]) -> str:
    """Return the first setting that differs, with both values, or an empty text."""
    expected = flatten(wanted)
    for name, value in flatten(found).items():
        if value != expected[name] and name not in ignored:
            texts = [x if isinstance(x, str) else format_value(x) for x in (value, expected[name])]
            return f"{name} {', not '.join(texts)}"
    return ""
