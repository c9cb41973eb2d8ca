"""Command lines in the docs: split them into programs, and check their flags and targets."""

from __future__ import annotations

import ast
import codeop
import contextlib
import importlib
import io
import re
import shlex
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_program
from tests.helpers.repo import MAKEFILE, TARGETS

# Programs and modules of Python whose flags are not checked.
OTHERS = {"echo", "pip", "uv", "dask", "llama-completion", "git", "."}
UNCHECKED = {"venv", "pip"}
OPERATORS = {"|", "&&", "||", ";", "&"}
VARIABLES = set(re.findall(r"^([A-Z]+) +\?=", MAKEFILE, re.MULTILINE))
Flags = Callable[[tuple[str, ...]], set[str]]


def shell_commands(text: str) -> list[str]:
    """The commands in the ```sh blocks of a text, with continued lines joined."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if shlex.split(line, comments=True)]


def indented_commands(path: Path) -> list[str]:
    """The commands of a page: its ```sh blocks, and indented lines that start with a program."""
    text = path.read_text(encoding="utf-8")
    return shell_commands(text) + re.findall(r"^ {4}((?:python|make|torchrun) .*)$", text, re.M)


def check_typed(block: str) -> None:
    """Raise SyntaxError if an interactive Python refuses the lines of a block, typed one by one.

    It needs an empty line after an indented block.

    >>> check_typed("if 1:\\n    x = 2\\n\\ny = 3")
    >>> check_typed("if 1:\\n    x = 2\\ny = 3")
    Traceback (most recent call last):
    SyntaxError: invalid syntax
    """
    lines = list[str]()
    for line in [*block.splitlines(), ""]:
        lines.append(line)
        if codeop.compile_command("\n".join(lines)):
            lines.clear()
    assert "".join(lines) == ""


def help_examples() -> list[str]:
    """The examples in the help texts of scripts/."""
    return [
        example
        for path in ROOT.glob("scripts/**/*.py")
        for node in ast.parse(path.read_bytes()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXAMPLES"
        for example in ast.literal_eval(node.value)
    ]


def programs_of(line: str) -> list[list[str]]:
    """The words of each program in a command line; redirections are dropped.

    >>> programs_of('echo "a | b" | python x.py > out && . env/activate # and so on')
    [['echo', 'a | b'], ['python', 'x.py'], ['.', 'env/activate']]
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    programs: list[list[str]] = [[]]
    words = iter(lexer)
    for word in words:
        if word in OPERATORS:
            programs.append([])
        elif word in {">", ">>", "<", "2>"}:
            next(words)
        else:
            programs[-1].append(word)
    return programs


def flags_in(words: list[str]) -> set[str]:
    """The long flags among words, with dashes for underscores and without values.

    >>> sorted(flags_in(["--top_k", "5", "--optim.lr=1e-3", "-n", "--"]))
    ['--optim.lr', '--top-k']
    """
    found = (re.match(r"--[a-z][\w.-]*", word) for word in words)
    return {match.group().replace("_", "-") for match in found if match}


def help_text(program: tuple[str, ...]) -> str:
    """The help of a Python program. This repository's are called, because starting takes long."""
    name, *words = program[1:] if program[0] == "-m" else [program[0].removesuffix(".py")]
    if any((ROOT / name.split(".")[0]).with_suffix(suffix).exists() for suffix in ("", ".py")):
        package = (ROOT / name.replace(".", "/")).is_dir()
        module = importlib.import_module(f"{name}.__main__" if package else name)
        if hasattr(module, "main"):
            with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as end:
                module.main([*words, "--help"])
            assert not end.value.code, program
            return out.getvalue()
    done = run_program([sys.executable, *program, "--help"])
    assert done.returncode == 0, f"{program}: {done.stderr}"
    return done.stdout


@cache
def flags_of(program: tuple[str, ...]) -> set[str]:
    """The long flags in the help of a Python program."""
    without_examples = help_text(program).partition("\nexamples:")[0]
    return flags_in(re.split(r"[\s,=\[\]()|]+", without_examples))


def mistakes(line: str, flags_of: Flags = flags_of) -> list[str]:
    """The errors in a command line: programs, targets, variables and flags that do not exist."""
    found = []
    for words in programs_of(line):
        if words[0] == "make":
            found += make_mistakes(words[1:], flags_of)
        elif words[0] == "torchrun":
            script = next(n for n, word in enumerate(words) if word.endswith(".py"))
            launcher = ("-m", "torch.distributed.run")
            found += unknown(launcher, words[1:script], flags_of)
            found += python_mistakes(words[script:], flags_of)
        elif words[0] in {"python", "python3"}:
            found += python_mistakes(words[1:], flags_of)
        elif words[0] not in OTHERS:
            found.append(f"unknown program {words[0]}")
    return found


def python_mistakes(words: list[str], flags_of: Flags) -> list[str]:
    """The errors in `-m MODULE ...` or `FILE.py ...`."""
    if words[0] == "-c":
        return []
    n = 2 if words[0] == "-m" else 1
    if words[n - 1] in UNCHECKED:
        return []
    if words[n - 1] != "pytest":
        name = words[1].replace(".", "/") if n == 2 else words[0].removesuffix(".py")
        ends = (".py", "/__main__.py")
        if not any((ROOT / f"{name}{end}").is_file() for end in ends):
            return [f"no program {words[n - 1]}"]
    if words[n:] and re.fullmatch("[a-z]+", words[n]):  # a sub-command
        n += 1
    return unknown(tuple(words[:n]), words[n:], flags_of)


def make_mistakes(words: list[str], flags_of: Flags) -> list[str]:
    """The errors in `make TARGET... NAME=VALUE...`; ARGS are flags of the program it starts."""
    values = dict(word.split("=", 1) for word in words if re.match("[A-Z]+=", word))
    targets = [word for word in words if not re.match("[A-Z]+=", word)]
    found = [f"no target {word}" for word in targets if word not in TARGETS]
    found += [f"no variable {name}" for name in values if name not in VARIABLES]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    for name in values.get("EXTRAS", "").split():
        if f"\n{name.lower()}==" not in pins:
            found.append(f"EXTRAS: {name} is not in constraints.txt")
    for target in targets if "ARGS" in values and not found else ():
        program = program_of(target)
        given = shlex.split(values["ARGS"])
        found += unknown(program, given, flags_of) if program else [f"{target} takes no ARGS"]
    return found


def program_of(target: str) -> tuple[str, ...]:
    """The Python program that receives the ARGS of a target; () if there is none.

    >>> program_of("train"), program_of("bench"), program_of("clean")
    (('train.py',), ('-m', 'scripts.bench', 'train'), ())
    """
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)*)", MAKEFILE, re.MULTILINE)
    text = recipe.group(1) if recipe else ""
    lines = re.findall(r"\$\(PY\) (.*) \$\(ARGS\)$", text, re.MULTILINE)
    words = re.match(r"(?:-m )?\S+(?: [a-z]+\b)?", lines[0]) if lines else None
    return tuple(words.group().split()) if words else ()


def unknown(program: tuple[str, ...], words: list[str], flags_of: Flags) -> list[str]:
    """The flags among `words` that a program does not have."""
    known = flags_of(program) if flags_in(words) else set()
    return [f"{' '.join(program)}: no flag {flag}" for flag in sorted(flags_in(words) - known)]
