"""Try to lose data: `python -m scripts.torture --minutes 5 [--only KIND ...] [--seed S]`.

Runs of a tiny model are killed, stopped, starved of disk space, damaged and raced; each must then
equal the same run without interruption, bit for bit, or be refused with a message. Every reader is
given damaged files. The last line of stdout is one JSON object; the exit status is 1 if a trial has
failed. docs/reliability.md says what is promised.
"""

import os
import sys

if __name__ == "__main__":  # before the slow imports
    sys.path.insert(0, os.path.realpath(f"{__file__}/../../.."))  # for `python tests/torture`
    from utils.signals import before_slow_imports

    before_slow_imports()

import importlib.util
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch._dynamo  # now, instead of with the first optimizer of each trial

from tests.torture.child import DefectError, scratch_folder
from tests.torture.fuzz import fuzz
from tests.torture.reference import Reference
from tests.torture.trials import INTERRUPTIONS, damage, forge, interrupt, nan, race
from utils.cli import Parser, checked, nonnegative_int
from utils.errors import UserError, missing_package, run_cli
from utils.output import json_line, log, progress_bar
from utils.run import environment, plot

MEMORY_FOLDER = Path("/dev/shm")  # a kill loses nothing that a process has written to it
KINDS: dict[str, Any] = {kind: partial(interrupt, kind=kind) for kind in INTERRUPTIONS}
KINDS |= {"nan": nan, "damage": damage, "forge": forge, "race": race, "fuzz": fuzz}
SHARES = {"kill": 3, "fuzz": 3, "damage": 2}  # of the time; of other kinds 1
EXAMPLES = (
    "python -m scripts.torture --minutes 5",
    "python -m scripts.torture --only kill --seed 17 --minutes 0  # one trial again",
)


def arguments(argv: Sequence[str] | None) -> Any:
    """Parse and check the command line.

    Raises:
        UserError: an argument is wrong, hypothesis is missing, or this is not Linux.
    """
    parser = Parser(prog="scripts.torture", description=__doc__, examples=EXAMPLES)
    add, minutes = parser.add_argument, checked(float, "at least 0", lambda value: value >= 0)
    about = "how long to try; 0 = one trial of each kind (default: %(default)s)"
    add("--minutes", type=minutes, default=1.0, help=about)
    about = f"kinds of trials, of {', '.join(KINDS)} (default: all)"
    add("--only", nargs="+", choices=KINDS, default=[*KINDS], metavar="KIND", help=about)
    about = "seed of the first trial of each kind; later ones count up (default: %(default)s)"
    add("--seed", type=nonnegative_int, default=0, help=about)
    if importlib.util.find_spec("hypothesis") is None:
        raise missing_package("hypothesis", "scripts.torture")
    if sys.platform != "linux":
        raise UserError("scripts.torture needs Linux: its trials are forked processes")
    return parser.parse_args(argv)


class Campaign:
    """The trials so far: counts of each kind, and failures."""

    def __init__(self, kinds: Sequence[str], seed: int) -> None:
        self.seed, self.failures = seed, list[dict[str, str]]()
        self.counts = {kind: Counter(trials=0, failed=0, ms=0) for kind in kinds}

    def next_kind(self) -> str:
        """Return the kind that has had the smallest part of its time."""
        return min(self.counts, key=lambda kind: self.counts[kind]["ms"] / SHARES.get(kind, 1))

    def run_trial(self, reference: Reference, kind: str) -> None:
        """Run the next trial of a kind; record its counts or its failure."""
        counts, started = self.counts[kind], time.monotonic()
        seed = self.seed + counts["trials"]
        try:
            with scratch_folder(reference.folder) as folder:
                counts.update(KINDS[kind](reference, Random(seed), folder))
        except (DefectError, UserError) as error:
            command = f"python -m scripts.torture --only {kind} --seed {seed} --minutes 0"
            self.failures.append({"kind": kind, "reproduce": command, "error": str(error)})
            counts["failed"] += 1
            log(f"FAILED {kind}: {error}\n  again: {command}")
        counts.update(trials=1, ms=round(1000 * (time.monotonic() - started)))

    def table(self) -> str:
        """Return a line for each kind."""
        return "\n".join(
            f"{kind:<8}" + ", ".join(f"{name} {n:,}" for name, n in counts.items())
            for kind, counts in self.counts.items()
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run trials until the time is over; print the table and one JSON object."""
    args = arguments(argv)
    torch.set_num_threads(1)
    # They take longer than a run, and say nothing about lost data.
    plot.plot_losses = lambda *args, **kwargs: None
    environment.git_commit = lambda: None
    campaign, end = Campaign(args.only, args.seed), time.monotonic() + 60 * args.minutes
    counts, parent = campaign.counts.values(), MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None
    with scratch_folder(parent) as folder, progress_bar(desc="trials", unit="") as bar:
        reference = Reference(folder)
        while time.monotonic() < end or not all(one["trials"] for one in counts):
            campaign.run_trial(reference, campaign.next_kind())
            bar.update()
    print(campaign.table())
    print(json_line(vars(campaign)))
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    run_cli(main)
