"""Train every point of a sweep: `python -m scripts.sweep --config configs/sweep.yaml --workers 2`.

A point is one combination of settings and seed, and has a run folder. Finished points are skipped,
and interrupted ones are resumed. results.csv has a row for each point and is rewritten whenever a
point ends. At the end a ranked table is printed and plots are written.
"""

import os
import sys

if __name__ == "__main__":  # before the slow imports
    sys.path.insert(0, os.path.realpath(f"{__file__}/../../.."))  # for `python scripts/sweep`
    from utils.signals import before_slow_imports

    before_slow_imports()

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path
from typing import Any

from filelock import FileLock

from data.prepare import prepare
from data.prepared_folder import read_meta
from scripts.finished import read_ladder
from scripts.report import worth_table
from scripts.sweep import ranking
from scripts.sweep.grid import BASE, PICTURES, Sweep
from scripts.sweep.grid_entries import PARTS, SWEEP_KEYS
from scripts.sweep.grid_file import load_sweep
from scripts.sweep.points import Job, make_jobs, to_csv
from scripts.sweep.pools import ClusterPool, LocalPool, Pool, visible_gpus
from scripts.sweep.progress import SweepBar, describe_duration
from train import Config
from utils.cli import Parser, positive_float, positive_int
from utils.errors import UserError, run_cli
from utils.files import read_bytes, write_atomic
from utils.output import json_line, log
from utils.processes import available_cores
from utils.run.figure import FORMATS, import_matplotlib, warn_if_not_drawn
from utils.run.locks import acquire
from utils.signals import SignalCatcher
from utils.suggest import shell_quote

POLL_S = 0.2  # seconds between two checks for a signal
LOCK_TIMEOUT_S = 2.0  # watchdogs of an earlier sweep take the lock briefly to see if it is free
EXAMPLES = (
    "python -m scripts.sweep --config configs/sweep.yaml --workers 2",
    "python -m scripts.sweep --base configs/tiny.yaml --grid lr=0.001,0.003 --seeds 1,2,3",
    "python -m scripts.sweep --base configs/tiny.yaml --random lr=1e-4,1e-2,log --points 20",
    "python -m scripts.sweep --base configs/tiny.yaml --each pointer=false --ladder runs/ladder",
)


def run_jobs(jobs: Sequence[Job], pool: Pool, base: str, save: Callable[[], None]) -> int:
    """Run the points that are not done; return the exit status after a signal, or 0.

    Args:
        base: config file of all runs; "" for none.
        save: called whenever a point has ended.
    """
    stopping, bar = False, SweepBar(jobs)
    with SignalCatcher() as interrupt, contextlib.closing(bar):
        try:
            waiting = [job for job in jobs if job.status != "done"]
            futures = {pool.submit(job.watchdog_command(base), job.log): job for job in waiting}
            left = set(futures)
            while left:
                ended, left = wait(left, timeout=POLL_S, return_when=FIRST_COMPLETED)
                for future in ended:
                    bar.end(futures[future], future, stopping)
                    save()
                bar.refresh_if_due()
                if interrupt.number is not None and not stopping:
                    log("stopping: the running points write their checkpoints")
                    stopping = True
                    pool.stop()
        finally:
            pool.close()
    return interrupt.exit_status


