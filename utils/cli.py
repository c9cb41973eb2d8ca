"""Command lines: argparse with one-line errors, no abbreviations, and both spellings of a flag."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from utils.errors import UserError
from utils.suggest import nearest

T = TypeVar("T")


def checked(kind: Callable[[str], T], words: str, holds: Callable[[T], bool]) -> Callable[[str], T]:
    """A type for `add_argument` whose values must satisfy a condition.

    >>> share = checked(float, "from 0 to 1", lambda value: 0 <= value <= 1)
    >>> share("0.5")
    0.5
    >>> share("2")
    Traceback (most recent call last):
    argparse.ArgumentTypeError: must be from 0 to 1, got 2.0

    Args:
        words: the condition, as the message says it after "must be".
    """

    def convert(text: str) -> T:
        value = kind(text)
        if not holds(value):
            raise argparse.ArgumentTypeError(f"must be {words}, got {value!r}")
        return value

    convert.__name__ = kind.__name__  # argparse's word for text that is not of this type
    return convert


positive_int = checked(int, "at least 1", lambda value: value >= 1)
natural_int = checked(int, "at least 0", lambda value: value >= 0)
some_text = checked(str, "some text", bool)


class StoreOnce(argparse._StoreAction):
    """A flag that may be given once: of two values one would be ignored."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Stores the value.

        Raises:
            UserError: the flag stands there a second time.
        """
        assert isinstance(parser, Parser)
        if option_string and self.dest in parser._given:
            parser.error(f"{option_string}: given twice; give it once")
        parser._given.add(self.dest)
        super().__call__(parser, namespace, values, option_string)


class Parser(argparse.ArgumentParser):
    """ArgumentParser whose mistakes are UserErrors, and that takes --val-size as --val_size too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)
        self.register("action", None, StoreOnce)
        self._given: set[str] = set()  # destinations of the flags parsed so far

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
        words = list(sys.argv[1:] if args is None else args)
        try:
            parsed, unknown = self.parse_known_args(words, namespace)
        except UserError:
            # Its value, taken for a sub-command, or the flag meant and missing, may be what failed.
            known = flags_of(self)
            spellings = {flag.replace("_", "-") for flag in known}
            for word in words[: words.index("--") if "--" in words else None]:
                flag = word.partition("=")[0]
                if flag.startswith("--") and flag.replace("_", "-") not in spellings:
                    self.error(unknown_flag(flag, known))
            raise
        if unknown:
            self.error(unknown_flag(unknown[0], flags_of(self, parsed)))
        return parsed

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does it; every flag may stand there once."""
        self._given = set()
        return super().parse_known_args(args, namespace)

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


def flags_of(
    parser: argparse.ArgumentParser, parsed: argparse.Namespace | None = None
) -> list[str]:
    """Every long flag of the parser and of the sub-command that was chosen (or of all of them)."""
    flags = [flag for flag in parser._option_string_actions if flag.startswith("--")]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                if parsed is None or getattr(parsed, action.dest, None) == name:
                    flags += flags_of(command, parsed)
    return flags


def unknown_flag(given: str, known: Sequence[str]) -> str:
    """The message for a flag that does not exist.

    >>> unknown_flag("--out_dri", ["--out_dir", "--seed"])
    'unknown argument --out_dri (did you mean --out_dir?)'
    """
    flag = given.partition("=")[0]
    near = nearest(flag.lstrip("-"), [other[2:] for other in known])
    return f"unknown argument {flag}" + (f" (did you mean --{near}?)" if near else "")
