"""What Windows and macOS lack or do differently, as far as Linux can simulate it.

docs/reliability.md lists what has not been tried.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import pytest
import torch

import train
from scripts.sweep import watchdog
from scripts.sweep.grid import Sweep
from tests.conftest import ROOT, Run, clean_environment
from tests.helpers.runs import flags
from utils import suggest
from utils.run.folder import RunFolder

# A module that Python imports before any program.
OTHER_SYSTEM = """
import multiprocessing, os, signal, sys
import psutil  # on Linux, it imports resource
for name in ("fcntl", "resource", "pwd", "grp", "termios", "readline"):
    sys.modules[name] = None
for module, names in (
    (os, ("fork", "sched_getaffinity", "getuid", "geteuid")),
    (signal, ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "alarm", "setitimer")),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
open_file = os.open
def no_folders(path, *args, **kwargs):
    if isinstance(path, (str, os.PathLike)) and os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return open_file(path, *args, **kwargs)
os.open = no_folders
"""

# Run several programs in one process, as its start takes seconds. Print the status of each.
PROGRAMS = """
import importlib, json, sys
from utils.errors import run_cli
for name, argv in json.loads(sys.argv[1]):
    program = importlib.import_module(name)
    sys.argv = [name, *argv]
    try:
        run_cli(program.main)
    except SystemExit as exit:
        print("status", exit.code, flush=True)
"""

# Spawned processes import this file again, so it must do nothing then. 20 MB.
SPAWN = """
import sys
from pathlib import Path
from tok.encoding.parallel import encode_documents
from tok.tokenizer import BPETokenizer
from tok.training import count_files

if __name__ == "__main__":
    sys.platform = "darwin"
    assert count_files._start_method() == "thread"
    text = Path("data/tiny.txt").read_bytes()
    count_files.PART_BYTES = len(text) // 3
    trained = [BPETokenizer.train([text], vocab_size=300, workers=workers) for workers in (1, 2)]
    assert trained[0].merges == trained[1].merges
    documents = [text[:100_000]] * 200
    ids = [list(encode_documents(trained[0], documents, workers=n)) for n in (1, 2)]
    assert sum(map(len, ids[0])) == sum(map(len, ids[1])) > 0
    assert all((a == b).all() for a, b in zip(*ids, strict=True))
