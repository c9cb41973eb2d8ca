"""Generate stories, check them, and print their entropy floor and statistics."""

if __name__ == "__main__":  # before the slow imports
    from utils.signals import before_slow_imports

    before_slow_imports()

import contextlib
import json
import math
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.stories import plots, story
from utils.cli import Parser, checked, nonnegative_int
from utils.errors import UserError, run_cli
from utils.files import atomic_file

EXAMPLES = (
    "python -m data.stories --bytes 195000 --seed 1 --out data/tiny.txt",
    "python -m data.stories --floor     # of the grammar",
    "python -m data.stories --check data/tiny.txt",
)


def check(path: str | Path) -> dict[str, Any]:
    """Return how many stories of a file the grammar accepts, and where it rejects the others.

    Stories are numbered from 0.
    """
    rejected = []
    stories = story.read_stories(path)
    for number, one in enumerate(stories):
        try:
            story.parse(one)
        except story.NotAStory as error:
            rejected.append({"story": number, "byte": error.position})
    return {"stories": len(stories), "accepted": len(stories) - len(rejected), "refused": rejected}


def stats(path: str | None, seed: int, n_stories: int) -> dict[str, Any]:
    """Return statistics of the grammar and of a sample of its stories, and the floor of a file."""
    made = story.sample_stories(seed, n_stories)
    pools = story.story_grammar().pools
    texts = [one.text for one in made]
    sizes, counts = [len(one) for one in texts], [len(one.choices) for one in made]
    statistics: dict[str, Any] = {
        "frames": sum(len(sentences) for sentences in plots.sentence_frames().values()),
        "names": len(pools["name"]),
        "things": len(pools["thing"]),
        "places": len(pools["place"]),
        "words": len({word for one in texts for word in re.findall(r"[a-z'-]+", one.lower())}),
        "sample_stories": n_stories,
        "bytes_per_story": {"min": min(sizes), "mean": mean(sizes), "max": max(sizes)},
        "choices_per_story": {"min": min(counts), "mean": mean(counts), "max": max(counts)},
        "bits_per_story": mean([one.bits for one in made]),
        "floor": as_json(floor_of_sample(made)),
    }
    if path is not None:
        statistics["file"] = {"path": path, **as_json(story.floor_of_file(path))}
    return statistics


def mean(values: Sequence[float]) -> float:
    """Return the mean, rounded to two decimals."""
    return round(math.fsum(values) / len(values), 2)


def floor_of_sample(stories: Sequence[story.Story]) -> story.Floor:
    """Return the floor of stories whose probabilities are known."""
    return story.floor_of([(len(one.text), -one.log_prob) for one in stories])


def as_json(floor: story.Floor) -> dict[str, Any]:
    """Return a floor in nats and bits per byte."""
    bits = {"bits_per_byte": floor.bits_per_byte, "bits_error": floor.standard_error / math.log(2)}
    return {**asdict(floor), **bits}


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(prog="python -m data.stories", description=__doc__, examples=EXAMPLES)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--bytes", type=int, help="write as many stories as fit into this many bytes")
    about = "print the entropy floor, the loss that no model can beat: of the grammar, or of the "
    about += "stories in FILE"
    task.add_argument("--floor", nargs="?", const="", metavar="FILE", help=about)
    task.add_argument("--check", metavar="FILE", help="print which stories the grammar rejects")
    about = "print statistics of the grammar; with FILE also the floor of the stories in it"
    task.add_argument("--stats", nargs="?", const="", metavar="FILE", help=about)
    about = "random seed of the stories (default: 0)"
    parser.add_argument("--seed", type=nonnegative_int, default=0, help=about)
    several = checked(int, "at least 2, to estimate a standard error", lambda value: value >= 2)
    about = "stories to sample for estimates (default: 20000)"
    parser.add_argument("--stories", type=several, default=20000, help=about)
    parser.add_argument("--out", metavar="FILE", help="file that --bytes writes (default: stdout)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Raises:
        UserError: a flag, value or file is wrong.
    """
    args = make_parser().parse_args(argv)
    if args.bytes is None and args.out is not None:
        raise UserError("--out is valid only with --bytes; redirect other output with > FILE")
    if args.bytes is not None:
        write(args.bytes, args.seed, args.out)
    elif args.check is not None:
        print(json.dumps(check(args.check)))
    elif args.stats is not None:
        print(json.dumps(stats(args.stats or None, args.seed, args.stories), indent=2))
    elif args.floor:  # --floor FILE
        print(json.dumps(as_json(story.floor_of_file(args.floor))))
    else:  # --floor without FILE: of the grammar, estimated from a sample
        print(json.dumps(as_json(floor_of_sample(story.sample_stories(args.seed, args.stories)))))


def write(n_bytes: int, seed: int, out: str | None) -> None:
    """Write stories to a file atomically, or to stdout as they are generated."""
    least = story.MAX_STORY_BYTES + 1
    if n_bytes < least:
        raise UserError(f"--bytes {n_bytes}: give at least {least}, room for a story")
    if out is not None and n_bytes > (free := shutil.disk_usage(Path(out).absolute().parent).free):
        raise UserError(f"--bytes {n_bytes}: the disk of {out} has {free} free bytes; give fewer")
    with contextlib.nullcontext(sys.stdout.buffer) if out is None else atomic_file(out) as file:
        before = ""
        for one in story.generate_stories(seed, n_bytes):
            file.write((before + one).encode("ascii"))
            before = story.SEPARATOR
        file.write(b"\n")


if __name__ == "__main__":
    run_cli(main)
