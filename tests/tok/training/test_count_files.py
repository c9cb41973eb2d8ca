"""Counting pre-tokens: any parts, blocks and workers give the same counts; files are streamed."""

import ast
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import tracemalloc
from collections import Counter

import pytest

from tests.helpers.pretokens import as_dict
from tok.errors import TokenizerError
from tok.patterns import PATTERNS, split, to_bytes, to_text
from tok.training import count_files as module
from tok.training.count_files import count_files, count_texts
from tok.training.counts import PretokenCounts
from utils.errors import UserError

TEXT = (
    "It's the 12345th fox; naïve 年号の文字, 😀😀 two   spaces!\n\n \t\tend  of_a line \r\n"
    "a_very_long_identifier_of_more_than_thirty_one_bytes = averylongword1234 + 0\n"
).encode()


def expected(texts, pattern="gpt2"):
    return Counter(
        pretoken if isinstance(pretoken, bytes) else to_bytes(pretoken)
        for text in texts
        for pretoken in split(to_text(text), PATTERNS[pattern])
    )


@pytest.fixture
def small(monkeypatch):
    """Make parts and blocks so small that a short text has many."""
    monkeypatch.setattr(module, "PART_BYTES", 100)
    monkeypatch.setattr(module, "BLOCK_BYTES", 40)


def random_texts(seed):
    rng = random.Random(seed)
    words = [*TEXT.decode().split(" "), " ", "  ", "\n", "!", "'s", "年", "1"]
    return [" ".join(rng.choices(words, k=rng.randrange(60))) for _ in range(20)]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("workers", [1, 3])
def test_parts_blocks_and_workers_do_not_change_counts(small, tmp_path, pattern, workers):
    for seed in range(5):
        texts = random_texts(seed)
        counts = count_texts(iter(texts), pattern, workers)
        assert as_dict(counts) == expected(texts, pattern)
        assert counts.n_bytes == sum(len(text.encode()) for text in texts)
        paths = [tmp_path / f"{i}.txt" for i in range(len(texts))]
        for path, text in zip(paths, texts):
            path.write_bytes(text.encode())
        assert as_dict(count_files(paths, pattern, workers=workers)) == expected(texts, pattern)


def test_threads_where_forking_is_unsafe(small, forks, monkeypatch):
    texts = random_texts(7)
    assert module._start_method() == "fork"
    forked = count_texts(texts, workers=3)
    monkeypatch.setitem(sys.modules, "torch", object())
    assert module._start_method() == "thread"
    assert as_dict(count_texts(texts, workers=3)) == as_dict(forked) == expected(texts)


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_a_killed_worker_is_a_user_error(small, forks, monkeypatch):
    monkeypatch.setattr(module, "_count_job", _die)
    with pytest.raises(UserError, match="worker process ended unexpectedly"):
        count_texts([TEXT * 9], workers=2)


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_an_interrupt_does_not_wait_for_jobs(small, forks, monkeypatch, tmp_path):
    """Ctrl-C while the submitted jobs would take minutes."""
    monkeypatch.setattr(module, "_count_job", _first_then_sleep)
    path = tmp_path / "text"
    path.write_bytes(TEXT * 99)

    def interrupt(n_bytes):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count_files([path], workers=2, on_bytes=interrupt)
    assert not multiprocessing.active_children()


def _first_then_sleep(pattern, errors, job):
    if job[0].begin:
        time.sleep(600)
    return PretokenCounts().partial_counts()


IN_A_POOL = """
import multiprocessing, sys
from tests.helpers.pretokens import as_dict
from tok.training import count_files as module

def count(path):
    module.PART_BYTES = 100
    return as_dict(module.count_files([path], workers=2))

with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.apply(count, sys.argv[1:]))
    pool.close()
    pool.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_a_daemon_process_counts_with_threads(tmp_path, run_python):
    path = tmp_path / "text"
    path.write_bytes(TEXT * 9)
    done = run_python("-c", IN_A_POOL, path)
    assert ast.literal_eval(done.stdout) == expected([TEXT * 9]), done.stderr


def _die(*_):
    assert multiprocessing.parent_process() is not None, "this is the test's own process"
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def forks(monkeypatch):
    """Pretend that the program has one thread and no torch, whatever earlier tests imported."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(threading, "active_count", lambda: 1)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("unit", ["a", " ", "年", "\n", "!", b"\xff", "x y"])
