"""One flag for each setting: `--model.n_layer 6`."""

import argparse
import typing
from collections.abc import Mapping
from typing import Any

from utils.cli import METAVARS, SettingAction
from utils.config.load import format_value
from utils.config.schema import describe, flat_fields


def add_flags(parser: argparse.ArgumentParser, cls: type) -> None:
    """Add a flag for every setting of the dataclass `cls`. Flags that are not given stay unset.

    `--help` lists them by section: a group for run_dir, then one for model.*, data.*, and so on.
    """
    groups: dict[str, Any] = {}
    for name, (kind, field) in flat_fields(cls).items():
        section = name.rpartition(".")[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(f"{section} settings".strip())
        text = describe({**field.metadata, "choices": None})  # the metavar lists the choices
        groups[section].add_argument(
            f"--{name}",
            action=SettingAction,
            dest=name,
            default=argparse.SUPPRESS,
            metavar=metavar(kind, field.metadata),
            help=f"{text}; default {format_value(field.default)}".replace("%", "%%"),
            nargs="+" if typing.get_origin(kind) is tuple else None,
        )


def metavar(kind: Any, metadata: Mapping[str, Any]) -> str:
    """Return the placeholder of a setting's value in `--help`: its choices, or its type.

    >>> metavar(tuple[float, float], {}), metavar(str, {"choices": ("gpt2", "cl100k")})
    ('FLOAT', '{gpt2,cl100k}')
    """
    if metadata.get("choices"):
        return "{" + ",".join(metadata["choices"]) + "}"
    arguments = [one for one in typing.get_args(kind) if one not in (type(None), Ellipsis)]
    kind = arguments[0] if arguments else kind  # X | None, or a list of X: X
    return METAVARS[kind.__name__]


def given_flags(args: argparse.Namespace, cls: type) -> dict[str, str | list[str]]:
    """Return the settings given on the command line: dotted name -> its words."""
    fields = flat_fields(cls)
    return {name: value for name, value in vars(args).items() if name in fields}
