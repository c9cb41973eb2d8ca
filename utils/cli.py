"""Command lines: argparse with one-line errors, no abbreviations, and both spellings of a flag."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from utils.errors import UserError


class Parser(argparse.ArgumentParser):
    """ArgumentParser whose mistakes are UserErrors, and that takes --val-size as --val_size too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raises UserError instead of printing the usage.

        Raises:
            UserError: always.
        """
        raise UserError(f"{message} (see {self.prog} --help)")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parses, and names the nearest flag for one that does not exist.

        Raises:
            UserError: unknown flag, missing or malformed value.
        """
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(unknown_flag(unknown[0], flags_of(self, parsed)))
        return parsed

    def _parse_optional(self, arg_string: str) -> Any:
        return super()._parse_optional(self._known_spelling(arg_string))

    def _known_spelling(self, arg: str) -> str:
        """Turns the other spelling of a known flag (dashes for underscores) into the known one."""
        flag, equals, value = arg.partition("=")
        if not flag.startswith("--") or flag in self._option_string_actions:
            return arg
        for known in self._option_string_actions:
            if known.replace("_", "-") == flag.replace("_", "-"):
                return known + equals + value
        return arg


def flags_of(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> list[str]:
    """Every long flag that the parser, and the sub-command that was chosen, would take."""
    flags = [flag for flag in parser._option_string_actions if flag.startswith("--")]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            chosen = action.choices.get(getattr(parsed, action.dest, ""))
            flags += flags_of(chosen, parsed) if chosen else []
    return flags


def unknown_flag(given: str, known: Sequence[str]) -> str:
    """The message for a flag that does not exist.

    >>> unknown_flag("--out_dri", ["--out_dir", "--seed"])
    'unknown argument --out_dri (did you mean --out_dir?)'
    """
    flag = given.partition("=")[0]
    near = difflib.get_close_matches(flag, known, n=1)
    return f"unknown argument {flag}" + (f" (did you mean {near[0]}?)" if near else "")
