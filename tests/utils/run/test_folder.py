"""Run folders: lock, run.json, samples.txt, and the environment of a start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.errors import UserError
from utils.processes import peak_rss_bytes
from utils.run import environment as environment_module
from utils.run.environment import environment, git_commit
from utils.run.folder import RunFolder
from utils.run.log import append_sample, read_samples, truncate_samples


def test_only_one_process_can_lock_a_folder(tmp_path: Path) -> None:
    one, other = RunFolder(tmp_path / "a" / "b"), RunFolder(tmp_path / "a" / "b")
    one.lock()
    one.lock()
    with pytest.raises(UserError, match="another process is writing this run"):
        other.lock()
    with pytest.raises(UserError, match="another process"):
        other.lock()
    one.close()
    other.lock()
    other.close()


def test_temporary_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".last.pt.tmp-77").write_bytes(b"half")
    (tmp_path / ".best.pt.tmp-77").mkdir()  # not ours, or of an export to r/best.pt
    (tmp_path / "notes.txt").write_bytes(b"of the user")
    run = RunFolder(tmp_path)
    run.lock()
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"lock", "notes.txt", ".best.pt.tmp-77"}
    run.close()


def test_a_large_samples_file_is_truncated_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "samples.txt"
    kept = b"=== step 3\n" + b"\n" * 30_000_000 + "\u20ac\n\n".encode()
    path.write_bytes(kept + b"=== step 4\nx\n\n")
    before = peak_rss_bytes()
    truncate_samples(path, 3)
    assert path.read_bytes() == kept
    assert peak_rss_bytes() - before < 200e6


def test_a_step_with_too_many_digits_is_text_of_a_sample(tmp_path: Path) -> None:
    path = tmp_path / "samples.txt"
    line = f"=== step {'9' * 5000}"
    path.write_text(f"=== step 3\na\n\n{line}\nb\n\n", encoding="utf-8")
    assert read_samples(path) == [(3, f"a\n\n{line}\nb")]


def test_an_invalid_folder_is_refused_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name, reason in [("file", "this is a file"), ("file/run", ".*file is not a folder")]:
        with pytest.raises(UserError, match=f"^run_dir .*{name}: {reason}; name "):
            RunFolder(tmp_path / name).lock()
    monkeypatch.setattr(
        os, "access", lambda path, mode: False
    )  # also for root, who may write anywhere
    with pytest.raises(UserError, match="^run_dir .*x/y: can't write into .*; name another path"):
        RunFolder(tmp_path / "x" / "y").lock()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_relative_folder_can_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run", "."):
        run = RunFolder(name)
        run.lock()
        run.close()
    assert (tmp_path / "run" / "lock").exists()


def test_a_folder_of_runs_names_up_to_three_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c", "sweep/x"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "sweep" / "x" / "run.json").touch()
    for path in ("runs", "."):  # the points of a sweep are two levels below
        with pytest.raises(UserError, match="no run there") as error:
            RunFolder(path).check_has_run()
        mean = "; did you mean runs/sweep/x?" if path == "runs" else "train one with"
        assert mean in str(error.value)
    for name in "abc":
        (tmp_path / "runs" / name / "run.json").touch()
    with pytest.raises(UserError, match="there; did you mean runs/a or runs/b or runs/c.$"):
        RunFolder("runs").check_has_run()


def test_run_json_is_validated(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(UserError, match="no run there; train one with"):
        run.read_record()
    data = {"folder": "x", "identity": "ab", "floor": None}
    record = {"data": data, "floor_nats_per_token": None, "starts": [{}]}
    run.write_record(record)
    assert run.has_run() and run.read_record() == record
    damaged = [{k: v for k, v in record.items() if k != name} for name in record]
    damaged += [record | {"data": {k: v for k, v in data.items() if k != name}} for name in data]
    damaged += [record | {"starts": {}}, record | {"data": data | {"floor": {}}}]
    for text in ("", "{", "[1]", "null", "{}", *map(json.dumps, damaged)):
        run.record.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"run\.json: damaged"):
            run.read_record()
    run.record.write_bytes(b"\xff")
    with pytest.raises(UserError, match="damaged"):
        run.read_record()


TEXT = st.text(alphabet="=ste p01\né\r", max_size=30) | st.just("=== step 3\nfaked")


@given(texts=st.lists(TEXT, max_size=5), last=st.integers(-1, 6), cut=st.integers(0, 9))
def test_samples_after_the_checkpoint_are_dropped(
    texts: list[str], last: int, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("samples") / "samples.txt"
    after = []
    for step, text in enumerate(texts):
        append_sample(path, step, text)
        after.append(path.read_bytes())
    if texts and last < len(texts) - 1:  # a kill only truncates samples after the checkpoint
        path.write_bytes(after[-1][: max(len(after[-1]) - cut, len(b"".join(after[-2:-1])))])
    before = path.read_bytes() if path.exists() else b""
    found = read_samples(path)
    assert (path.read_bytes() if path.exists() else b"") == before, "reading changes nothing"
    truncate_samples(path, last)
    assert read_samples(path) == [(step, text) for step, text in found if step <= last]
    kept = min(last, len(texts) - 1)
    assert (path.read_bytes() if path.exists() else b"") == (after[kept] if kept >= 0 else b"")


def test_a_step_that_no_run_reaches_is_not_a_header(tmp_path: Path) -> None:
    (tmp_path / "samples.txt").write_text(
        f"=== step 1\na\n=== step {'9' * 5000}\nb\n\n", encoding="utf-8"
    )
    assert read_samples(tmp_path / "samples.txt") == [(1, f"a\n=== step {'9' * 5000}\nb")]


def test_a_missing_samples_file_has_no_samples(tmp_path: Path) -> None:
    truncate_samples(tmp_path / "samples.txt", 3)
    assert read_samples(tmp_path / "samples.txt") == []
    assert not list(tmp_path.iterdir())


def test_the_environment_is_plain_json() -> None:
    facts = json.loads(json.dumps(environment()))
    assert facts["version"] == environment_module.VERSION
    assert facts.keys() >= {"argv", "python", "torch", "numpy", "threads", "cores", "commit"}


def git(folder: Path, *words: str) -> str:
    """Run git in a folder and return what it prints."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *words], capture_output=True, encoding="utf-8"
    )
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def make_repository(folder: Path) -> str:
    """Make a repository with one commit of all files in a folder; return the commit."""
    folder.mkdir(exist_ok=True)
    (folder / "a.txt").write_text("a", encoding="utf-8")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the root of a source tree, below a folder that can become a repository."""
    if not shutil.which("git"):
        pytest.skip("needs git")
    root = tmp_path / "outer" / "source"
    root.mkdir(parents=True)
    monkeypatch.setattr(environment_module, "__file__", str(root / "utils/run/environment.py"))
    return root


def test_the_commit_is_that_of_the_source_tree(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = make_repository(tree)
    assert git_commit() == commit
    other = tree.parent.parent / "other"
    make_repository(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))  # as in a hook of another repository
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert git_commit() == commit
    (tree / "a.txt").write_text("changed", encoding="utf-8")
    assert git_commit() == f"{commit}+changes"


@pytest.mark.parametrize("broken", [False, True], ids=["unpacked", "with a .git that is none"])
def test_the_commit_of_a_repository_around_the_source_tree_is_not_recorded(
    tree: Path, broken: bool
) -> None:
    make_repository(tree.parent)
    if broken:
        (tree / ".git").mkdir()
    assert git_commit() is None


def test_without_git_there_is_no_commit(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_commit() is None
    make_repository(tree)
    monkeypatch.setenv("PATH", str(tree))
    assert git_commit() is None
