"""The campaign against data loss: its parts, a short form of it, and the defects that it finds."""

from __future__ import annotations

import json
import mmap
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.torture import __main__ as torture
from tests.torture.child import Child, DefectError, at_change, limit_file_size, scratch_folder
from tests.torture.fuzz import change_value, mutate_bytes, sealed, try_reader
from tests.torture.reference import kill_this
from tests.torture.trials import no_space
from tok.tokenizer import BPETokenizer
from utils.errors import UserError
from utils.files import write_atomic

TOKENIZER = ROOT / "tok" / "bpe.json"
PRIVATE_PAGES = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE


def fails(message: str) -> int:
    raise UserError(message)


@pytest.mark.parametrize(
    ("work", "status", "text"),
    [
        (lambda: print("done"), 0, "done\n"),
        (lambda: 3, 3, ""),
        (lambda: fails("a.txt: wrong"), 2, "error: a.txt: wrong\n"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL, ""),
    ],
)
def test_a_child_and_its_end(work: Callable[[], Any], status: int, text: str) -> None:
    child = Child(work)
    assert (child.wait(status), child.text) == (status, text)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: 1 // 0, "ZeroDivisionError"),
        (lambda: os._exit(2), "status 2"),
        (lambda: 3, r"status 3, not \(0, 2\)"),
        # Not from malloc, which may reuse memory that the parent has freed.
        (lambda: int(not mmap.mmap(-1, 300_000_000, PRIVATE_PAGES)), "bytes of memory"),
    ],
)
def test_a_child_that_ends_badly(work: Callable[[], int], message: str) -> None:
    with pytest.raises(DefectError, match=message):
        Child(work).wait(0, 2)


def test_every_change_of_a_file_can_be_the_last(tmp_path: Path) -> None:
    """An atomic write removes, opens, syncs and renames; then it syncs the folder."""
    path, statuses, contents = tmp_path / "a", [], []
    for number in range(1, 9):
        path.write_bytes(b"old")

        def work(number: int = number) -> None:
            at_change(tmp_path, number, kill_this)
            write_atomic(path, b"new")

        statuses.append(Child(work).wait(0, -signal.SIGKILL))
        contents.append(path.read_bytes())
    changes = statuses.index(0)
    assert changes >= 4 and set(statuses[:changes]) == {-signal.SIGKILL}
    assert contents == sorted(contents, reverse=True) and set(contents) == {b"old", b"new"}


def test_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    for before in (partial(at_change, tmp_path, 1, no_space), partial(limit_file_size, 2)):

        def work(before: Callable[[], object] = before) -> None:
            before()
            write_atomic(tmp_path / "a", b"new, and longer")

        child = Child(work)
        child.wait(2)
        assert "No space left" in child.text or "File too large" in child.text
        assert (tmp_path / "a").read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["a"]


def test_a_kill_in_the_middle_of_a_write(tmp_path: Path) -> None:
    def work() -> None:
        limit_file_size(2, kill=True)
        (tmp_path / "a").write_bytes(b"12345")

    assert Child(work).wait(-signal.SIGXFSZ)
    assert (tmp_path / "a").read_bytes() == b"12"


def test_mutations_depend_on_the_seed_and_differ() -> None:
    raw = bytes(range(200))
    found = [mutate_bytes(raw, raw, Random(seed)) for seed in range(300)]
    assert found == [mutate_bytes(raw, raw, Random(seed)) for seed in range(300)]
    assert len({*found}) > 250
    same_size = [int.from_bytes(one, "big") for one in found if len(one) == len(raw)]
    flips = [
        number for number in same_size if (number ^ int.from_bytes(raw, "big")).bit_count() == 1
    ]
    assert len(flips) > 50
    assert mutate_bytes(b"", b"", Random(1)) is not None


@pytest.mark.parametrize(
    ("change", "expected"),
    [("put", {"a": [7, 6]}), ("remove", {"a": [6]}), ("add", {"a": [7, 5, 6]})],
)
def test_a_changed_value(change: str, expected: object) -> None:
    content = {"a": [5, 6]}
    change_value(content, 1, 7, change)
    assert content == expected


def test_a_changed_value_has_a_valid_checksum(tmp_path: Path) -> None:
    raw = TOKENIZER.read_bytes()
    content = json.loads(raw)
    content["merges"] = content["merges"][:-1]
    (tmp_path / "t.json").write_bytes(sealed(content))
    assert BPETokenizer.load(tmp_path / "t.json").vocab_size == 2047


def test_the_oracle_of_fuzzing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"ok")

    def read(path: Path) -> None:
        raw = path.read_bytes()
        if raw != b"ok":
            raise {b"bad": UserError("bad"), b"bug": KeyError("bug")}[raw]

    assert try_reader(path, read, b"ok") == "accepted"
    assert try_reader(path, read, b"bad") == "refused"
    with pytest.raises(DefectError, match="a: KeyError: 'bug': b'bug'"):
        try_reader(path, read, b"bug")
    signal.alarm(0)


def test_children_and_files_of_an_interrupted_trial_are_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        with scratch_folder(tmp_path) as folder:
            (folder / "a").touch()
            child = Child(lambda: time.sleep(60))
            raise KeyboardInterrupt
    assert os.listdir(tmp_path) == [] and child.process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--only", "kil"], "invalid choice"),
        (["--minutes", "-1"], "at least 0"),
        (["--seed", "x"], "--seed"),
    ],
)
def test_wrong_arguments(argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        torture.main(argv)


def test_a_failure_is_counted_with_its_reproduction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trial(reference: object, rng: Random, folder: Path) -> Any:
        raise DefectError("lost")

    monkeypatch.setitem(torture.KINDS, "kill", trial)
    campaign = torture.Campaign(["kill"], 17)
    campaign.run_trial(SimpleNamespace(folder=tmp_path), campaign.next_kind())
    (failure,) = campaign.failures
    assert failure["error"] == "lost"
    assert failure["reproduce"].endswith("--only kill --seed 17 --minutes 0")
    assert campaign.table().startswith("kill    trials 1, failed 1, ")


@pytest.mark.slow
def test_a_short_campaign(run_python: Any) -> None:
    done = run_python("-m", "scripts.torture", "--minutes", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    *table, line = done.stdout.splitlines()
    assert set(json.loads(line)["counts"]) == set(torture.KINDS) and len(table) == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "kind"),
    [("save_without_rename", "kill"), ("row_after_checkpoint", "kill"), ("no_checksum", "damage")],
)
def test_a_planted_defect_is_found(plant: str, kind: str, run_python: Any) -> None:
    argv = ["--minutes", "4", "--only", kind]
    done = run_python("-m", "tests.torture.planted", plant, *argv, timeout_s=300)
    assert done.returncode == 1, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["failures"][0]["kind"] == kind
