"""Draws loss curves: `python -m scripts.plot --run runs/tiny [runs/other ...]`."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # before the imports that take long
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python scripts/plot.py`
    from utils.signals import exit_silently_on_sigint

    exit_silently_on_sigint()

from utils.cli import Parser
from utils.errors import UserError, run_cli
from utils.output import log
from utils.run.folder import DEFAULT_RUN, RunFolder
from utils.run.plot import UNITS, plot_losses


def labels(runs: Sequence[RunFolder]) -> list[str]:
    """Folder names, or whole paths where two names are the same."""
    names = [run.path.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def floor_of(run: RunFolder, unit: str) -> float | None:
    """The entropy floor of a run's validation part in the unit drawn, where it is known."""
    record = run.read_record()
    if unit == "loss":
        return record["floor_nats_per_token"]
    floor = record["data"]["floor"]
    return floor["nats_per_byte"] / math.log(2) if floor else None


def common_floor(runs: Sequence[RunFolder], unit: str) -> float | None:
    """The floor of all runs; None, and a line about it, where they have different ones."""
    floors = {floor_of(run, unit) for run in runs}
    if len(floors) == 1:
        return floors.pop()
    log(f"the runs have different floors in {UNITS[unit]}, none is drawn")
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Draws the runs and prints the file's name."""
    parser = Parser(prog="scripts.plot", description=__doc__)
    parser.add_argument(
        "--run", nargs="+", default=[DEFAULT_RUN], help="run folders (default: %(default)s)"
    )
    parser.add_argument("--out", help="picture (default for one run: loss.png in its folder)")
    parser.add_argument(
        "--unit",
        choices=tuple(UNITS),
        default="loss",
        help="loss: nats per token; bpb: bits per byte",
    )
    args = parser.parse_args(argv)
    runs = [RunFolder(path) for path in dict.fromkeys(args.run)]
    for run in runs:
        run.check_has_run()
    if not args.out and len(runs) > 1:
        raise UserError("--out: name the picture, such as --out compare.png, to draw several runs")
    out = Path(args.out) if args.out else runs[0].plot
    metrics = {label: run.metrics for label, run in zip(labels(runs), runs, strict=True)}
    plot_losses(metrics, out, floor=common_floor(runs, args.unit), unit=args.unit)
    if out.is_file():  # not behind the picture itself, with --out /dev/stdout
        print(out)
    return 0


if __name__ == "__main__":
    run_cli(main)