"""


@pytest.mark.parametrize("encoding", ["cp437", "cp1252"])
def test_without_the_modules_and_calls_of_posix(
    encoding: str, settings: dict[str, object], tmp_path: Path
) -> None:
    """No locks of the system, no sync of folders, no SIGHUP, and a console without Unicode."""
    (tmp_path / "sitecustomize.py").write_text(OTHER_SYSTEM, encoding="utf-8")
    story = tmp_path / "é 雪.txt"
    story.write_text("der Schnee 雪 – é\n", encoding="utf-8")
    run = tmp_path / "modèle 雪"
    more = {"train.max_steps": 2, "train.sample_prompt": "雪 é – 🙂"}
    programs = [
        ("train", flags(run, settings | more)),
        ("train", ["--run_dir", str(run), "--resume"]),
        ("sample", ["--run", str(run), "--prompt", "雪 é – 🙂", "--steps", "5"]),
        ("sample", ["--run", str(tmp_path / "雪"), "--prompt", "é"]),
        ("scripts.eval.__main__", ["--run", str(run), "--text", str(story), "--tokens"]),
        ("tok.cli", ["encode", "--tokenizer", str(run / "tokenizer.json"), str(story)]),
    ]
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAMS, json.dumps(programs)],
        capture_output=True,
        env=clean_environment(PYTHONPATH=path, PYTHONIOENCODING=encoding, OMP_NUM_THREADS="1"),
        check=False,
    )
    out, err = done.stdout.decode("utf-8"), done.stderr.decode(encoding)
    status = [line for line in out.splitlines() if line.startswith("status")]
    assert status == ["status 0"] * 3 + ["status 2"] + ["status 0"] * 2, err
    assert "Traceback" not in err and "modèle \\u96ea" in err and "雪 é – 🙂" in out
    assert (run / "best.pt").exists()


@pytest.mark.skipif(
    tuple(map(int, filelock.__version__.split(".")[:2])) < (4, 2),
    reason="the file of an older filelock stays: without fcntl, remove RUN/lock by hand",
)
def test_a_lock_without_fcntl_ends_with_its_process(tmp_path: Path, run_python: Run) -> None:
    (tmp_path / "sitecustomize.py").write_text(OTHER_SYSTEM, encoding="utf-8")
    code = (
        "import os, sys; from utils.run.folder import RunFolder; run = RunFolder(sys.argv[1])\n"
        "run.lock()\ntry: RunFolder(sys.argv[1]).lock()\n"
        "except Exception as error: print(error)\nsys.stdout.flush(); os._exit(0)"
    )
    for _ in range(2):
        done = run_python(
            *("-c", code, tmp_path / "run"), env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
        )
        assert "another process is writing this run" in done.stdout, done.stderr


def test_processes_that_are_spawned_give_the_same(tmp_path: Path, run_python: Run) -> None:
    (tmp_path / "spawn.py").write_text(SPAWN, encoding="utf-8")
    done = run_python(tmp_path / "spawn.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.usefixtures("quick")
def test_a_tree_with_windows_line_ends_gives_the_same_run(tmp_path: Path, run_python: Run) -> None:
    """.gitattributes keeps \\n in a checkout; an archive or an editor may change it."""
    attributes = (ROOT / ".gitattributes").read_text(encoding="utf-8")
    assert "\n* text=auto eol=lf\n" in attributes
    tree = tmp_path / "tree"
    folders = ("configs", "data", "model", "tok", "utils", "scripts")
    sources = [ROOT / "train.py", *(one for name in folders for one in (ROOT / name).rglob("*"))]
    for source in sources:
        if source.is_file() and "__pycache__" not in source.parts:
            copy = tree / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes().replace(b"\n", b"\r\n"))
    small = ["--config", "configs/tiny.yaml", "--data.windows", "packed", "--model.n_layer", "1"]
    small += ["--data.story_bytes", "30000", "--data.val_story_bytes", "3000"]
    small += ["--model.vocab_size", "300", "--model.n_embd", "16", "--model.bigram_rows", "0"]
    small += ["--train.max_steps", "1", "--train.num_threads", "1", "--train.sample_tokens", "0"]
    cache = ["--data.cache_dir", str(tmp_path / "cache")]
    done = run_python(
        *("train.py", *small, *cache, "--run_dir", tmp_path / "crlf"),
        cwd=tree,
        env={"PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    cache = ["--data.cache_dir", str(tmp_path / "cache2")]
    assert train.main([*small, *cache, "--run_dir", str(tmp_path / "lf")]) == 0
    one, other = (torch.load(tmp_path / n / "last.pt", weights_only=True) for n in ("crlf", "lf"))
    for name in ("tokenizer_sha256", "data_identity"):
        assert one[name] == other[name]
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])


def test_a_command_on_windows_is_asked_to_end_with_ctrl_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here another signal stands for Ctrl-Break, which Linux does not have."""
    monkeypatch.setattr(watchdog, "STOP", signal.SIGINT)
    monkeypatch.setattr(watchdog, "POLL_S", 0.05)
    code = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
    one = watchdog.Watchdog()
    started = tmp_path / "started"
    monkeypatch.setattr(one, "must_end", started.exists)
    command = [sys.executable, "-c", code, str(started)]
    assert one.run(command, str(tmp_path / "log")) == 128 + signal.SIGINT


def test_points_of_a_sweep_differ_on_any_file_system() -> None:
    axes = {"data.doc_sep": ["a", "A"]}
    names = [point.name.lower() for point in Sweep(axes=axes).points()]
    assert len(set(names)) == 2
    _, aux = Sweep(changes={"AUX": {"model.dropout": 0.1}}).points()
    assert aux.name == "AUX_point=1"


def test_standard_input_has_no_name_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert suggest.did_you_mean("-") == "; for standard input, name /dev/stdin"
    monkeypatch.setattr(suggest.os.path, "exists", lambda path: False)
    assert suggest.did_you_mean("-") == "; save it to a file, and name that"


def test_a_path_is_quoted_for_cmd(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder("a run")
    with monkeypatch.context() as patch:
        patch.setattr(suggest.os, "name", "nt")
        quoted = suggest.shell_quote(str(run.path))
        flag = suggest.shell_quote("runs\\tiny")
    assert (quoted, flag) == ('"a run"', '"runs\\tiny"')
