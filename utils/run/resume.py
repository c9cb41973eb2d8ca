"""The state from which a run is resumed."""

from typing import Any

from utils.errors import UserError, looked_in
from utils.run import checkpoint
from utils.run.folder import RunFolder
from utils.run.log import check_logs
from utils.suggest import did_you_mean


def load_state(run: RunFolder, is_main: bool) -> dict[str, Any] | None:
    """Lock the run and return the content of last.pt; None if there was no checkpoint yet.

    Args:
        is_main: this is the process that writes, and so locks, the run.

    Raises:
        UserError: there is no run, another process has locked it, or last.pt is damaged or not a
            training checkpoint.
    """
    if not run.has_run():
        if found := run.files_of_a_run():
            raise UserError(
                f"{run.path}: holds {found[0].name}, but run.json is missing; put it back, or name "
                "another run_dir to start a new run"
            )
        where = looked_in(run.path) + did_you_mean(run.path, "run.json")
        raise UserError(f"{run.path}: no run to resume{where}; leave out --resume to start one")
    if is_main:
        run.lock()
    if not run.last.exists() and not run.best.exists():
        check_logs(run, None)
        return None
    hint = "start a new run"
    if run.best.exists():
        hint = f"copy {run.best} over it to continue from there, or {hint}"
    if not run.last.exists():
        raise UserError(f"{run.last}: missing; {hint}")
    state = checkpoint.load(run.last, hint=hint, required=checkpoint.SCHEMA)
    check_logs(run, state)
    return state