def arguments(argv: Sequence[str] | None) -> Any:
    """Parse and check the command line.

    Raises:
        UserError: an argument is unknown, malformed or out of range.
    """
    parser = Parser(prog="scripts.sweep", description=__doc__, examples=EXAMPLES)
    add = parser.add_argument
    about = "the sweep's file (default: configs/sweep.yaml, or none with --base)"
    add("--config", metavar="FILE", help=about)
    add("--base", metavar="FILE", help="config of every run (default: as in the sweep's file)")
    add("--out", metavar="FOLDER", help="folder of the runs (default: as in the sweep's file)")
    many: dict[str, Any] = {"action": "append", "default": []}
    about = "values of a setting; with several --grid, all combinations are trained"
    add("--grid", **many, metavar="NAME=V,V", help=about)
    about = "values of a setting, each tried alone: all other settings stay those of the base"
    add("--each", **many, metavar="NAME=V,V", help=about)
    about = "range of a setting, for random search"
    add("--random", **many, metavar="NAME=LOW,HIGH[,log]", help=about)
    add("--points", metavar="INT", help="number of combinations that random search tries")
    add("--random-seed", metavar="INT", help="seed of the random search (default: 1)")
    add("--set", **many, metavar="NAME=V", help="a setting of every run")
    add("--seeds", metavar="INT[,INT...]", help="train every combination once with each seed")
    about = "parallel runs, which share cores and GPUs; their losses may differ in the last digits"
    add("--workers", type=positive_int, help=about)
    add("--cluster", metavar="ADDRESS", help="run on this dask scheduler's workers, not here")
    about = "folder of runs of the base with several train.max_steps: print what a change is worth"
    add("--ladder", metavar="FOLDER", help=about)
    about = "difference in bits per byte, to print the seeds it needs (default: 1%% of the loss)"
    add("--detect", type=positive_float, metavar="DIFFERENCE", help=about)
    add("--plot-format", choices=FORMATS, default="png", help="format of the plots (default: png)")
    add("--dry-run", action="store_true", help="print the commands and exit")
    args = parser.parse_args(argv)
    if args.cluster is not None and args.workers is not None:
        raise UserError("--workers and --cluster: drop one; a cluster has its own workers")
    args.workers = args.workers or 1
    if args.config is None:
        args.config = "" if args.base else "configs/sweep.yaml"
    return args


def make_pool(args: Any, jobs: Sequence[Job], lock: FileLock) -> Pool:
    """Return the pool that runs the points: processes here, or a cluster.

    Args:
        lock: of the sweep's folder; a cluster's commands end when it is released.

    Raises:
        UserError: the cluster can't be reached.
    """
    if args.cluster is not None:
        pool = ClusterPool(args.cluster, lock)
        log(f"{args.cluster}: {pool.n_threads()} points in parallel")
        return pool
    # cuda:1 is a number among all GPUs: with such a device no worker may be limited to one GPU.
    divide = args.workers > 1 and all(job.config.train.device in ("auto", "cuda") for job in jobs)
    return LocalPool(args.workers, visible_gpus() if divide else [])


