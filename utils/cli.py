"""Command-line parser: argparse with one-line errors, both spellings of a flag, and examples."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from utils.errors import UserError
from utils.suggest import flag_for_stray, leaf_of, nearest

T = TypeVar("T")
PATH_METAVARS = ("FILE", "FOLDER", "PATH")  # of arguments that hold a path
# Placeholder of a value in --help, by the name of its type.
METAVARS = {"int": "INT", "float": "FLOAT", "bool": "BOOL", "str": "TEXT", "Path": "PATH"}


def checked(kind: Callable[[str], T], words: str, holds: Callable[[T], bool]) -> Callable[[str], T]:
    """Return a type for `add_argument` that refuses values outside a condition.

    >>> share = checked(float, "from 0 to 1", lambda value: 0 <= value <= 1)
    >>> share("0.5")
    0.5
    >>> share("2")
    Traceback (most recent call last):
    argparse.ArgumentTypeError: must be from 0 to 1, got 2.0

    Args:
        kind: converts the text of the argument.
        words: the condition in words; the message puts them after "must be".
        holds: the condition.
    """

    def convert(text: str) -> T:
        value = kind(text)
        if not holds(value):
            raise argparse.ArgumentTypeError(f"must be {words}, got {value!r}")
        return value

    convert.__name__ = kind.__name__  # argparse prints it: "invalid int value"
    return convert


positive_int = checked(int, "at least 1", lambda value: value >= 1)
positive_float = checked(float, "above 0", lambda value: value > 0)
nonnegative_int = checked(int, "at least 0", lambda value: value >= 0)
nonempty_text = checked(str, "some text", bool)


class StoreOnce(argparse._StoreAction):
    """Action of a flag that may be given once. argparse would ignore the first of two values."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store the value.

        Raises:
            UserError: the flag is given a second time.
        """
        assert isinstance(parser, Parser)
        if option_string and self.dest in parser._given:  # None: a positional argument
            parser.error(f"{option_string}: given twice; give it once")
        parser._given.add(self.dest)
        super().__call__(parser, namespace, values, option_string)


class SettingAction(StoreOnce):
    """Action of a setting's flag, as --train.seed. The usage shows one entry for all of them."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Formatter that names the value of a flag by its type: `--seed INT`, not `--seed SEED`."""

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        name = getattr(action.type, "__name__", "")
        return METAVARS.get(name) or super()._get_default_metavar_for_optional(action)


