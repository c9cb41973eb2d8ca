"""The flags that say how an id is drawn, for all commands that sample."""

from __future__ import annotations

from argparse import Namespace

from model.sampling.sampler import SamplingParams
from utils.cli import Parser
from utils.errors import UserError


def add_sampling_flags(parser: Parser) -> None:
    """Adds a flag for each field of `SamplingParams`; the defaults draw from the model's distribution."""
    add = parser.add_argument
    add("--temp", type=float, default=1.0, help="temperature; 0 = the likeliest token")
    add("--top-k", type=int, default=0, help="keep the k likeliest tokens; 0 = all")
    add("--top-p", type=float, default=1.0, help="keep the smallest set that reaches p; 1 = all")
    add(
        "--min-p",
        type=float,
        default=0.0,
        help="keep tokens at least p times as likely as the likeliest; 0 = all",
    )
    add(
        "--repetition-penalty",
        type=float,
        default=1.0,
        help="above 1, what stands there already is less likely to come again; 1 = none",
    )


def sampling_params(args: Namespace) -> SamplingParams:
    """The sampling parameters that the flags set.

    Raises:
        UserError: a value is out of range; names the flag.
    """
    try:
        return SamplingParams(
            args.temp, args.top_k or None, args.top_p, args.min_p, args.repetition_penalty
        )
    except ValueError as error:
        name, _, problem = str(error).partition(" ")
        flag = "temp" if name == "temperature" else name.replace("_", "-")
        raise UserError(f"--{flag}: {problem}") from None
