"""Checkpoints: exact, safe to load, written atomically, with a checksum."""

from __future__ import annotations

import errno
import io
import os
import pickle
import random
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.errors import UserError
from utils.processes import peak_rss_bytes
from utils.run import checkpoint

CONTENT: dict[str, Any] = {
    "model": {
        "f32": torch.randn(3, 4),
        "bf16": torch.randn(5).bfloat16(),
        "f16": torch.randn(2).half(),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
        "bool": torch.tensor([True, False]),
        "int64": torch.tensor([2**40, -1]),
    },
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.9, 1)}]},
    "best_val": float("inf"),
    "last_val": float("nan"),
    "step": 7,
    "none": None,
    "flag": True,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "a.pt", CONTENT)
    return tmp_path / "a.pt"


def test_a_checkpoint_is_read_back_exactly(path: Path) -> None:
    loaded = checkpoint.load(path)
    assert loaded.pop("format") == checkpoint.FORMAT
    assert loaded.keys() == CONTENT.keys()
    assert checkpoint.digest(loaded) == checkpoint.digest(CONTENT)
    for name, tensor in CONTENT["model"].items():
        assert loaded["model"][name].dtype == tensor.dtype
        assert torch.equal(loaded["model"][name], tensor)
    assert loaded["optimizer"]["param_groups"][0]["betas"] == (0.9, 1)
    plain = torch.load(path, weights_only=True)
    assert plain["sha256"] and plain["step"] == 7


def test_the_same_content_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "other.pt", CONTENT)
    assert (tmp_path / "other.pt").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1], [True]),
        ([1], (1,)),
        (["1"], [1]),
        ([1.0], [1]),
        (["a", "b"], ["ab", ""]),
        ({"a": 1}, {"b": 1}),
        ({"a": [1], "b": []}, {"a": [], "b": [1]}),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16)),
        (torch.zeros(1), torch.tensor(0.0)),
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (None, "None"),
    ],
)
def test_the_digest_differs(one: object, other: object) -> None:
    assert checkpoint.digest(one) != checkpoint.digest(other)


def test_the_digest_does_not_depend_on_strides() -> None:
    whole = torch.randn(4, 6)
    assert checkpoint.digest(whole.t()) == checkpoint.digest(whole.t().contiguous())
    assert checkpoint.digest(whole[:, ::2]) == checkpoint.digest(whole[:, ::2].clone())


class Evil:
    """Makes a folder when it is unpickled without weights_only."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    target, path = tmp_path / "hacked", tmp_path / "evil.pt"
    torch.save({"format": 1, "sha256": "0", "model": Evil(target)}, path)
    with pytest.raises(UserError, match=r"evil\.pt: refused"):
        checkpoint.load(path)
    path.write_bytes(pickle.dumps(Evil(target)))
    with warnings.catch_warnings(), pytest.raises(UserError, match=r"evil\.pt"):
        warnings.simplefilter("error")  # the error must be the only line
        checkpoint.load(path)
    assert not target.exists()
    torch.load(io.BytesIO(dumped(Evil(target))), weights_only=False)
    assert target.exists(), "without weights_only the code must run"


def dumped(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_a_truncated_checkpoint_is_refused(path: Path) -> None:
    raw = path.read_bytes()
    lengths = {0, 1, 2, len(raw) - 1, *range(0, len(raw), 97)}
    for length in sorted(lengths):
        path.write_bytes(raw[:length])
        with pytest.raises(UserError, match="damaged|refused"):
            checkpoint.load(path)


def test_a_flipped_bit_is_detected_or_has_no_effect(path: Path) -> None:
    raw, wanted = path.read_bytes(), checkpoint.digest(checkpoint.load(path))
    rng, refused = random.Random(0), 0
    offsets = [*range(0, len(raw), 31), *(rng.randrange(len(raw)) for _ in range(150))]
    for offset in offsets:
        bad = bytearray(raw)
        bad[offset] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        try:
            assert checkpoint.digest(checkpoint.load(path)) == wanted, f"byte {offset}"
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > len(offsets) / 4


def test_a_flipped_bit_in_any_weight_is_detected(path: Path) -> None:
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries = [info for info in archive.infolist() if "/data/" in info.filename]
        spans = [raw.index(archive.read(info)) for info in entries if info.file_size > 8]
    for start in spans:
        bad = bytearray(raw)
        bad[start] ^= 1
        path.write_bytes(bad)
        with pytest.raises(UserError, match="checksum"):
            checkpoint.load(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    for value in ({"model": {}}, [1, 2], torch.zeros(3), {"format": 1, "sha256": [torch.zeros(2)]}):
        torch.save(value, path)
        with pytest.raises(UserError, match="not a checkpoint of this program|damaged"):
            checkpoint.load(path)
    torch.save({"format": 99, "sha256": "x"}, path)
    with pytest.raises(UserError, match="format 99, this program reads 1"):
        checkpoint.load(path)
    torch.save({"format": 1, "sha256": "x", "odd": {1, 2}}, path)
    with pytest.raises(UserError, match="a value of type set"):
        checkpoint.load(path)
    path.write_bytes(b"not a zip at all")
    with pytest.raises(UserError, match=r"a\.pt"):
        checkpoint.load(path)
    with pytest.raises(UserError, match="No such file"):
        checkpoint.load(tmp_path / "none.pt")
    with pytest.raises(UserError, match="directory"):
        checkpoint.load(tmp_path)


def test_only_plain_values_are_saved(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        checkpoint.save(tmp_path / "a.pt", {"path": tmp_path})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*a\.pt"):
        checkpoint.save(path, {**CONTENT, "step": 8})
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["a.pt"]


def test_a_file_size_limit_leaves_the_old_checkpoint(path: Path) -> None:
    resource = pytest.importorskip("resource", reason="oracle: no limits on Windows")
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            checkpoint.save(path, {**CONTENT, "big": torch.zeros(9000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["a.pt"]


def forged(path: Path, content: dict[str, Any], *, deflated: bool = False) -> None:
    """Write a checkpoint that `save` would not write, with a valid format but no digest."""
    torch.save({"format": checkpoint.FORMAT, "sha256": "0" * 64, **content}, path)
    if deflated:
        entries = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry in entries.infolist():
                archive.writestr(entry.filename, entries.read(entry))


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    "content, deflated, reason",
    [
        ({"model": {"w": torch.zeros(1).expand(2_000_000_000)}}, False, "larger than its file"),
        ({"model": {"w": torch.zeros(1, 1).expand(10**6, 10**6)}}, False, "larger than its file"),
        ({f"w{n}": CONTENT["model"]["f32"].expand(50, 3, 4) for n in range(99)}, False, "larger"),
        ({"model": {"w": torch.zeros(20_000_000)}}, True, "compressed"),
        ({"model": nested(200)}, False, "larger than its file"),
        ({"w": torch.zeros(2, 2).to_sparse()}, False, "an unusual tensor"),
        ({"w": torch.empty(10**12, device="meta")}, False, "an unusual tensor"),
        ({"w": {1, 2}}, False, "a value of type set|refused"),
    ],
)
def test_a_small_file_that_needs_much_memory_is_refused(
    tmp_path: Path, content: dict[str, Any], deflated: bool, reason: str
) -> None:
    path = tmp_path / "a.pt"
    forged(path, content, deflated=deflated)
    before = peak_rss_bytes()
    with pytest.raises(UserError, match=rf"a\.pt: .*({reason})"):
        checkpoint.load(path)
    assert peak_rss_bytes() - before < 200e6
