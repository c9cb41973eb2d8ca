"""Fuzzing of every reader: it gives a result or a UserError, in bounded time and memory."""

import contextlib
import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch

from data.prepared_folder import CHECKSUM, meta_sha256
from tests.torture.child import HANG_S, MAX_EXTRA_BYTES, Child, DefectError
from tests.torture.readers import READERS, valid_folder
from tests.torture.reference import Reference
from tok.tokenizer_file import identity_of
from utils.errors import MAX_MESSAGE, UserError
from utils.processes import peak_rss_bytes

CASES = 500  # of each reader, in one trial
VALUE_CASES = 25  # of them, for a JSON file: hypothesis changes one value
CASE_S = 10  # of CPU time, as the machine may be busy
# What parsers of numbers, texts and nesting trip over.
WORDS = rb"""null true NaN Infinity 1e999 -1 0 1.5 {} [] , : &a *a !!bool - ? " ' \ \ud8 == # {["""
PIECES = [*WORDS.split(), b"[" * 900, b'{"a":' * 900, b"9" * 5000, b"x" * 70_000, b" ", b"\n\n"]
PIECES += [b"\0", b"\r", b"\n", b"\t", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"<|endoftext|>"]
LONG = 60_000  # bytes
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 10**9, 2**63, 10**30, 10**400, float("nan"), float("inf"), -0.0),
    *("", "a", "9" * 5000, "\ud800", [], {}, [1], {"a": 1}, [[[]]], {"": [0, 0]}, [None] * 1000),
)


def mutate_bytes(raw: bytes, other: bytes, rng: Random) -> bytes:
    """Return `raw` after some changes: flipped, removed, repeated, foreign or new bytes."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        start = rng.randrange(len(raw) + 1)
        end = min(len(raw), start + int(2 ** rng.uniform(0, 10)))
        middle, at = raw[start:end], rng.randrange(len(other) + 1)
        piece, foreign = rng.choice(PIECES), other[at : at + len(middle)]
        if rng.random() < 0.02:  # shows time that grows with the square of the size
            piece = (piece * (LONG // len(piece) + 1))[:LONG]
        flipped = bytes(byte ^ 1 << rng.randrange(8) for byte in middle[:1]) + middle[1:]
        choices = (b"", middle * 2, piece, piece + middle, foreign, rng.randbytes(3))
        raw = raw[:start] + rng.choice((flipped, rng.choice(choices))) + raw[end:]
    return raw if rng.random() < 0.9 else raw[: rng.randrange(len(raw) + 1)]


def change_value(content: Any, which: int, value: Any, change: str) -> None:
    """Put, remove or add one value in nested dicts and lists, or change a tensor.

    >>> content = {"a": [5]}
    >>> change_value(content, 1, 7, "put"); content
    {'a': [7]}
    """
    nodes: list[tuple[Any, Any]] = []
    pending = [content]
    for node in pending:  # which grows
        keys = list(node) if isinstance(node, dict) else [*range(len(node))]
        nodes += [(node, key) for key in keys]
        pending += [node[key] for key in keys if isinstance(node[key], (dict, list))]
    node, key = nodes[which % len(nodes)]
    if change == "remove":
        del node[key]
    elif isinstance(old := node[key], torch.Tensor) and which % 2:
        ways = (old.double(), old.bool(), old[None], old.flatten()[1:], old * float("nan"))
        node[key] = (*ways, old.to_sparse())[which // 2 % 6]
    elif change == "add" and isinstance(node, list):
        node.insert(key, value)
    else:
        node[str(value)[:40] if change == "add" else key] = value


def sealed(content: Any) -> bytes:
    """Return JSON with these values, and with a valid checksum if it has one."""
    if CHECKSUM in content:
        content[CHECKSUM] = meta_sha256(content)
    elif "merges" in content:
        content.pop("identity", None)
        content["identity"] = identity_of(content)
    return json.dumps(content).encode()


def try_reader(path: Path, read: Callable[[Path], object], raw: bytes) -> str:
    """Read a file with this content; return "accepted" or "refused".

    Raises:
        DefectError: another exception than UserError, a long message, much time or memory.
    """
    path.write_bytes(raw)
    before, result, defect = peak_rss_bytes(), "accepted", ""
    signal.alarm(HANG_S)
    signal.setitimer(signal.ITIMER_PROF, CASE_S)
    try:
        read(path)
    except UserError as error:
        result, defect = "refused", str(error)[MAX_MESSAGE:]
    except BaseException as error:  # KeyboardInterrupt: too slow
        defect = f"{type(error).__name__}: {error!s:.200}"
    signal.setitimer(signal.ITIMER_PROF, 0)
    if (extra_bytes := peak_rss_bytes() - before) > MAX_EXTRA_BYTES:
        defect = f"{extra_bytes:,} bytes of memory"
    if defect:
        raise DefectError(f"{path.name}: {defect}: {raw!r:.300}")
    return result


def change_values(valid: bytes, seed: int, case: Callable[[bytes], object]) -> None:
    """Try JSON with one value that hypothesis has changed, under a valid checksum."""
    import hypothesis
    from hypothesis import strategies as st

    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    trees = st.recursive(leaf | st.sampled_from(ODD), st.lists, max_leaves=4)

    def one(which: int, value: Any, change: str) -> None:
        change_value(content := json.loads(valid), which, value, change)
        with contextlib.suppress(TypeError):  # a checksum can't be that of this value
            case(sealed(content))

    limits: dict[str, Any] = {"max_examples": VALUE_CASES, "database": None, "deadline": None}
    limits["suppress_health_check"] = list(hypothesis.HealthCheck)
    changes = st.sampled_from(("put", "put", "remove", "add"))
    given = hypothesis.given(st.integers(0, 10**6), trees, changes)
    hypothesis.seed(seed)(hypothesis.settings(**limits)(given(one)))()


def fuzz_reader(path: Path, read: Callable[[Path], object], rng: Random) -> Counter[str]:
    """Damage a valid file in many ways; return the counts of the results."""
    valid, counts = path.read_bytes(), Counter[str]()
    read(path)  # an error in the valid file ends the trial

    def case(raw: bytes) -> None:
        counts[try_reader(path, read, raw)] += 1

    if path.suffix == ".json":
        change_values(valid, rng.randrange(2**32), case)
    while counts.total() < CASES:
        case(mutate_bytes(valid, rng.choice((valid, path.read_bytes())), rng))
    path.write_bytes(valid)
    return counts


def fuzz(reference: Reference, rng: Random, folder: Path) -> Counter[str]:
    """Give every reader damaged contents."""
    shutil.copytree(valid_folder(reference), folder, dirs_exist_ok=True)

    def work() -> None:
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, signal.default_int_handler)
        counts: Counter[str] = Counter()
        for name, read in READERS.items():
            counts += fuzz_reader(folder / name, read, rng)
            counts.update({name: CASES, "cases": CASES})
        print(json.dumps(counts))

    child = Child(work, max_bytes=2 * MAX_EXTRA_BYTES)  # of all cases together
    child.wait(0)
    return Counter(json.loads(child.text.splitlines()[-1]))  # after warnings, if any
