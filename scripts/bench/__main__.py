"""Run a benchmark on this machine: `python -m scripts.bench NAME ... [--json [FILE]]`.

The measured figures are printed to stdout. With --json they are printed to stderr, and stdout is
one JSON object. With --json FILE the JSON object is written to the file instead.
"""

import os
import sys

if __name__ == "__main__":  # before the slow imports
    sys.path.insert(0, os.path.realpath(f"{__file__}/../../.."))  # for `python scripts/bench`
    from utils.signals import before_slow_imports

    before_slow_imports()

from collections.abc import Sequence
from importlib import import_module

from utils.cli import Parser
from utils.errors import run_cli
from utils.files import check_writable, write_atomic
from utils.output import json_line

# A module is imported only for its own command: the tokenizer benchmark must not load torch.
COMMANDS = {
    "train": "scripts.bench.train",
    "sample": "scripts.bench.sample",
    "tokenizer": "scripts.bench.tokenizer.command",
    "race": "scripts.bench.race.command",
}
STDOUT = "-"
EXAMPLES = (
    "python -m scripts.bench train --config configs/tiny.yaml",
    "python -m scripts.bench sample --run runs/tiny --json sample.json",
    "python -m scripts.bench race --help",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark and print its figures."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(prog="scripts.bench", description=__doc__, examples=EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))
    for name in [name for name in COMMANDS if name in words[:1]] or COMMANDS:
        import_module(COMMANDS[name]).add_command(commands)
    for command in commands.choices.values():
        about = "write the figures as one JSON object to FILE; without FILE, to stdout"
        command.add_argument("--json", nargs="?", const=STDOUT, metavar="FILE", help=about)
    args = parser.parse_args(words)
    if args.json not in (None, STDOUT):
        check_writable(args.json, "--json")
    record = args.measure(args)  # `measure` and `show` are set by the module's add_command
    line = json_line({"command": args.command, **record})
    print(args.show(record), file=sys.stderr if args.json == STDOUT else sys.stdout)
    if args.json == STDOUT:
        print(line)
    elif args.json:
        write_atomic(args.json, f"{line}\n".encode())
    return 0


if __name__ == "__main__":
    run_cli(main)
