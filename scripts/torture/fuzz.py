"""Fuzzing of every reader: it gives a result or a UserError, in bounded time and memory."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from scripts.torture.child import HANG_S, MAX_EXTRA_BYTES, Child, DefectError, peak_bytes
from scripts.torture.mutation import ODD, change_value, mutate_bytes, sealed
from scripts.torture.readers import READERS, valid_folder
from scripts.torture.reference import Reference
from utils.errors import MAX_MESSAGE, UserError

CASES = 500  # of each reader, in one trial
VALUE_CASES = 25  # of them, for a JSON file: hypothesis changes one value
CASE_S = 10


class Fuzzer:
    """The cases of one reader, which are counted by their results."""

    def __init__(self, path: Path, read: Callable[[Path], object]) -> None:
        self.path, self.read, self.valid = path, read, path.read_bytes()
        self.counts: Counter[str] = Counter()

    def case(self, raw: bytes) -> None:
        """Read one content, and count the result."""
        self.path.write_bytes(raw)
        before, result = peak_bytes(), "accepted"
        signal.alarm(CASE_S)
        try:
            self.read(self.path)
        except UserError as error:
            result = "refused" if 0 < len(str(error)) <= MAX_MESSAGE else "a long message"
        except BaseException as error:  # KeyboardInterrupt: too slow
            result = f"{type(error).__name__}: {error!s:.200}: {raw!r:.300}"
        signal.alarm(HANG_S)
        if (extra_bytes := peak_bytes() - before) > MAX_EXTRA_BYTES:
            result = f"{extra_bytes:,} bytes of memory: {raw!r:.300}"
        self.counts[result] += 1

    def change_values(self, seed: int) -> None:
        """Change values in the valid content, with a valid checksum: hypothesis chooses them."""
        import hypothesis
        from hypothesis import strategies as st

        leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
        leaf |= st.sampled_from(ODD)
        trees = st.recursive(leaf, st.lists, max_leaves=4)
        changes = st.sampled_from(("put", "put", "remove", "add"))

        def one(which: int, value: Any, change: str) -> None:
            change_value(content := json.loads(self.valid), which, value, change)
            with contextlib.suppress(TypeError):  # a checksum can't be that of this value
                self.case(sealed(content))

        limits: dict[str, Any] = {"max_examples": VALUE_CASES, "database": None, "deadline": None}
        limits["suppress_health_check"] = list(hypothesis.HealthCheck)
        given = hypothesis.given(st.integers(0, 10**6), trees, changes)
        hypothesis.seed(seed)(hypothesis.settings(**limits)(given(one)))()


def fuzz(reference: Reference, rng: Random) -> Counter[str]:
    """Give every reader damaged contents."""
    valid, folder = valid_folder(reference), reference.new_folder()
    shutil.copytree(valid, folder)

    def work() -> None:
        results = {}
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        for name, read in READERS.items():
            fuzzer = Fuzzer(folder / name, read)
            fuzzer.case(fuzzer.valid)
            if not fuzzer.counts["accepted"]:
                fuzzer.counts[f"the valid file: {fuzzer.counts}"] += 1
            if name.endswith(".json"):
                fuzzer.change_values(rng.randrange(2**32))
            while fuzzer.counts.total() < CASES:
                other = rng.choice((fuzzer.valid, fuzzer.path.read_bytes()))
                fuzzer.case(mutate_bytes(fuzzer.valid, other, rng))
            fuzzer.path.write_bytes(fuzzer.valid)
            results[name] = fuzzer.counts
        print(json.dumps(results))

    child = Child(work)
    child.wait(0, max_bytes=2 * MAX_EXTRA_BYTES)  # of all cases together
    shutil.rmtree(folder)
    counts: Counter[str] = Counter()
    for name, found in json.loads(child.text.splitlines()[-1]).items():  # after warnings, if any
        if bad := found.keys() - {"accepted", "refused"}:
            raise DefectError(f"{name}: {len(bad)} defects, such as {sorted(bad)[:3]}")
        counts += Counter({**found, name: CASES, "cases": CASES})
    return counts