def test_text_without_a_boundary(small, pattern, unit):
    raw = (unit if isinstance(unit, bytes) else unit.encode()) * 500 + TEXT
    assert as_dict(count_texts([raw], pattern, 2)) == expected([raw], pattern)


def test_a_long_text_in_parts_of_the_default_size():
    raw = TEXT * (2 * module.PART_BYTES // len(TEXT) + 2)
    once = expected([TEXT])
    assert len(list(module._spans(raw, "gpt2"))) == 3
    counts = as_dict(count_texts([raw, TEXT], workers=2))
    assert {pretoken: n / once[pretoken] for pretoken, n in counts.items()} == dict.fromkeys(
        once, len(raw) // len(TEXT) + 1
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_invalid_byte_is_named(small, tmp_path, workers):
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_bytes(TEXT * 9)
    text = (TEXT * 3).decode()
    for i in range(0, len(text), 29):
        before, after = text[:i].encode(), text[i:].encode()
        bad.write_bytes(before + b"\xe5\xb9 " + after + b"\xff")
        message = rf"bad\.txt: not UTF-8 at byte {len(before)} \(0xe5\)"
        with pytest.raises(UserError, match=message):
            count_files([bad, good, bad] if i % 2 else [good, bad], workers=workers)
    raw = bad.read_bytes()
    assert as_dict(count_files([bad], errors="bytes", workers=workers)) == expected([raw])


def test_a_boundary_is_found_across_reads(monkeypatch):
    monkeypatch.setattr(module, "PART_BYTES", 5)
    for size in (1, 2, 3, 100):
        monkeypatch.setattr(module, "BLOCK_BYTES", size)
        parts = [part.source for part in module._spans(b"abcdefgh ijklmnop q !", "gpt2")]
        assert parts == [b"abcdefgh", b" ijklmnop", b" q !"]


def test_progress_counts_every_byte(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(TEXT)
    seen = []
    count_files(paths, on_bytes=seen.append)
    assert seen[-1] == 2 * len(TEXT)


def test_unreadable_files_are_user_errors(tmp_path):
    with pytest.raises(UserError, match=r"none: No such file"):
        count_files([tmp_path / "none"])
    with pytest.raises(UserError, match=r"Is a directory"):
        count_files([tmp_path])
    with pytest.raises(TokenizerError, match="errors must be"):
        count_files([tmp_path], errors="ignore")
    (tmp_path / "empty").touch()
    assert count_files([tmp_path / "empty"]).n_bytes == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_read_once(small, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(TEXT * 30,))
    writer.start()
    counts = count_files([path], workers=2)
    writer.join()
    assert as_dict(counts) == expected([TEXT * 30])


def test_memory_does_not_depend_on_the_file_size(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "PART_BYTES", 1 << 18)
    monkeypatch.setattr(module, "BLOCK_BYTES", 1 << 14)
    path = tmp_path / "large.txt"
    path.write_bytes(TEXT * ((16 << 20) // len(TEXT)))
    count_files([path], workers=1)  # build what is cached, such as tables of characters
    tracemalloc.start()
    try:
        count_files([path], workers=2)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_types_of_texts():
    with pytest.raises(TokenizerError, match="expected str or bytes, got int"):
        count_texts([5])
    with pytest.raises(TokenizerError, match="lone surrogate"):
        count_texts(["\ud800"])
    assert as_dict(count_texts([bytearray(b"a b"), memoryview(b"a")])) == {b"a": 2, b" b": 1}
