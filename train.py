"""Trains a TinyGPT: settings -> run folder. `python train.py --config configs/tiny.yaml`."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from trainer import Config, Trainer, is_finished, say
from utils import checkpoint
from utils.cli import Parser
from utils.config import build, dump, flat_fields, flatten, load
from utils.errors import UserError, run_cli
from utils.flags import add_flags, given_flags
from utils.files import write_atomic
from utils.interrupt import Interrupt
from utils.metrics import CsvLog, Throughput
from utils.plot import plot_losses
from utils.runs import RunFolder, keep_samples


def fit(trainer: Trainer, *, fresh: bool) -> int:
    """Trains to the end or to a signal; the exit status."""
    train, run = trainer.config.train, trainer.run
    log = CsvLog(run.metrics, after_step=-1 if fresh else trainer.step)
    keep_samples(run.samples, -1 if fresh else trainer.step)
    meter = Throughput()
    bar = tqdm(total=train.max_steps, initial=trainer.step, desc="train", unit="step", disable=None)
    since = time.perf_counter() - trainer.elapsed_s
    with Interrupt() as interrupt, bar:
        if fresh:
            trainer.evaluate_and_save(log, {})
        while not trainer.finished() and interrupt.number is None:
            meter.start()
            numbers = trainer.train_step()
            meter.stop(trainer.tokens)
            trainer.elapsed_s = time.perf_counter() - since
            bar.update()
            at_end = trainer.step == train.max_steps
            at_eval = at_end or trainer.step % train.eval_every_steps == 0
            if not at_eval and trainer.step % train.log_every_steps:
                continue
            trainer.rate = meter.take()
            bar.set_postfix_str(f"loss {numbers['train_loss']:.3f}, {trainer.rate:,.0f} tokens/s")
            if at_eval:
                trainer.evaluate_and_save(log, numbers)
            else:
                log.write(trainer.row(numbers))
                if bar.disable:
                    say(
                        f"step {trainer.step}/{train.max_steps}: loss {numbers['train_loss']:.4f}, "
                        f"lr {numbers['lr']:.3g}, {trainer.rate:,.0f} tokens/s"
                    )
        if not trainer.finished():
            checkpoint.save(run.last, trainer.state())
            say(f"{run.path}: stopped at step {trainer.step}; go on with --resume")
    return interrupt.exit_status


def resumed_config(run: RunFolder, given: dict[str, Any], step: int) -> Config:
    """The run's own config with the changes that were asked for and are allowed.

    Raises:
        UserError: a change would alter the course already run.
    """
    config, _ = load(Config, [str(run.config)], {})
    flat = flatten(config)
    for name, value in given.items():
        if name == "run_dir" or value == flat[name]:
            continue
        if name == "train.max_steps" and value >= step:
            say(
                f"warning: train.max_steps goes from {flat[name]} to {value}; the schedule changes from here on"
            )
        elif not flat_fields(Config)[name][1].metadata["free"]:
            raise UserError(
                f"--resume: {name} is {flat[name]} in {run.config}, not {value}; leave it, or start a new run"
            )
        flat[name] = value
    return build(Config, flat)


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
    if not config.run_dir:
        name = Path(args.config[-1]).stem if args.config else "default"
        config = dataclasses.replace(config, run_dir=f"runs/{name}")
    return config, given, args


def start(config: Config, given: dict[str, Any], resume: bool) -> int:
    """Begins a run, or goes on with one; the exit status."""
    run = RunFolder(config.run_dir)
    if run.holds_run() != resume:
        cure = (
            "add --resume, or name another run_dir"
            if run.holds_run()
            else "leave out --resume to start one"
        )
        raise UserError(
            f"{run.path}: {'holds a run' if run.holds_run() else 'no run to resume'}; {cure}"
        )
    state = None
    if resume:
        run.open()
        state = checkpoint.load(run.last) if run.last.exists() else None
        config = resumed_config(run, given, state["step"] if state else 0)
        if state and is_finished(config, state["step"], state["bad_evals"]):
            say(f"{run.path}: finished at step {state['step']}, nothing to do")
            return 0
    trainer = Trainer(config, run, state)
    run.open()  # made only now: what was refused so far leaves nothing behind
    write_atomic(run.config, dump(config).encode())
    trainer.tokenizer.save(run.tokenizer)
    run.write_record(trainer.record())
    status = fit(trainer, fresh=state is None)
    plot_losses({run.path.name: run.metrics}, run.plot, floor=trainer.floor())
    say(
        f"{run.path}: best val {trainer.best_val:.4f}; plot {run.plot}; sample with `python sample.py --run {run.path}`"
    )
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, resumes, or prints the settings."""
    config, given, args = parse(argv)
    if args.print_config:
        print(dump(config, comments=True), end="")
        return 0
    return start(config, given, args.resume)


if __name__ == "__main__":
    run_cli(main)
