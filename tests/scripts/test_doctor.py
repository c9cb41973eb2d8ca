"""scripts.doctor: a healthy machine has no problem, and each check finds an injected fault."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import train
from scripts import doctor
from scripts.doctor import Check

TINY = "--model.vocab_size=300 --model.block_size=128 --model.n_layer=1 --model.n_head=2"


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a tiny model, and do not measure, which takes seconds and depends on other programs."""
    config = train.parse([*TINY.split(), "--model.n_embd=16"])[0]
    monkeypatch.setattr(doctor, "default_config", lambda: config)
    monkeypatch.setattr(doctor, "step_seconds", lambda: 0.1)
    monkeypatch.setattr(doctor, "matmul_peak", lambda on, amp: 1e11)


def fixes(checks: Iterator[Check]) -> dict[str, str]:
    return {check.name: check.fix for check in checks if check.fix}


def test_a_healthy_machine_has_no_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "MIN_DISK_BYTES", 0)  # CI's disk may be small, but is not broken
    monkeypatch.setattr(doctor, "LIBRARY_BYTES", 0)
    runs = tmp_path / "new" / "runs"
    assert doctor.main(["--folder", str(runs)]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    record = json.loads(last)
    assert record["problems"] == 0 and len(record["checks"]) == len(lines)
    assert [line.split(" ok: ")[0].strip() for line in lines] == [
        *("versions", "cores", "threads", "memory", "disk", "locks", "fsync"),
        *("cpu off", "cpu peak", "cpu bf16"),
    ]
    assert not runs.exists(), "a folder that was not there is removed"


def test_a_problem_is_printed_with_its_fix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "MIN_DISK_BYTES", 10**18)
    assert doctor.main(["--folder", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "disk      TO DO: " in out and " -> free " in out
    assert json.loads(out.splitlines()[-1])["problems"] == 1
    assert not list(tmp_path.iterdir())


def test_another_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = doctor.environment()
    monkeypatch.setattr(doctor, "environment", lambda: facts)
    facts["torch"] = "2.6.0+cpu"
    (check,) = doctor.check_versions()
    assert check.fix == "" and "torch 2.6.0+cpu (the last digits may differ" in check.found
    for old in ("1.13.1+cpu", "2.5.1"):
        facts["torch"] = old
        assert "too old; use 2.6 or newer" in fixes(doctor.check_versions())["versions"]


def test_the_class_of_the_processor_and_the_minutes_of_make_train(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "available_cores", lambda: 2)
    monkeypatch.setattr(doctor, "step_seconds", lambda: 0.12 / torch.get_num_threads())
    threads_now = torch.get_num_threads()
    torch.set_num_threads(1)
    cores, threads = doctor.check_threads()
    torch.set_num_threads(threads_now)
    assert cores.found.endswith(f"; torch uses {torch.backends.cpu.get_cpu_capability()}")
    steps = doctor.default_config().train.max_steps
    expected = f"; make train on the CPU, without evaluations: {steps * 0.12 / 60:.1f} minutes"
    assert threads.found.endswith(expected), "with the threads in use, not the fastest number"


def test_too_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_cores", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(doctor, "step_seconds", lambda: {1: 0.1, 2: 0.05, 4: 0.2}[set_to[-1]])
    assert "--train.num_threads 2" in fixes(doctor.check_threads())["threads"]
    assert set_to == [1, 2, 4, 4], "the number in use is set again"


def test_a_quota_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_cores", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    cores = next(check for check in doctor.check_threads() if check.name == "cores")
    assert cores.found.startswith("2 cores of 64, by affinity or a container's quota; torch uses")


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_memory", lambda: 10**7)
    assert "train.batch_size" in fixes(doctor.check_memory())["memory"]


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def acquire(self: FileLock, *_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    assert (
        "there are no locks (No locks available)" in fixes(doctor.check_folder(tmp_path))["locks"]
    )


def test_locks_that_keep_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileLock, "acquire", lambda self, timeout=None: self)
    assert "does not keep others out" in fixes(doctor.check_folder(tmp_path))["locks"]


def test_a_folder_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(handle: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    assert "power loss may lose" in fixes(doctor.check_folder(tmp_path))["fsync"]


@pytest.mark.parametrize("wrong", ["off", "bf16"])
def test_wrong_numbers(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare, formats = doctor.compare_with_cpu, iter(("off", "bf16"))

    def broken(loss, *args, **kwargs):  # type: ignore[no-untyped-def]
        factor = 1.05 if next(formats) == wrong else 1.0
        return compare(lambda *batch: loss(*batch) * factor, *args, **kwargs)

    monkeypatch.setattr(doctor, "compare_with_cpu", broken)
    monkeypatch.setattr(doctor, "devices", lambda: {"cpu": torch.device("cpu")})
    expected = "reinstall torch" if wrong == "off" else "train with --train.amp off"
    assert fixes(doctor.check_numbers()) == {f"cpu {wrong}": expected}


@pytest.mark.parametrize("name", ["cuda", "mps"])
@pytest.mark.parametrize("wrong", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("fails", [False, True])
def test_wrong_numbers_of_a_gpu(
    name: str, wrong: str, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is played by the CPU."""
    compare, formats = doctor.compare_with_cpu, iter(("off", "bf16", "fp16"))

    def broken(loss, *args, **kwargs):  # type: ignore[no-untyped-def]
        if (right := next(formats) != wrong) or not fails:
            return compare(lambda *batch: loss(*batch) * (1 if right else 1.05), *args, **kwargs)
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    monkeypatch.setattr(doctor, "compare_with_cpu", broken)
    monkeypatch.setattr(doctor, "devices", lambda: {name: torch.device("cpu")})
    found = {check.name: check for check in doctor.check_numbers()}
    fix = "train with --train.device cpu" if wrong == "off" else "train with --train.amp off"
    assert {one.name: one.fix for one in found.values() if one.fix} == {f"{name} {wrong}": fix}
    assert fails == found[f"{name} {wrong}"].found.startswith("no kernel image is available")
