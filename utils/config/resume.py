"""The settings of a resumed run: its own, with the changes that are asked for and allowed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from utils.config.load import build, load
from utils.config.schema import flat_fields, flatten
from utils.errors import UserError
from utils.output import log

T = TypeVar("T")
MAX_STEPS = "train.max_steps"  # may change as long as no completed step would have been different


def resumed_config(
    cls: type[T],
    config_file: Path,
    given: Mapping[str, Any],
    checkpoint: Mapping[str, Any] | None,
) -> T:
    """Return the config of a run folder with the changes that `given` asks for.

    Args:
        cls: the dataclass of all settings.
        config_file: config.yaml of the run.
        given: settings from the command line or the files it names.
        checkpoint: what the run resumes from ("step", "config"). Its settings are those of the
            completed steps, so a config.yaml that was edited since is noticed too.

    Raises:
        UserError: a change would have altered completed steps.
    """
    own, _ = load(cls, [str(config_file)], {})
    run_dir = config_file.parent
    wanted = flatten(own) | dict(given) | {"run_dir": str(run_dir)}
    completed = flatten(own)
    if checkpoint:
        for name in completed:
            section, _, leaf = name.rpartition(".")
            stored = checkpoint["config"]
            completed[name] = (stored.get(section, {}) if section else stored).get(
                leaf, completed[name]
            )
    for name, value in wanted.items():
        if name == "run_dir" or value == completed[name]:
            continue
        longer = name == MAX_STEPS and value >= (checkpoint["step"] if checkpoint else 0)
        if not longer and not flat_fields(cls)[name][1].metadata["may_change_on_resume"]:
            raise UserError(
                f"--resume: {name} is {completed[name]} in {run_dir}, not {value}; "
                "leave it, or start a new run"
            )
    if wanted[MAX_STEPS] != completed[MAX_STEPS]:
        log(
            f"warning: {MAX_STEPS} goes from {completed[MAX_STEPS]} to {wanted[MAX_STEPS]}; "
            "the schedule changes from here on"
        )
    return build(cls, wanted)
