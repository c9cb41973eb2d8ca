"""Suggestions: the nearest known name, another program's name, a path on a command line."""

import contextlib
import difflib
import json
import os
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

# Our name of a setting -> its names in other programs.
OTHER_NAMES = json.loads(Path(__file__).with_name("other_names.json").read_text(encoding="utf-8"))
SYNONYMS = [(other, ours) for ours, others in OTHER_NAMES.items() for other in others.split()]


def nearest(name: str, known: Collection[str]) -> str | None:
    """Return the nearest known dotted name, or None if none is near.

    Dashes count as underscores. A last part that matches exactly wins, in any section.

    >>> known = ["model.n_layer", "optim.lr", "optim.min_lr_ratio"]
    >>> names = ("model.n_layers", "n_layer", "optim.learning_rat", "lrr", "z")
    >>> [nearest(name, known) for name in names]
    ['model.n_layer', 'model.n_layer', 'optim.lr', 'optim.lr', None]
    """
    name = normalize(name)
    synonyms = {other: ours for other, ours in SYNONYMS if ours in known}
    leaves = {leaf_of(normalize(one)): one for one in known} | synonyms
    if leaf_of(name) in leaves:
        return leaves[leaf_of(name)]
    names = {normalize(one): one for one in known} | synonyms
    # Synonyms with a section, such as optim.learning_rate.
    names |= {f"{ours.rpartition('.')[0]}.{other}": ours for other, ours in synonyms.items()}
    completions = [one for one in names if one.startswith(name)]
    if len(completions) == 1:
        return names[completions[0]]
    if close := difflib.get_close_matches(name, names, n=1):
        return names[close[0]]
    close = difflib.get_close_matches(leaf_of(name), leaves, n=1, cutoff=0.75)
    return leaves[close[0]] if close else None


def nearest_path(path: str | Path, holding: str = "") -> Path | None:
    """Return an existing path that may be meant by one that is not usable, or None.

    It is in configs/ or runs/, or differs only in the first folder or file that does not exist.

    Args:
        holding: the returned path must be a folder that holds this file; empty = any path.
    """
    path = Path(path)
    for folder, suffix in (("configs", ""), ("configs", ".yaml"), ("runs", "")):
        near = Path(folder) / (path.name + suffix)
        if not path.is_absolute() and near != path and (near / holding).exists():
            return near
    missing = [part for part in (path, *path.parents) if not part.exists()]
    if not missing or not missing[-1].name:
        return None
    first, rest = missing[-1], path.relative_to(missing[-1])
    try:
        names = [other.name for other in first.parent.iterdir()]
    except OSError:
        return None
    close = difflib.get_close_matches(first.name, names, n=3)
    found = (first.parent / name / rest for name in close)
    return next((near for near in found if (near / holding).exists()), None)


def did_you_mean(path: str | Path, holding: str = "") -> str:
    """Return the end of a message about a missing path: often `; did you mean ...?`."""
    if str(path) == "-" and not holding:
        if not os.path.exists("/dev/stdin"):  # Windows
            return "; save it to a file, and name that"
        return "; for standard input, name /dev/stdin"
    if Path(path).parts[1:2] in (("dev",), ("proc",)) and Path(path).is_absolute():
        # Such as a pipe of bash, <(command): its number names another file in each process.
        return "; a pipe can't be read again: save its text to a file, and name that"
    near = nearest_path(path, holding)
    return f"; did you mean {near}?" if near else ""


def shell_quote(path: str | Path) -> str:
    r"""Return a path as one word of a command line; bytes that are not UTF-8 as bash writes them.

    >>> print(shell_quote("a b"), shell_quote("it's caf\udce9"))
    'a b' $'it\'s caf\xe9'
    """
    if os.name == "nt":  # cmd knows no single quotes, and no path holds a double one
        return f'"{path}"'
    raw = os.fsencode(path)
    with contextlib.suppress(UnicodeDecodeError):
        return shlex.quote(raw.decode())
    escaped = (f"\\x{byte:02x}" if byte > 126 or byte < 32 else chr(byte) for byte in raw)
    return "$'" + "".join("\\" + one if one in "\\'" else one for one in escaped) + "'"


def flag_for_stray(words: Sequence[str], flags: Collection[str]) -> str | None:
    """Return the flag, with its value, that may be missing before stray words; None if unknown.

    Args:
        words: arguments that no flag takes as its value.
        flags: those of the program; no other flag is returned.
    """
    word, path = words[0], Path(words[0])
    if word.lower().endswith((".yaml", ".yml")):
        names = ["--config"]
    elif (path / "run.json").exists() or (path.parent / "run.json").exists():
        names = ["--run", "--run_dir"]
        word = str(path if path.is_dir() else path.parent)
    elif path.exists():
        names = ["--data.files", "--text", "--prompt-file"]
    elif len(words) == 1 and len(path.parts) > 1 and not any(map(str.isspace, word)):
        # A path that does not exist. Its suffix shows what it may be.
        names = ["--run", "--run_dir"]
        if path.suffix == ".pt":
            word = str(path.parent)
        elif path.suffix[1:].isalpha():
            names = ["--data.files", "--text", "--prompt-file"]
    else:
        names, word = ["--prompt"], " ".join(words)
    return next((f"{name} {shell_quote(word)}" for name in names if name in flags), None)


def normalize(name: str) -> str:
    """Return the spelling in which names are compared."""
    return name.replace("-", "_")


def leaf_of(name: str) -> str:
    """Return the last part of a dotted name.

    >>> leaf_of("model.n_layer")
    'n_layer'
    """
    return name.rpartition(".")[2]
