"""Plot loss curves: `python -m scripts.plot --run runs/tiny [runs/other ...]`.

With several runs, also print a table of their steps, losses and times.
"""

import os
import sys

if __name__ == "__main__":  # before the slow imports
    sys.path.insert(0, os.path.realpath(f"{__file__}/../.."))  # for `python scripts/plot.py`
    from utils.signals import before_slow_imports

    before_slow_imports()

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from scripts.report import run_figures, table
from utils.cli import Parser
from utils.errors import UserError, run_cli
from utils.output import log
from utils.run.figure import check_picture, plain_text
from utils.run.folder import DEFAULT_RUN, RunFolder
from utils.run.plot import UNITS, plot_losses

EXAMPLES = (
    "python -m scripts.plot --run runs/tiny",
    "python -m scripts.plot --run runs/tiny runs/other --unit bpb --out compare.png",
)


def labels(runs: Sequence[RunFolder]) -> list[str]:
    """Return the folder names, or the whole paths if two names are equal."""
    names = [run.path.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def floor_of(run: RunFolder, unit: str) -> float | None:
    """Return the entropy floor of a run's validation part in the plotted unit, or None."""
    record = run.read_record()
    if unit == "loss":
        return record["floor_nats_per_token"]
    floor = record["data"]["floor"]
    return floor["nats_per_byte"] / math.log(2) if floor else None


def common_floor(runs: Sequence[RunFolder], unit: str) -> float | None:
    """Return the floor of all runs. Log a line and return None if they have different floors."""
    floors = {floor_of(run, unit) for run in runs}
    if len(floors) == 1:
        return floors.pop()
    log(f"the runs have different floors in {UNITS[unit]}, so none is plotted")
    return None


def compare(metrics: Mapping[str, Path]) -> str:
    """Return a table of runs: the last step, the best validation loss after step 0, the time.

    Args:
        metrics: label -> metrics.csv.
    """
    rows = []
    for label, path in metrics.items():
        found = run_figures(path)
        best = [f"{float(found[name]):.4f}" for name in ("val_loss", "val_bpb") if name in found]
        seconds = float(found.get("elapsed_s") or "nan")
        time = "-" if math.isnan(seconds) else tqdm.format_interval(seconds)
        best += [found["best_step"]] if best else ["-", "-", "-"]
        rows.append([plain_text(label), found.get("step", "-"), *best, time])
    return table(["run", "steps", "best val nats/token", "bits/byte", "at step", "time"], rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Plot the runs and print the path of the picture."""
    parser = Parser(prog="scripts.plot", description=__doc__, examples=EXAMPLES)
    add = parser.add_argument
    about = f"run folders (default: {DEFAULT_RUN})"
    add("--run", nargs="+", default=[DEFAULT_RUN], metavar="FOLDER", help=about)
    about = "PNG, PDF or SVG (default for one run: loss.png in its folder)"
    add("--out", metavar="FILE", help=about)
    about = "loss: nats per token; bpb: bits per byte"
    add("--unit", choices=tuple(UNITS), default="loss", help=about)
    args = parser.parse_args(argv)
    runs = [RunFolder(path) for path in dict.fromkeys(args.run)]  # without repeated paths
    for run in runs:
        run.check_has_run()
    if not args.out and len(runs) > 1:
        raise UserError("--out: several runs need the name of a picture: --out compare.png")
    out = Path(args.out) if args.out else runs[0].plot
    if args.out and not out.exists():  # else a file that is replaced, or a device
        check_picture(out, "--out")
    metrics = {label: run.metrics for label, run in zip(labels(runs), runs, strict=True)}
    plot_losses(metrics, out, floor=common_floor(runs, args.unit), unit=args.unit)
    if out.is_file():  # false for --out /dev/stdout, which holds the picture: print nothing more
        print(*([compare(metrics)] if len(runs) > 1 else []), out, sep="\n")
    return 0


if __name__ == "__main__":
    run_cli(main)
