"""The files of the repository, and the targets of its Makefile."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_program

README = ROOT / "README.md"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(
    "install train test test-all torture format lint sample eval sweep plot export doctor bench "
    "gpu-check exercise clean help".split()
)


def tracked_files() -> list[Path]:
    """The files that git tracks or does not ignore."""
    if shutil.which("git") and (ROOT / ".git").exists():
        done = run_program(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        if done.returncode == 0:
            return [ROOT / name for name in done.stdout.split("\0") if (ROOT / name).is_file()]
    pytest.skip("not a git checkout")
