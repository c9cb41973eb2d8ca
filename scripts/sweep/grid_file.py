"""Load a sweep from its YAML file, from flags, or from both. Flags override the file."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from scripts.sweep import grid_entries
from scripts.sweep.grid import Sweep
from scripts.sweep.grid_entries import PARTS, SWEEP_KEYS, Entry, setting_fields
from utils.cli import expand_home
from utils.config.load import cast
from utils.config.strict_yaml import parse_value, read_yaml, unknown_key
from utils.errors import UserError
from utils.files import decode_utf8, read_bytes


def load_sweep(path: str, cls: type, flags: Mapping[str, Any] | None = None) -> Sweep:
    """Return the sweep that a file and flags describe, with the settings of the dataclass `cls`.

    Keys: config (base file), out (folder of the runs), seeds (list), set (setting: value, for every
    run), and one of

    - grid (setting: list of values): all combinations
    - each (setting: list of values, or name: {setting: value, ...}): one change at a time
    - random (setting: range), with points (number of points) and random_seed

    A setting is given by its dotted name, nested or not, or by its last part if unambiguous.

    Args:
        path: the file; empty for none.
        flags: a key of PARTS -> texts such as `lr=1e-3,3e-3`; a key of SWEEP_KEYS -> one text, such
            as `1,2,3` for seeds. A setting's flag replaces its entry in the file.

    Raises:
        UserError: the first mistake, with file and line, or flag.
    """
    flags = flags or {}
    named = mapping_keys(path, "each") if path else []
    written, plain = read_file(path, named, cls) if path else ([], {})
    given = [entry for part in PARTS for entry in flag_entries(part, flags.get(part) or [], cls)]
    for entries in (written, given):
        grid_entries.check_given_once(entries)
    replaced = {entry.key for entry in given}
    entries = [entry for entry in written if entry.key not in replaced] + given
    plain |= flag_values(flags)
    return grid_entries.make_sweep(entries, plain, cls, path or "the flags", named)


def read_file(path: str, named: Sequence[str], cls: type) -> tuple[list[Entry], dict[str, Any]]:
    """Return the entries in a sweep's file, and the values of its SWEEP_KEYS.

    Args:
        named: the names of those changes that set several settings.

    Raises:
        UserError: an unknown key, invalid YAML, or a value of the wrong type.
    """
    _, names = setting_fields(cls)
    # Every key of a setting in a file -> part, change, dotted name.
    keys = {f"{part}.{name}": (part, "", names[name]) for part in PARTS for name in names}
    for change in named:
        keys |= {f"each.{change}.{name}": ("each", change, names[name]) for name in names}
    entries: list[Entry] = []
    plain: dict[str, Any] = {}
    for key, (value, line) in read_yaml(path, {**SWEEP_KEYS, **keys}).items():
        where = f"{path}:{line}: {key}"
        if key in keys:
            entries.append(Entry(*keys[key], value, where))
        else:
            plain[key] = cast(value, SWEEP_KEYS[key], where)
            if SWEEP_KEYS[key] is str:  # a path: config or out
                plain[key] = expand_home(plain[key], where)
    return entries, plain


def flag_values(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of SWEEP_KEYS that are given as flags."""
    found = {}
    for key, kind in SWEEP_KEYS.items():
        if (text := flags.get(key)) is not None:
            many = key == "seeds"
            value = parse_value(f"[{text}]" if many else text)
            found[key] = cast(value, kind, f"--{key.replace('_', '-')}", None if many else text)
    return found


def flag_entries(part: str, words: Sequence[str], cls: type) -> list[Entry]:
    """Return the entries given by the flags of one part, `name=value` or `name=value,value`.

    Raises:
        UserError: a text does not have this form, or names no setting.
    """
    fields, names = setting_fields(cls)
    entries = []
    for word in words:
        given, equals, text = word.partition("=")
        name = names.get(given)
        if not equals:
            example = "lr=0.003" if part == "set" else "lr=0.001,0.003"
            raise UserError(f"--{part} {word}: expected a setting and =, such as {example}")
        if name is None:
            raise UserError(f"--{part} {given}: {unknown_key(given, fields)}")
        value = parse_value(text if part == "set" else f"[{text}]")
        if part == "set" and fields[name][0] is str and not isinstance(value, str):
            value = text  # YAML parses 12 as a number, but the setting is text
        entries.append(Entry(part, "", name, value, f"--{part} {given}"))
    return entries


def mapping_keys(path: str, section: str) -> list[str]:
    """Return those keys of a section whose values are mappings.

    In a sweep's `each`, these are the names of changes, which its author chose: not settings.

    The list is empty if the file is not YAML or the section not a mapping; `read_yaml` reports it.
    """
    text = decode_utf8(read_bytes(path), path, hint="save it as UTF-8")
    try:
        root = yaml.load(text, Loader=yaml.BaseLoader)  # keeps all scalars as text
    except (yaml.YAMLError, RecursionError):
        return []
    found = root.get(section) if isinstance(root, dict) else None
    entries = found.items() if isinstance(found, dict) else ()
    return [key for key, value in entries if isinstance(value, dict)]
