"""Export a run: `python -m scripts.export --run runs/mine --to hf --out exported/mine`.

    hf    a folder that transformers loads (AutoModelForCausalLM and AutoTokenizer)
    gguf  a folder with model.gguf, which llama.cpp runs

Each folder also contains a model card, README.md. The last line of stdout is one JSON object that
describes the folder.
"""

import os
import sys

if __name__ == "__main__":  # before the slow imports
    sys.path.insert(0, os.path.realpath(f"{__file__}/../../.."))  # for `python scripts/export`
    from utils.signals import before_slow_imports

    before_slow_imports()

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sample import add_run_flags, load_run
from scripts.export.exporters import EXPORTERS
from scripts.export.model_card import check_licence, model_card
from train import Config
from utils.cli import Parser
from utils.config.load import load
from utils.errors import errors_at, run_cli
from utils.files import atomic_folder, check_writable
from utils.output import json_line, log
from utils.run.folder import RunFolder

EXPORTABLE = "--config configs/text.yaml --data.files mytext.txt"
EXPORT_FIX = (
    "export a run of configs/text.yaml or of a known corpus's config, whose models other programs "
    "can represent"
)
EXAMPLES = (
    "python -m scripts.export --run runs/mine --out exported/mine  # a run of configs/text.yaml",
    "python -m scripts.export --run runs/mine --to gguf --out exported/mine-gguf --license mit",
)


def arguments(argv: Sequence[str] | None) -> Any:
    """Parse and check the command line.

    Raises:
        UserError: an argument is unknown, malformed or missing; the folder can't be made.
    """
    parser = Parser(prog="scripts.export", description=__doc__, examples=EXAMPLES)
    add = parser.add_argument
    add_run_flags(parser, with_device=False)
    about = "hf for transformers, gguf for llama.cpp (default: %(default)s)"
    add("--to", choices=EXPORTERS, default="hf", help=about)
    add("--out", required=True, metavar="FOLDER", help="a new or empty folder")
    add("--license", default="", metavar="ID", help="licence for the model card, such as mit")
    args = parser.parse_args(argv)
    check_licence(args.license)
    check_writable(args.out, "--out", "new folder")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Load the run, write the folder, and print its description as one JSON object."""
    args = arguments(argv)
    RunFolder(args.run).check_has_run(EXPORTABLE)
    loaded = load_run(args.run, args.checkpoint, "cpu")
    run, out = RunFolder(args.run), Path(args.out)
    config, _ = load(Config, [str(run.config)], {})
    name, exporter = out.absolute().name, EXPORTERS[args.to]
    with atomic_folder(out) as temporary:
        with errors_at(loaded.path, EXPORT_FIX):
            kind = exporter.write(temporary, loaded, name)  # its class or architecture
        card = model_card(loaded, run, config, exporter, name=name, kind=kind, licence=args.license)
        (temporary / "README.md").write_bytes(card)
    files = sorted(path.name for path in out.iterdir())
    log(f"{out}: {kind}, from {loaded.path}, step {loaded.state['step']}")
    print(json_line({"out": str(out), "kind": kind, "files": files}))
    return 0


if __name__ == "__main__":
    run_cli(main)
