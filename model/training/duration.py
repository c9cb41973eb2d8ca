"""How long a run takes: measured before its first step, on a trainer that is thrown away."""

import math
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from tqdm import tqdm

from model.flops import training_flops_per_token
from model.training.config import RunConfig, TrainConfig, limit_passes
from model.training.evaluate import evaluate
from model.training.trainer import Trainer
from utils.device import synchronize
from utils.errors import plural

MIN_FLOPS = 1e10  # of a run, to estimate its duration: a CPU takes about a second for them
ESTIMATE_S = 0.5  # spent on steps for the line that estimates the duration of a run
BUDGET_SHARE = 0.08  # of train.max_minutes, spent on steps to find the number that fits the rest
MAX_TRIAL_S = 60.0  # of it
MAX_SAMPLE_TOKENS = 16  # sampled to measure the time of a token


@dataclass(frozen=True)
class Duration:
    """Seconds of one step, and of one evaluation with its sample."""

    step_s: float
    evaluation_s: float

    def total_s(self, train: TrainConfig) -> float:
        """Return the seconds of a run: one evaluation before the first step, one after the last.

        >>> Duration(step_s=0.1, evaluation_s=2.0).total_s(TrainConfig(max_steps=1000))
        112.0
        """
        return train.max_steps * self.step_s + n_evaluations(train) * self.evaluation_s

    def steps_within(self, seconds: float, eval_every_steps: int) -> int:
        """Return the largest number of steps, at least 1, whose run takes at most `seconds`.

        >>> Duration(step_s=0.1, evaluation_s=2.0).steps_within(112.0, eval_every_steps=200)
        1000
        """
        cycle_s = eval_every_steps * self.step_s + self.evaluation_s
        cycles, rest_s = divmod(seconds - self.evaluation_s, cycle_s)
        # The last cycle may be shorter, but it ends with an evaluation, too.
        more = max(0.0, rest_s - self.evaluation_s) / self.step_s
        return max(1, int(cycles) * eval_every_steps + int(more))

    def describe(self, train: TrainConfig) -> str:
        """Return a line for the user.

        >>> Duration(step_s=0.1, evaluation_s=2.0).describe(TrainConfig(max_steps=1000))
        'about 01:52 here, 1000 steps of 100 ms and 6 evaluations of 2.0 s'
        """
        step = f"{self.step_s * 1000:.3g} ms" if self.step_s < 1 else f"{self.step_s:.1f} s"
        total = tqdm.format_interval(self.total_s(train))
        return (
            f"about {total} here, {plural(train.max_steps, 'step')} of {step} "
            f"and {plural(n_evaluations(train), 'evaluation')} of {self.evaluation_s:.1f} s"
        )


def n_evaluations(train: TrainConfig) -> int:
    """Return the number of evaluations of a run, with that before the first step.

    >>> n_evaluations(TrainConfig(max_steps=1000, eval_every_steps=300))
    5
    """
    return 1 + math.ceil(train.max_steps / train.eval_every_steps)


class PhaseClock:
    """The seconds of each phase of some training steps; to be given as their `on_phase_end`.

    A GPU is synchronised after each phase, which makes the steps slower.
    """

    def __init__(self, device: torch.device) -> None:
        """Start the clock."""
        self.device, self.seconds = device, defaultdict[str, float](float)
        synchronize(device)
        self._since = time.perf_counter()

    def __call__(self, phase: str) -> None:
        """Add the time since the end of the previous phase."""
        synchronize(self.device)
        now = time.perf_counter()
        self.seconds[phase] += now - self._since
        self._since = now


def describe_rest(train: TrainConfig, state: Mapping[str, Any]) -> str:
    """Return a line with the time left for a resumed run, at the rate of its earlier steps.

    >>> describe_rest(TrainConfig(max_steps=300), {"step": 100, "elapsed_s": 30.0})
    'about 01:00 left, at the rate of the first 100 steps'
    """
    step, elapsed_s = state["step"], state["elapsed_s"]
    left = tqdm.format_interval(elapsed_s / step * (train.max_steps - step))
    return f"about {left} left, at the rate of the first {plural(step, 'step')}"


def run_flops(config: RunConfig) -> float:
    """Return the FLOPs of a run, to which its duration is roughly proportional."""
    model, train = config.model, config.train
    tokens = train.max_steps * train.batch_size * train.grad_accum_steps * model.block_size
    return tokens * training_flops_per_token(model)


