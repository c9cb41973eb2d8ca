"""The flags for sampling parameters, shared by all commands that sample."""

from argparse import Namespace

from model.sampling.sampler import SamplingParams
from utils.cli import Parser
from utils.errors import UserError


def add_sampling_flags(parser: Parser) -> None:
    """Add a flag for each field of `SamplingParams`. The defaults leave the distribution as is."""
    add, default = parser.add_argument, "(default: %(default)s)"
    add("--temperature", "--temp", type=float, default=1.0, help=f"0 = most likely token {default}")
    add("--top-k", type=int, default=0, help=f"keep the k most likely tokens; 0 = all {default}")
    top_p = "keep the smallest set of most likely tokens with total probability p; 1 = all"
    add("--top-p", type=float, default=1.0, help=f"{top_p} {default}")
    min_p = "keep tokens at least p times as likely as the most likely one; 0 = all"
    add("--min-p", type=float, default=0.0, help=f"{min_p} {default}")
    penalty = "above 1, tokens that occur in the context become less likely; 1 = off"
    add("--repetition-penalty", type=float, default=1.0, help=f"{penalty} {default}")


def sampling_params(args: Namespace) -> SamplingParams:
    """Return the sampling parameters that the flags set.

    Raises:
        UserError: a value is out of range; the message names the flag.
    """
    try:
        return SamplingParams(
            args.temperature, args.top_k or None, args.top_p, args.min_p, args.repetition_penalty
        )
    except ValueError as error:  # "FIELD must be ..."
        name, _, problem = str(error).partition(" ")
        raise UserError(f"--{name.replace('_', '-')}: {problem}") from None
