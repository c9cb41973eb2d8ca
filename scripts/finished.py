"""The finished runs in a folder, such as that of a sweep, with settings and results."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.intervals import MIN_RUNGS
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
    text: str  # see `val_text`


def examine(run: RunFolder) -> FinishedRun | str:
    """Return a run, or why it is not a `FinishedRun`, and what helps.

    Raises:
        UserError: no run there, or a file of it is damaged.
    """
    record, (config, _) = run.read_record(), load(Config, [str(run.config)], {})
    rows, texts = read_rows(run.metrics) if run.metrics.exists() else [], run_figures(run.metrics)
    figures = {name: float(text or "nan") for name, text in texts.items()}
    if not math.isfinite(figures.get("val_loss", 0.0)):
        return "its loss is not finite; a lower optim.lr may help"
    if not rows or not rows[-1]["val_loss"] or figures["step"] < config.train.max_steps:
        best = figures.get("best_step", math.inf)
        n_worse = sum(bool(row["val_loss"]) and int(row["step"]) > best for row in rows)
        if 0 < config.train.early_stop_patience <= n_worse:
            return f"stopped early at step {rows[-1]['step']}; set train.early_stop_patience 0"
        return "not finished; train it to its end"
    tokens, data = int(rows[-1]["tokens"]), record["data"]["identity"]
    floor, text = record["floor_nats_per_token"], val_text(record, config)
    return FinishedRun(run.path, config, tokens, figures, data, floor, text)


def val_text(record: Mapping[str, Any], config: Config) -> str:
    """Return what distinguishes the validation text of a run: source and size.

    Losses compare only on the same text. Training text and tokenizer may differ, unlike with the
    identity of the data.

    Args:
        record: its run.json.
    """
    data, val = config.data, record["data"].get("val", {})
    files = data.val_files or data.files
    return str((files, data.story_seed, val.get("bytes"), val.get("documents")))


def finished_runs(folder: str, flag: str) -> list[FinishedRun]:
    """Return all finished runs in a folder, in the order of their names; log why others are not.

    Args:
        flag: that named the folder, for messages.

    Raises:
        UserError: the folder has no runs, or one of them is damaged.
    """
    runs = [RunFolder(record.parent) for record in sorted(Path(folder).glob("*/run.json"))]
    if not runs:
        raise UserError(f"{flag} {folder}: no runs there{looked_in(folder)}; name a sweep's folder")
    found = [examine(run) for run in runs]
    for why, count in Counter(one for one in found if isinstance(one, str)).items():
        log(f"{flag} {folder}: {count} of {plural(len(runs), 'run')} left out: {why}")
    return [one for one in found if isinstance(one, FinishedRun)]


def difference(found: Config, wanted: Config, ignored: Collection[str]) -> str:
    """Return the first setting that differs, with both values, or an empty text."""
    expected = flatten(wanted)
    for name, value in flatten(found).items():
        if value != expected[name] and name not in ignored:
            texts = [x if isinstance(x, str) else format_value(x) for x in (value, expected[name])]
            return f"{name} {', not '.join(texts)}"
    return ""


def read_ladder(folder: str, base: Config, varied: Collection[str]) -> list[FinishedRun]:
    """Return the finished runs of a ladder: one recipe with several numbers of steps.

    Args:
        base: of the sweep.
        varied: settings of a grid: the recipe may have any values of them.

    Raises:
        UserError: it has too few numbers of steps, two runs of the same steps and seed, or runs
            that differ from each other or from the base in other settings.
    """
    runs, found = finished_runs(folder, "--ladder"), dict[tuple[int, int], FinishedRun]()
    for run in runs:
        train, name = run.config.train, run.path.name
        twin = found.setdefault((train.max_steps, train.seed), run)
        likes = [("the sweep's base", base, varied), (runs[0].path.name, runs[0].config, ())]
        for like, config, more in likes:
            if differs := difference(run.config, config, (*MAY_DIFFER, *LADDER_MAY_DIFFER, *more)):
                fix = "only steps and seeds may differ; name a folder of one recipe's runs"
                raise UserError(f"--ladder {folder}: {name} has {differs} as {like}; {fix}")
        if twin is not run:
            differs = difference(run.config, twin.config, ("run_dir",)) or "equal settings"
            words = f"{name} has {differs}, and the steps and seed of {twin.path.name}"
            raise UserError(f"--ladder {folder}: {words}; remove one")
    if len({steps for steps, _ in found}) < MIN_RUNGS:
        fix = "train the base with `--grid train.max_steps=1000,2000,4000` and a new --out"
        raise UserError(f"--ladder {folder}: needs finished runs of three numbers of steps; {fix}")
    return runs
