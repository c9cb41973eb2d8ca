"""Trains a TinyGPT: settings -> run folder. `python train.py --config configs/tiny.yaml`.

On several devices: `torchrun --nproc_per_node 2 train.py --config configs/tiny.yaml`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before the imports that take long
    from utils.signals import end_at_once

    end_at_once()

from model.flops import describe
from model.hf.pretrained import adopt
from model.training.step_log import StepLog, introduction, record
from model.training.trainer import STATE_KEYS, Trainer
from settings import Config, is_finished
from tok.tokenizer import BPETokenizer
from utils.cli import Parser
from utils.config.flags import add_flags, given_flags
from utils.config.load import build, dump, flat_fields, flatten, load
from utils.distributed import ALONE, Ranks, joined
from utils.errors import UserError, run_cli
from utils.files import write_atomic
from utils.output import say
from utils.run import checkpoint
from utils.run import tensorboard as board
from utils.run.folder import RunFolder
from utils.run.log import RunLog
from utils.run.plot import plot_losses
from utils.signals import Interrupt


def fit(trainer: Trainer, *, fresh: bool) -> int:
    """Trains to the end or to a signal, which all ranks obey after the same step; exit status."""
    run, ranks = trainer.run, trainer.ranks
    if not fresh and not run.metrics.exists():
        say(f"warning: {run.metrics} is gone, and the run's history with it; a new one begins")
    log, stop = None, 0
    if ranks.first:
        log = RunLog(
            run,
            after_step=-1 if fresh else trainer.step,
            elapsed_s=trainer.elapsed_s,
            board=trainer.config.train.tensorboard,
        )
    steps = StepLog(trainer, log)
    closing = contextlib.closing(log) if log else contextlib.nullcontext()
    with closing, Interrupt() as interrupt, steps.bar:
        if fresh:
            trainer.evaluate_and_save(log, {})
        while not trainer.finished() and not (stop := ranks.largest(interrupt.number or 0)[0]):
            steps.before_step()
            trainer.train_step()
            if steps.after_step():
                trainer.evaluate_and_save(log, trainer.read())
        if not trainer.finished():
            trainer.read()  # nothing is saved after a loss that is not finite
            trainer.check_weights()
            if ranks.first:
                checkpoint.save(run.last, trainer.state())
                say(f"{run.path}: stopped at step {trainer.step}; go on with --resume")
    return interrupt.exit_status or (stop and 128 + stop)


def resumed_config(run: RunFolder, given: dict[str, Any], state: dict[str, Any] | None) -> Config:
    """The run's own config with the changes that were asked for and are allowed.

    Args:
        given: settings that stand on the command line or in the files it names.
        state: the checkpoint to go on from; its settings are those of the course already run, so a
            config.yaml that was edited since is seen too.

    Raises:
        UserError: a change would alter the course already run.
    """
    own, _ = load(Config, [str(run.config)], {})
    wanted = flatten(own) | given | {"run_dir": str(run.path)}
    course = flatten(own)
    if state:
        for name in course:
            section, _, leaf = name.rpartition(".")
            part = state["config"].get(section, {}) if section else state["config"]
            course[name] = part.get(leaf, course[name])
    for name, value in wanted.items():
        if name == "run_dir" or value == course[name]:
            continue
        longer = name == "train.max_steps" and value >= (state["step"] if state else 0)
        if not longer and not flat_fields(Config)[name][1].metadata["free"]:
            raise UserError(
                f"--resume: {name} is {course[name]} in {run.path}, not {value}; "
                "leave it, or start a new run"
            )
    config = build(Config, wanted)
    if config.train.max_steps != course["train.max_steps"]:
        say(
            f"warning: train.max_steps goes from {course['train.max_steps']} to "
            f"{config.train.max_steps}; the schedule changes from here on"
        )
    return config


def parse(argv: Sequence[str] | None) -> tuple[Config, dict[str, Any], argparse.Namespace]:
    """Settings from files and flags, those given by name, and the other arguments."""
    parser = Parser(prog="train.py", description=__doc__)
    parser.add_argument(
        "--config", action="append", default=[], help="YAML file; several: later ones win"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in run_dir")
    parser.add_argument("--print_config", action="store_true", help="print every setting and stop")
    add_flags(parser, Config)
    args = parser.parse_args(argv)
    config, given = load(Config, args.config, given_flags(args, Config))
    if not args.resume:  # a run that goes on has its own
        config = adopt(config, given)
    if not config.run_dir:
        name = Path(args.config[-1]).stem if args.config else "default"
        config = dataclasses.replace(config, run_dir=f"runs/{name}")
    return config, given, args


def require_fresh(run: RunFolder) -> None:
    """Refuses a folder that a run stands in.

    Raises:
        UserError: says how to go on with it.
    """
    if run.holds_run():
        raise UserError(f"{run.path}: holds a run; add --resume, or name another run_dir")
    run.require_folder()


def start(
    run: RunFolder, config: Config, given: dict[str, Any], resume: bool, ranks: Ranks = ALONE
) -> int:
    """Begins a run, or goes on with one; the exit status."""
    state = None
    if resume:
        if not run.holds_run():
            raise UserError(f"{run.path}: no run to resume; leave out --resume to start one")
        if ranks.first:
            run.claim()
        state = load_state(run)
        if state:
            require_tokenizer(run, state["tokenizer_sha256"])
        config = resumed_config(run, given, state)
        if state and is_finished(config, state["step"], state["bad_evals"]):
            if ranks.first and not run.plot.exists():  # killed after the last checkpoint
                draw(run)
            say(f"{run.path}: finished at step {state['step']}, nothing to do")
            return 0
    else:
        require_fresh(run)
    if config.train.tensorboard:
        board.library()  # what is missing is told before anything is written
    trainer = Trainer(config, run, state, ranks)
    if resume:
        require_tokenizer(run, trainer.tokenizer.identity)
    ranks.wait()  # all have looked at the folder before the first changes it
    if ranks.first:
        take(run, trainer, resume)
    with contextlib.closing(trainer.batches):
        status = fit(trainer, fresh=state is None)
    if ranks.first:
        draw(run)
        say(
            f"{run.path}: best val {trainer.best_val:.4f}; plot {run.plot}; "
            f"sample with `python sample.py --run {shlex.quote(str(run.path))}`"
        )
    return status


def take(run: RunFolder, trainer: Trainer, resume: bool) -> None:
    """Takes the folder, and writes into it what the run is.

    Raises:
        UserError: another process has it, or has begun a run in it meanwhile.
    """
    run.claim()  # made only now: what was refused so far leaves nothing behind
    if not resume:
        require_fresh(run)
    for line in introduction(trainer):
        say(line)
    write_atomic(run.config, dump(trainer.config).encode())
    trainer.tokenizer.save(run.tokenizer)
    run.write_record(record(trainer))


def require_tokenizer(run: RunFolder, identity: str) -> None:
    """Checks that the tokenizer in the folder, if there is one, is the run's.

    Raises:
        UserError: another one, or a damaged file.
    """
    if run.tokenizer.exists():
        found = BPETokenizer.load(run.tokenizer).identity
        if found != identity:
            raise UserError(
                f"{run.tokenizer}: another tokenizer than the run's: {found[:12]}, expected "
                f"{identity[:12]}; put the original back, or remove the file"
            )


def load_state(run: RunFolder) -> dict[str, Any] | None:
    """last.pt; None where the run ended before the first one.

    Raises:
        UserError: damaged, or not a checkpoint of a training run.
    """
    if not run.last.exists():
        return None
    cure = f"copy {run.best} over it to go on from there, or start a new run"
    state = checkpoint.load(run.last, cure=cure)
    if missing := [name for name in STATE_KEYS if name not in state]:
        raise UserError(f"{run.last}: not a training checkpoint, it has no {missing[0]}")
    return state


def draw(run: RunFolder) -> None:
    """The loss plot, with the floor that run.json tells."""
    floor = run.read_record().get("floor_nats_per_token")
    plot_losses({run.path.name: run.metrics}, run.plot, floor=floor)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, resumes, or prints the settings."""
    with joined() as ranks:
        config, given, args = parse(argv)
        if args.print_config:
            train = config.train
            print(dump(config, comments=True), end="")
            print(textwrap.indent(describe(config.model, train.batch_size), "# "), end="")
            if ranks.size > 1:
                print(f"# {ranks.describe(train.batch_size * train.grad_accum_steps)}")
            return 0
        with contextlib.closing(RunFolder(config.run_dir)) as run:
            return start(run, config, given, args.resume, ranks)


if __name__ == "__main__":
    run_cli(main)
