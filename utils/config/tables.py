"""Tables of this repository in YAML files: corpora, words, names."""

import functools
from pathlib import Path
from typing import Any

import yaml


@functools.cache
def read_table(path: Path) -> dict[str, Any]:
    """Read a YAML file once. Keys keep the order of the file."""
    with open(path, encoding="utf-8") as file:
        return yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