class Parser(argparse.ArgumentParser):
    """ArgumentParser that raises UserError and accepts --val-size for --val_size as well.

    Its help starts with the description and ends with the examples.

    Args:
        examples: two or three complete command lines; each may hold a comment after `#`.
        kwargs: as for ArgumentParser.
    """

    def __init__(self, *, examples: Sequence[str] = (), **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", HelpFormatter)
        super().__init__(**kwargs)
        self.register("action", None, StoreOnce)  # None: arguments that name no action
        self.examples = examples
        self._given: set[str] = set()  # destinations of the flags parsed so far

    def format_help(self) -> str:
        """Return the help: description, usage, arguments by group, examples."""
        formatter = self._get_formatter()
        formatter.add_text(self.description)
        actions = [one for one in self._actions if not isinstance(one, SettingAction)]
        if len(actions) < len(self._actions):
            actions.append(argparse.Action(["--SECTION.SETTING"], dest="setting", metavar="VALUE"))
        formatter.add_usage(self.usage, actions, self._mutually_exclusive_groups)
        for group in self._action_groups:
            formatter.start_section(group.title)
            formatter.add_text(group.description)
            formatter.add_arguments(group._group_actions)
            formatter.end_section()
        if self.examples:
            formatter.add_text("\n".join(["examples:", *(f"  {line}" for line in self.examples)]))
        return formatter.format_help()

    def error(self, message: str) -> NoReturn:
        """Raise UserError instead of printing the usage.

        Raises:
            UserError: always.
        """
        raise UserError(f"{message} (see {self.prog} --help)")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse the arguments; for an unknown flag, suggest the nearest known one.

        Raises:
            UserError: unknown flag, missing or malformed value.
        """
        words = list(sys.argv[1:] if args is None else args)
        try:
            parsed, unknown = self.parse_known_args(words, namespace)
        except UserError:
            # An unknown flag can be the cause: its value was parsed as a sub-command, or the
            # required flag that was meant is missing.
            flags = long_flags(self)
            spellings = {flag.replace("_", "-") for flag in flags}
            for word in words[: words.index("--") if "--" in words else None]:
                flag = word.partition("=")[0]
                if flag.startswith("--") and flag.replace("_", "-") not in spellings:
                    self._error_unknown(flag, flags)
            raise
        if unknown:
            flags, stray = long_flags(self, parsed), [one for one in unknown if one[:1] != "-"]
            if unknown[0] in stray and (meant := flag_for_stray(stray, flags)):
                self.error(f"unknown argument {unknown[0]} (did you mean {meant}?)")
            self._error_unknown(unknown[0], flags)
        return parsed

    def _error_unknown(self, flag: str, flags: Sequence[str]) -> NoReturn:
        leaf = leaf_of(flag.partition("=")[0].lstrip("-"))
        if any(leaf == one.dest for one in self._actions if not one.option_strings):
            self.error(f"unknown argument {flag}: name the {leaf} without a flag")
        self.error(unknown_flag(flag, flags))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does; a flag of an earlier call may be given again."""
        self._given = set()
        return super().parse_known_args(args, namespace)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """Return the value of an argument; in a path, ~ is the home folder.

        Raises:
            UserError: the path is empty, as `--out "$VARIABLE"` gives if the variable is not set.
        """
        if str(action.metavar).startswith(PATH_METAVARS):
            name = "/".join(action.option_strings) or action.dest
            if not arg_string and "" not in (action.default, action.const):
                self.error(f"{name}: an empty path; name a {str(action.metavar).lower()}")
            arg_string = expand_home(arg_string, name)
        return super()._get_value(action, arg_string)

    def _match_argument(self, action: argparse.Action, arg_strings_pattern: str) -> int:
        """Return how many words belong to an argument; if too few, say what is missing."""
        try:
            return super()._match_argument(action, arg_strings_pattern)
        except argparse.ArgumentError as error:
            formatter = self._get_formatter()
            about = formatter._expand_help(action) if action.help else ""
            if arg_strings_pattern[:1] == "O":  # the next word is taken for a flag
                about += f"; if the value begins with -, write {action.option_strings[-1]}=VALUE"
            raise argparse.ArgumentError(action, f"{error.message}: {about}".strip(": ")) from None

    def _parse_optional(self, arg_string: str) -> Any:
        return super()._parse_optional(self._known_spelling(arg_string))

    def _known_spelling(self, arg: str) -> str:
        """Return `arg` with its flag as it was defined: dashes and underscores are equal."""
        flag, equals, value = arg.partition("=")
        if not flag.startswith("--") or flag in self._option_string_actions:
            return arg
        for defined in self._option_string_actions:
            if defined.replace("_", "-") == flag.replace("_", "-"):
                return defined + equals + value
        return arg


def long_flags(
    parser: argparse.ArgumentParser, parsed: argparse.Namespace | None = None
) -> list[str]:
    """Return a parser's long flags, and those of the sub-command in `parsed` (None: of all)."""
    flags = [flag for flag in parser._option_string_actions if flag.startswith("--")]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                if parsed is None or getattr(parsed, action.dest, None) == name:
                    flags += long_flags(command, parsed)
    return flags


def unknown_flag(given: str, flags: Sequence[str]) -> str:
    """Return the message for a flag that does not exist.

    >>> unknown_flag("--out_dri", ["--out_dir", "--seed"])
    'unknown argument --out_dri (did you mean --out_dir?)'
    """
    flag, _, value = given.partition("=")
    if "." in flag and "--set" in flags:  # a sweep takes settings by --set
        return f"unknown argument {flag} (did you mean --set {flag[2:]}={value or 'VALUE'}?)"
    near = nearest(flag.lstrip("-"), [other[2:] for other in flags])
    return f"unknown argument {flag}" + (f" (did you mean --{near}?)" if near else "")


def read_stdin() -> bytes:
    """Return all of standard input.

    Raises:
        UserError: standard input is closed (`<&-`).
    """
    if sys.stdin is None:
        raise UserError("standard input: closed; give it a file or a pipe")
    return sys.stdin.buffer.read()


def expand_home(path: str, name: str) -> str:
    """Return a path with `~` or `~user` at its start replaced by the home folder.

    A shell does so only at the start of a word: not in YAML, nor in `--flag=~/x`.

    Args:
        name: the flag or setting that holds the path, for the message.

    Raises:
        UserError: there is no such user, and no file of which `path` is the literal name.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~") and not os.path.lexists(expanded):
        raise UserError(
            f"{name}: {path}: no home folder is known for {path.split('/')[0]}; write ./{path} for "
            "a name that begins with ~"
        )
    return expanded
