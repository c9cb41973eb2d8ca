"""The settings of a resumed run: those of its config.yaml, with the changes that are allowed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from utils.config.load import build, load
from utils.config.schema import flat_fields, flatten
from utils.errors import UserError
from utils.output import log

T = TypeVar("T")
LIMITS = ("train.max_minutes", "train.max_passes")  # have set max_steps when the run started
MAX_STEPS = "train.max_steps"  # may change, but not to fewer steps than are completed


def resumed_config(
    cls: type[T], config_file: Path, given: Mapping[str, Any], checkpoint: Mapping[str, Any] | None
) -> T:
    """Return the config of a run folder with the changes that `given` asks for.

    Args:
        cls: the dataclass of all settings.
        config_file: config.yaml of the run.
        given: settings from the command line or the files it names.
        checkpoint: the content of last.pt, of which "step" and "config" are read: the settings of
            the completed steps, so an edit of config.yaml since then is noticed as well.

    Raises:
        UserError: a change would have altered completed steps.
    """
    stored_config, known = load(cls, [str(config_file)], {})
    for name in filter(given.get, LIMITS):
        log(
            f"{name} has no effect on a run that has its {MAX_STEPS}; name another run_dir "
            f"(make: RUN=...), or give a higher {MAX_STEPS}"
        )
    fields = flat_fields(cls)
    ignored = {name for name, (_, field) in fields.items() if field.metadata["only_at_start"]}
    given = {name: value for name, value in given.items() if name not in ignored}
    run_dir = config_file.parent
    # What config.yaml says, which may have been edited; below, what the completed steps used.
    completed = flatten(stored_config)
    free = {name for name, (_, field) in fields.items() if field.metadata["may_change_on_resume"]}
    newer = given.keys() - known.keys() - free
    for name in newer:
        if given[name] != completed[name]:
            kept = f"keeps {completed[name]}"
            log(f"warning: the run in {run_dir} is older than the setting {name}, and {kept}")
    kept_given = {name: value for name, value in given.items() if name not in newer}
    requested = completed | kept_given | {"run_dir": str(run_dir)}
    if checkpoint:
        for name in completed:
            section, _, leaf = name.rpartition(".")
            stored = checkpoint["config"]
            values = stored.get(section, {}) if section else stored
            completed[name] = values.get(leaf, completed[name])
    for name, value in requested.items():
        if name == "run_dir" or value == completed[name]:
            continue
        allowed = name == MAX_STEPS and value >= (checkpoint["step"] if checkpoint else 0)
        if not allowed and name not in free:
            raise UserError(
                f"--resume: {name} was {completed[name]} in {run_dir}, not {value}; "
                "drop the change, or start a new run"
            )
    if requested[MAX_STEPS] != completed[MAX_STEPS]:
        log(
            f"warning: {MAX_STEPS} changes from {completed[MAX_STEPS]} to {requested[MAX_STEPS]}, "
            "and with it the learning-rate schedule of the next steps"
        )
    return build(cls, requested)
