"""What the numbers of a run may depend on: versions, threads, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch


def environment() -> dict[str, Any]:
    """What the numbers of a run may depend on: program, versions, threads, commit."""
    return {
        "argv": sys.argv,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "commit": git_commit(),
    }


def git_commit() -> str | None:
    """The checkout's commit, with `+changes` where the tree differs from it; None without git."""
    root = Path(__file__).resolve().parents[2]
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--abbrev=40",
        "--dirty=+changes",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
