"""The training loop: steps, evaluations and checkpoints until the run is finished or stopped."""

from __future__ import annotations

import contextlib

from model.training.step_log import StepLog
from model.training.trainer import Trainer
from utils.output import log
from utils.run import checkpoint
from utils.run.log import RunLog
from utils.signals import SignalCatcher


def fit(trainer: Trainer, *, resumed: bool) -> int:
    """Train until the run is finished or a signal arrives; return the exit status.

    All ranks stop after the same step.
    """
    run, dist = trainer.run, trainer.dist
    if resumed and not run.metrics.exists():
        log(f"warning: {run.metrics} is missing: earlier metrics are lost, a new file is started")
    run_log, signal_number = None, 0
    if dist.is_main:
        run_log = RunLog(
            run,
            after_step=trainer.step if resumed else -1,
            elapsed_s=trainer.elapsed_s,
            tensorboard=trainer.config.train.tensorboard,
        )
    steps = StepLog(trainer, run_log)
    closing = contextlib.closing(run_log) if run_log else contextlib.nullcontext()
    with closing, SignalCatcher() as signals, steps.bar:
        if not resumed:
            trainer.evaluate_and_save(run_log, {})
        while not trainer.finished():
            signal_number = dist.all_reduce_max(signals.number or 0)[0]
            if signal_number:
                break
            trainer.train_step()
            metrics = steps.after_step()
            if metrics is not None:
                trainer.evaluate_and_save(run_log, metrics)
        if not trainer.finished():
            trainer.flush_metrics()  # raises if a loss was not finite, before anything is saved
            trainer.check_weights()
            if dist.is_main:
                checkpoint.save(run.last, trainer.state())
                log(f"{run.path}: stopped at step {trainer.step}; continue with --resume")
    # If this rank got no signal, another rank may have got one: signal_number is shared.
    return signals.exit_status or (128 + signal_number if signal_number else 0)