def is_worth_measuring(config: RunConfig) -> bool:
    """Return whether to measure before the run: not if it takes seconds, or has to be compiled."""
    slow = run_flops(config) >= MIN_FLOPS and not config.train.compile
    return slow or config.train.max_minutes > 0


def trial_settings(train: TrainConfig, n_ranks: int) -> TrainConfig:
    """Return the settings of the trainer to measure: few passes and tokens, scaled up later."""
    accum = 1 if n_ranks == 1 else train.grad_accum_steps
    return replace(
        train, grad_accum_steps=accum, sample_tokens=min(train.sample_tokens, MAX_SAMPLE_TOKENS)
    )


def plan(train: TrainConfig, trial: Trainer) -> tuple[TrainConfig, str]:
    """Return the settings with a number of steps that fits train.max_minutes, and a log line.

    Args:
        train: the settings of the run.
        trial: a trainer with `trial_settings`; its steps are taken, so it cannot train the run.
    """
    budget_s = 60 * train.max_minutes
    seconds, limit = ESTIMATE_S, min(20, train.max_steps // 50)
    if budget_s:
        seconds, limit = min(BUDGET_SHARE * budget_s, MAX_TRIAL_S), sys.maxsize
    duration = measure(trial, train, seconds, limit)
    fits = ""
    if budget_s:
        max_steps = duration.steps_within(budget_s - seconds, train.eval_every_steps)
        fits = f"{plural(max_steps, 'step')} fit into {budget_s / 60:g} minutes: "
        train = replace(train, max_minutes=0.0, max_steps=max_steps)
    share = trial.config.train.grad_accum_steps / train.grad_accum_steps  # of a step's rows
    limited = limit_passes(train, share / trial.batches.epoch_at(1))
    if limited.max_steps < train.max_steps:
        fits += f"{train.max_passes:g} passes over the text are {limited.max_steps}: "
    return limited, fits + duration.describe(limited)


def measure(trial: Trainer, train: TrainConfig, seconds: float, max_steps: int) -> Duration:
    """Measure a few training steps, a batch of an evaluation, and a short sample.

    Args:
        train: the settings of the run, to which the times are scaled.
        seconds: to spend on steps, approximately.
        max_steps: maximum number of steps.
    """
    clock, n_steps, is_warm, start = PhaseClock(trial.device), 0, False, time.perf_counter()
    for number in range(max_steps + 1):
        trial.train_step(clock)
        n_steps += 1
        # All ranks must take as many steps.
        (thirds,) = trial.dist.all_reduce_max(int(3 * (time.perf_counter() - start) / seconds))
        if thirds >= 3:
            break
        # The first third is slower: memory is allocated, and kernels are made for new shapes.
        if thirds and not is_warm and number < max_steps:
            n_steps, is_warm, clock = 0, True, PhaseClock(trial.device)
    phases = clock.seconds
    repeats = train.grad_accum_steps / trial.config.train.grad_accum_steps
    once_s = phases["optimizer"] + phases["clip"]
    step_s = (once_s + repeats * (sum(phases.values()) - once_s)) / n_steps
    microseconds = [round(1e6 * s) for s in (step_s, evaluation_seconds(trial, train))]
    step_us, evaluation_us = trial.dist.all_reduce_max(*microseconds)
    return Duration(max(step_us, 1) / 1e6, evaluation_us / 1e6)


def evaluation_seconds(trial: Trainer, train: TrainConfig) -> float:
    """Return the seconds of an evaluation and its sample, from one batch and a few tokens."""
    n_batches = trial.batches.n_eval_batches("val", train.batch_size)
    # From the middle, because documents are in order of length.
    batches = trial.batches.eval_batches("val", train.batch_size)
    batch = next(islice(batches, n_batches // 2, None))
    for _ in range(2):  # the first pass allocates memory
        start = time.perf_counter()
        evaluate(trial.model, [batch], trial.byte_lengths, trial.autocast)
        batch_s = time.perf_counter() - start
    seconds = batch_s * -(-n_batches // trial.dist.size)
    if n_sampled := trial.config.train.sample_tokens:
        start = time.perf_counter()
        trial.sample()
        seconds += (time.perf_counter() - start) * train.sample_tokens / n_sampled
    return seconds
