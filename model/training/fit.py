"""The training loop: steps, evaluations and checkpoints until the run is finished or stopped."""

import contextlib

from model.training.evaluate import EvaluationStoppedError
from model.training.step_log import StepLog
from model.training.trainer import Trainer
from utils.output import log
from utils.run import checkpoint
from utils.run.log import RunLog
from utils.signals import SignalCatcher


def fit(trainer: Trainer, *, resumed: bool) -> int:
    """Train until the run is finished or a signal arrives; return the exit status.

    All ranks stop after the same step. A signal during an evaluation stops it; a resumed run then
    begins with that evaluation.
    """
    run, dist = trainer.run, trainer.dist
    if resumed and not run.metrics.exists():
        log(f"warning: {run.metrics} is missing: earlier metrics are lost, a new file is started")
    pending = trainer.pending_evaluation if resumed else {}  # {}: a new run evaluates first
    run_log, signal_number = None, 0
    if dist.is_main:
        run_log = RunLog(
            run,
            after_step=trainer.step - (pending is not None),  # a pending row is written again
            elapsed_s=trainer.elapsed_s,
            tensorboard=trainer.config.train.tensorboard,
        )
    closing = contextlib.closing(run_log) if run_log else contextlib.nullcontext()
    with closing, SignalCatcher() as signals, trainer.saver as saver:
        steps = StepLog(trainer, run_log)

        def stop(number: int, n_batches: int) -> bool:
            steps.show_evaluation(number, n_batches)
            return dist.stop_requested(signals.number is not None)

        trainer.stop_evaluation = stop
        with steps.bar:
            try:
                metrics = pending
                while True:
                    if metrics is not None:
                        trainer.evaluate_and_save(run_log, metrics)
                        steps.after_evaluation()
                    if trainer.finished():
                        break
                    signal_number = dist.all_reduce_max(signals.number or 0)[0]
                    if signal_number:
                        break
                    trainer.train_step()
                    saver.check()
                    metrics = steps.after_step()
            except EvaluationStoppedError:
                signal_number = dist.all_reduce_max(signals.number or 0)[0]
        if trainer.pending_evaluation is not None or not trainer.finished():
            save_stopped(trainer)
    # If this rank got no signal, another rank may have got one: signal_number is shared.
    return signals.exit_status or (128 + signal_number if signal_number else 0)


def save_stopped(trainer: Trainer) -> None:
    """Save last.pt after a signal, and log where the run has stopped."""
    run, step, val_step = trainer.run, trainer.step, trainer.val_step
    trainer.flush_metrics()  # raises if a loss was not finite, before anything is saved
    trainer.check_weights()
    if not trainer.dist.is_main:
        return
    if step == 0 and trainer.pending_evaluation is not None:  # resuming starts from the beginning
        log(f"{run.path}: stopped before the first step; continue with --resume")
        return
    trainer.saver.wait()
    checkpoint.save(run.last, trainer.state())
    where = ""
    if val_step != step:
        where = f", not evaluated since step {val_step}" if val_step else ", not evaluated yet"
    log(f"{run.path}: stopped at step {step}{where}; continue with --resume")
