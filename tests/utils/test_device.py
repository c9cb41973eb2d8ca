"""Selection of device and number format, seeds and torch.compile; GPUs are mocked."""

from __future__ import annotations

import contextlib
import getpass
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import run_program
from utils import device
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "wanted"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_prefers_cuda_then_mps(
    cuda: bool, mps: bool, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert device.pick_device("auto").type == wanted


def test_an_unusable_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.pick_device("cpu") == CPU
    for name in ("nonsense", "cuda:77", "meta", "", "xla", "hpu", "cpu:x", "vulkan"):
        with pytest.raises(UserError, match=r"not available on this machine \(try auto or cpu\)"):
            device.pick_device(name)


@pytest.mark.parametrize(("bf16", "wanted"), [(True, "bf16"), (False, "fp16")])
def test_the_number_format_follows_the_gpu(
    bf16: bool, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert device.pick_amp("auto", torch.device("cuda")) == wanted
    assert device.pick_amp("auto", CPU) == device.pick_amp("auto", torch.device("mps")) == "off"
    assert device.pick_amp("fp16", CPU) == "fp16"


def test_autocast_sets_the_dtype_of_matrix_products() -> None:
    a = torch.ones(2, 2)
    assert device.autocast(CPU, "off") is contextlib.nullcontext
    for amp, dtype in device.DTYPES.items():
        with device.autocast(CPU, amp)():
            assert (a @ a).dtype == dtype


def test_descriptions_memory_and_synchronization(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "thread" in device.describe_device(CPU)
    assert device.describe_device(torch.device("mps")) == "mps"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda which: "Card 9")
    assert device.describe_device(torch.device("cuda")) == "cuda (Card 9)"
    assert 50e6 < device.peak_memory_bytes(CPU) < 1e12
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda which: 123)
    assert device.peak_memory_bytes(torch.device("cuda")) == 123
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 45)
    assert device.peak_memory_bytes(torch.device("mps")) == 45
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    for name in ("cpu", "cuda", "mps"):
        device.synchronize(torch.device(name))
    assert len(waited) == 2


def test_seeds_depend_on_seed_and_step() -> None:
    samples = set()
    for seed in (0, 1, 2**40):
        for step in (0, 1, 2):
            device.seed_all(seed, step)
            first = torch.rand(3)
            np.random.default_rng().random()
            device.seed_all(seed, step)
            assert torch.equal(torch.rand(3), first)
            samples.add(tuple(first.tolist()))
    assert len(samples) == 9


def test_compile_is_used_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, seen = torch.nn.Linear(2, 2), torch.ones(1, 2), []

    def compiled(*inputs: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return model(*inputs)

    monkeypatch.setattr(torch, "compile", lambda module: compiled)
    assert device.compile_or_eager(model, device.autocast(CPU, "bf16"), x) is compiled
    assert seen == [True], "it must be tried under autocast"
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("message", ["first\nsecond", ""])
def test_a_compile_failure_in_the_backward_pass_prints_one_warning(
    message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(context: object, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(context: object, gradient: torch.Tensor) -> torch.Tensor:
            raise RuntimeError(message)

    model = torch.nn.Linear(2, 2)
    monkeypatch.setattr(torch, "compile", lambda module: lambda x: Fails.apply(module(x)))
    assert device.compile_or_eager(model, contextlib.nullcontext, torch.ones(1, 2)) is model
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: torch.compile failed, training continues without it: Runtime")
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("how", ["set", "default"])
def test_an_unwritable_folder_for_compiled_programs_ends_nothing(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)  # torch sets it
    name = f"torchinductor_{getpass.getuser()}"
    (tmp_path / name).write_text("a file where the folder should be", encoding="utf-8")
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / name / "below")}
    if how == "default":
        variables = {"TMPDIR": str(tmp_path)}
    program = "from model.gpt import *; model = TinyGPT(ModelConfig()); import torch._dynamo"
    done = run_program([sys.executable, "-c", program], env=variables)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "warning: TORCHINDUCTOR_CACHE_DIR" in done.stderr and "can't be written" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("module", ["train", "sample", "scripts.export.__main__"])
def test_starting_a_program_does_not_import_the_compiler(module: str) -> None:
    # It takes longer than all other imports together, also before the error about a wrong flag.
    program = f"import sys, {module}; print('torch._dynamo' in sys.modules)"
    done = run_program([sys.executable, "-c", program])
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_threads_do_not_exceed_the_cores_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(device, "available_cores", lambda: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    device.limit_threads()
    assert chosen == []
    monkeypatch.delenv("OMP_NUM_THREADS")
    device.limit_threads()
    assert chosen == [3]


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="huge pages of Linux"
)
@pytest.mark.parametrize(("given", "asked"), [({}, True), ({"THP_MEM_ALLOC_ENABLE": "0"}, False)])
def test_sampling_allocates_in_huge_pages(given: dict[str, str], asked: bool) -> None:
    """Nothing that is imported may allocate a tensor before. The kernel's flag hg: asked for."""
    code = f"""
import os
os.environ.pop("THP_MEM_ALLOC_ENABLE", None)  # earlier tests in this process may have set it
os.environ.update({given})
import sample, torch
from unittest.mock import patch
with patch("sample.load_run", side_effect=ZeroDivisionError):
    try:
        sample.main(["--prompt", "a"])
    except ZeroDivisionError:
        pass
large = torch.empty(1 << 24)
print(" hg " in open("/proc/self/smaps").read())
"""
    done = run_program([sys.executable, "-c", code])
    assert done.stdout.strip() == str(asked), done.stderr
