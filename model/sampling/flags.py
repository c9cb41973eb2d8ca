"""The flags for sampling parameters, shared by all commands that sample."""

from __future__ import annotations

from argparse import Namespace

from model.sampling.sampler import SamplingParams
from utils.cli import Parser
from utils.errors import UserError


def add_sampling_flags(parser: Parser) -> None:
    """Add a flag for each field of `SamplingParams`; the defaults leave the distribution as is."""
    add = parser.add_argument
    add(
        "--temp",
        type=float,
        default=1.0,
        help="temperature; 0 = always the most likely token (default: %(default)s)",
    )
    add(
        "--top-k",
        type=int,
        default=0,
        help="keep the k most likely tokens; 0 = all (default: %(default)s)",
    )
    add(
        "--top-p",
        type=float,
        default=1.0,
        help="keep the smallest set of most likely tokens whose probabilities reach p; 1 = all "
        "(default: %(default)s)",
    )
    add(
        "--min-p",
        type=float,
        default=0.0,
        help="keep tokens at least p times as likely as the most likely one; 0 = all "
        "(default: %(default)s)",
    )
    add(
        "--repetition-penalty",
        type=float,
        default=1.0,
        help="above 1, tokens of the context become less likely; 1 = off (default: %(default)s)",
    )


def sampling_params(args: Namespace) -> SamplingParams:
    """Return the sampling parameters that the flags set.

    Raises:
        UserError: a value is out of range; the message names the flag.
    """
    try:
        return SamplingParams(
            args.temp, args.top_k or None, args.top_p, args.min_p, args.repetition_penalty
        )
    except ValueError as error:
        name, _, problem = str(error).partition(" ")
        flag = "temp" if name == "temperature" else name.replace("_", "-")
        raise UserError(f"--{flag}: {problem}") from None
