"""One flag for each setting: `--model.n_layer 6`."""

from __future__ import annotations

import argparse
import typing

from utils.config.load import format_value
from utils.config.schema import describe, flat_fields


def add_flags(parser: argparse.ArgumentParser, cls: type) -> None:
    """Adds a flag for every setting below the dataclass `cls`; only those given are parsed."""
    group = parser.add_argument_group("settings")
    for name, (kind, field) in flat_fields(cls).items():
        text = f"{describe(field.metadata)}; default {format_value(field.default)}".replace(
            "%", "%%"
        )
        group.add_argument(
            f"--{name}",
            dest=name,
            default=argparse.SUPPRESS,
            metavar="X",
            help=text,
            nargs="+" if typing.get_origin(kind) is tuple else None,
        )


def given_flags(args: argparse.Namespace, cls: type) -> dict[str, str | list[str]]:
    """Dotted name -> words of the settings that stand on the command line."""
    known = flat_fields(cls)
    return {name: value for name, value in vars(args).items() if name in known}
