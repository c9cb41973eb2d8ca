"""Facts that the results of a run may depend on: versions, number of threads, commit."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
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


def resume_warnings(state: Mapping[str, Any], ranks: int, dropout: float) -> Iterator[str]:
    """Yield a warning for each change since the checkpoint `state` that affects the next steps."""
    effect = "from this step on, its numbers may differ in the last digits"
    if state["torch"] != str(torch.__version__):
        masks = ", and dropout may use other masks" if dropout else ""
        yield (
            f"warning: the run began with torch {state['torch']}, this is {torch.__version__}: "
            f"{effect}{masks}"
        )
    if (before := state.get("ranks", 1)) != ranks:
        masks = ", and dropout uses other masks" if dropout else ""
        yield f"warning: the run had {before} ranks, now it has {ranks}: {effect}{masks}"


def git_commit() -> str | None:
    """Return the commit of this source tree, with `+changes` if files differ. None without git.

    None as well if the tree is not the root of a repository: unpacked inside another repository,
    the commit would be that repository's. Git's variables (GIT_DIR and so on) can name another
    repository too, as in a hook, so git runs without them.
    """
    root = Path(__file__).resolve().parents[2]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *words],
                env=variables,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return None if done.returncode else done.stdout.strip()

    # The folder from the root of the repository to here; empty at the root.
    if git("rev-parse", "--show-prefix") != "":
        return None
    return git("describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*") or None
