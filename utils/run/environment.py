"""Facts that the results of a run may depend on: versions, number of threads, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

VERSION = "0.2.0"  # of llm-tiny


def environment() -> dict[str, Any]:
    """Return what the results of a run may depend on, for run.json: plain JSON values."""
    return {
        "version": VERSION,
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
    """Return the commit of the checkout, with `+changes` if files differ. None without git."""
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