def threads_per_run(workers: int) -> int:
    """Return a run's share of the cores, or fewer threads if OMP_NUM_THREADS says so.

    A single worker gets exactly OMP_NUM_THREADS, as train.py would without a sweep.
    """
    share = max(1, available_cores() // workers)
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # "4,2": nested levels
    if not given.isdecimal() or int(given) == 0:
        return share
    return min(int(given), share) if workers > 1 else int(given)


def check_out(out: Path) -> None:
    """Check that a sweep overwrites no file in the folder that a sweep did not write.

    Raises:
        UserError: it would.
    """
    results = out / "results.csv"
    own = results.exists() and read_bytes(results).startswith(b"point,")
    written = [results, *(path for name in PICTURES for path in out.glob(f"{name}.*"))]
    if not own and (others := [path for path in written if path.exists()]):
        raise UserError(f"{others[0]}: not written by a sweep; move it away, or name another --out")


def report_results(
    jobs: Sequence[Job], sweep: Sweep, ladder: ranking.Runs | None, plot_format: str
) -> dict[str, Any]:
    """Print the table and its verdict, write the plots, return the results for programs."""
    rows = [job.row() for job in jobs]
    groups = ranking.group_runs(rows, sweep.setting_names)
    steps = jobs[0].config.train.max_steps
    base = ranking.find_group(groups, BASE) if sweep.changes else next(iter(groups), None)
    label = base.label if base else None
    results = ranking.summary(groups, label, ladder, steps)
    record: dict[str, Any] = {"base": label, "results": results}
    if not sweep.changes:
        record["verdict"] = ranking.verdict(groups, len(rows))
    if not groups:  # no point is done
        return record
    if sweep.changes:
        print(ranking.changes_table(groups, BASE))
    else:
        print(*filter(None, [ranking.ranking_table(groups), record["verdict"]]), sep="\n")
    if ladder is not None:
        print(worth_table(results, steps))
    with warn_if_not_drawn():
        import_matplotlib()
        from scripts.sweep.plots import plot_all  # loads Matplotlib

        out = jobs[0].run.path.parent
        if pictures := plot_all(rows, sweep.setting_names, groups, out, plot_format):
            log(f"plots: {' '.join(map(str, pictures))}")
    return record


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sweep to its end; return 1 if a point failed, or the exit status after a signal."""
    args = arguments(argv)
    given = {key: value for key, value in vars(args).items() if key in (*PARTS, *SWEEP_KEYS)}
    # The flag --config names the sweep's file. The key `config` in that file is the flag --base.
    sweep = load_sweep(args.config, Config, given | {"config": args.base})
    source = args.config or args.base
    prefix = "sweep-" if args.base else ""  # runs/NAME would be the base's own run
    out = Path(sweep.out or f"runs/{prefix}{Path(source).stem}")
    # One thread per run on a cluster: a result must not depend on the worker that computes it.
    threads = 1 if args.cluster is not None else threads_per_run(args.workers)
    jobs = make_jobs(sweep, source, out, threads)
    varied = [] if sweep.changes else sweep.setting_names  # of a grid, which has no base
    ladder = read_ladder(args.ladder, jobs[0].config, varied) if args.ladder else None
    if len(sweep.combinations()) < sweep.n_combinations:
        log(f"{source}: the ranges have no more than {len(sweep.combinations())} combinations")
    if args.dry_run:
        for job in jobs:
            print(f"{job.status}: {' '.join(map(shell_quote, job.command(sweep.config)))}")
        return 0
    check_out(out)
    lock = FileLock(out / "lock", timeout=LOCK_TIMEOUT_S, thread_local=False)
    pool = make_pool(args, jobs, lock)
    data = {job.row().get("data") for job in jobs} - {None}
    for job in jobs:  # before any run: data errors appear here, and points share the prepared data
        # With init_from, train.py prepares it, which needs the tokenizer of the pretrained model.
        if job.status != "done" and not job.config.train.init_from:
            folder = job.config.data.dir or prepare(job.config.data, job.config.model.vocab_size)
            data.add(read_meta(Path(folder))["identity"])
    if ladder and data:
        ladder = [run for run in ladder if run.data in data]
    (out / "logs").mkdir(parents=True, exist_ok=True)
    # After prepare, whose child processes would inherit the lock.
    acquire(lock, f"{out}: another sweep is running here; wait for it or stop it")

    def save() -> None:
        write_atomic(out / "results.csv", to_csv([job.row() for job in jobs], sweep.setting_names))

    save()
    if any(job.status != "done" for job in jobs):
        groups = ranking.group_runs([job.row() for job in jobs], sweep.setting_names)
        log(ranking.describe_power(groups, ladder or (), args.detect))
        parallel = pool.n_threads() if isinstance(pool, ClusterPool) else args.workers
        log(describe_duration(jobs, parallel))
    status = run_jobs(jobs, pool, sweep.config, save)
    record = report_results(jobs, sweep, ladder, args.plot_format)
    failed = [job.point.name for job in jobs if job.status == "failed"]
    if failed:
        log(f"{len(failed)} of {len(jobs)} points failed: {' '.join(failed)}")
    n_done = sum(job.status == "done" for job in jobs)
    log(f"{out / 'results.csv'}: {n_done} of {len(jobs)} done")
    counts = {"points": len(jobs), "done": n_done, "failed": len(failed)}
    print(json_line({"sweep": str(out), **counts, **record}))
    if status and any(job.status != "done" for job in jobs):
        words = sys.argv[1:] if argv is None else argv
        command = " ".join(["python -m scripts.sweep", *map(shell_quote, words)])
        log(f"stopped; the same command continues: `{command}`")
    return status or (1 if failed else 0)


if __name__ == "__main__":
    run_cli(main)
