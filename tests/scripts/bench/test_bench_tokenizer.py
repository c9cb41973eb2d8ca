"""scripts.bench tokenizer: results are compared as well as timed, and differences are shown."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.bench import __main__ as script
from scripts.bench import process
from scripts.bench.tokenizer import command as measure
from scripts.bench.tokenizer import corpus, peers, worker
from scripts.bench.tokenizer.tables import show_tokenizer
from tests.conftest import ROOT
from tok.formats.convert import export_tokenizer
from tok.patterns import split
from tok.tokenizer import BPETokenizer
from utils.errors import UserError

WORKER = "scripts.bench.tokenizer.worker"
TINY = ROOT / "data" / "tiny.txt"


def test_the_command_of_the_docs(run_python):
    """Two more flags shorten it."""
    arguments = ["--corpus", "data/tiny.txt", "--vocab-size", "1024", "--peers"]
    shorter = ["--runs", "1", "--sizes-mb", "0.01", "0.02", "500"]
    done = run_python("-m", "scripts.bench", "tokenizer", *arguments, *shorter, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["command"] == "tokenizer" and record["corpus"]["bytes"] == TINY.stat().st_size
    assert set(record["missing"]) | {peers.PEERS[name] for name in record["versions"]} == set(
        peers.PEERS.values()
    )
    trained = {row["who"]: row for row in record["train"]}
    assert set(trained) == {"ours"} | (set(peers.TRAINERS) & set(record["versions"]))
    for row in trained.values():
        assert row["equal"] is True and row["peak_bytes"] > 5e6
        assert 0 < row["seconds"]["low"] <= row["seconds"]["median"] <= row["seconds"]["high"]
    assert trained["ours"]["ratio"] == {"median": 1, "low": 1, "high": 1}
    encode = record["encode"]
    assert encode["ids"] == 1024 and encode["too_large"] == [500_000_000]
    assert [text["bytes"] for text in encode["texts"]] == [10_000, 20_000]
    for text in encode["texts"]:
        assert text["bytes"] / 6 < text["tokens"] < text["bytes"] / 2
        assert {row["who"] for row in text["rows"]} >= {"ours encode", "ours encode_array"}
        assert all(row["equal"] and row["mb_per_s"]["median"] > 0 for row in text["rows"])
    assert encode["prompt_us"][0]["who"] == encode["load_s"][0]["who"] == "ours"
    people = done.stderr
    assert "training, vocabulary 1,024" in people and "ids equal" in people
    assert "NO" not in people and "500 MB of text: not measured, the corpus is smaller" in people
    for name in record["missing"]:
        assert name in people.splitlines()[-1] and "pip install" in people.splitlines()[-1]


def test_encoding_with_a_file_of_ranks_without_other_libraries(tmp_path, capsys):
    ranks = tmp_path / "x.tiktoken"
    export_tokenizer(BPETokenizer.train(TINY.read_bytes(), vocab_size=400), "tiktoken", ranks)
    argv = ["tokenizer", "--corpus", str(TINY), "--ranks", str(ranks)]
    assert script.main([*argv, "--runs", "1", "--sizes-mb", "0.01"]) == 0
    out = capsys.readouterr().out
    assert f"encoding with {ranks}: 399 ids, pattern gpt2" in out
    assert "training" not in out and "tiktoken encode" not in out and "not installed" not in out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--vocab-size", "300", "--runs", "0"], "--runs: must be at least 1"),
        (["--vocab-size", "300", "--sizes-mb", "1", "0"], "--sizes-mb: must be above 0"),
        (["--vocab-size", "30"], "--vocab-size: vocabulary 30 is too small"),
        ([], "give --vocab-size"),
        (["--vocab-size", "300", "--pattern", "gpt2"], "--pattern needs --ranks"),
        (["--vocab-size", "300", "--corpus", "none.txt"], "none.txt: No such file"),
        (["--vocab-size", "300", "--corpus", "EMPTY"], "EMPTY: the corpus is empty"),
        (["--vocab-size", "300", "--corpus", "BINARY"], "BINARY: not UTF-8 at byte 1"),
        (
            ["--vocab-size", "300", "--corpus", "SHORT"],
            "SHORT: vocabulary 300 can't be filled: .* or set --vocab-size 258$",
        ),
        (["--ranks", "BINARY"], "BINARY: line 1: not a token in base64"),
        (["--ranks", "none.tiktoken"], "none.tiktoken: No such file"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    for name, raw in (("EMPTY", b""), ("BINARY", b"a\xff"), ("SHORT", b"abc")):
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(UserError, match=message):
        corpus = [] if "--corpus" in more else ["--corpus", str(TINY)]
        script.main(["tokenizer", *corpus, *more])


def test_different_ids_are_marked_in_the_table():
    text = {
        "bytes": 2_000_000,
        "tokens": 5,
        "calls": {
            name: {"seconds": seconds, "cpu_s": [1.0, 1.0], "equal": name != "tiktoken list"}
            for name, seconds in {
                "ours encode": [2.0, 4.0],
                "ours encode_array": [1.0, 1.0],
                "tiktoken list": [4.0, 4.0],
                "tiktoken encode_to_numpy": [4.0, 2.0],
            }.items()
        },
    }
    rows = measure.text_rows(text)["rows"]
    assert [row["ratio"]["median"] for row in rows if "ratio" in row] == [1.5, 3.0]
    assert rows[2]["cpu_ratio"]["median"] == 1.0 and rows[2]["cpu_mb_per_s"]["low"] == 2.0
    assert [row["mb_per_s"]["high"] for row in rows] == [1.0, 2.0, 0.5, 1.0]
    spread = {"median": 1.0, "low": 1.0, "high": 1.0}
    record = {
        "corpus": {"path": "x", "bytes": 5, "sha256": "0" * 64, "complete": False},
        "machine": "m",
        "cores": 2,
        "runs": 2,
        "versions": {},
        "missing": ["rustbpe", "gigabpe"],
        "vocab_size": 300,
        "train": [
            {"who": "ours", "seconds": spread, "ratio": spread, "peak_bytes": 1, "equal": True}
            | {"cpu_s": spread, "cpu_ratio": spread},
            {"who": "gigabpe", "error": "no memory"},
        ],
        "encode": {
            "ids": 300,
            "pattern": "gpt2",
            "vocabulary": "v",
            "texts": [measure.text_rows(text)],
            "too_large": [],
            "prompt_us": measure.comparison_rows({"ours": [2.0], "quicktok": [1.0]}),
            "load_s": measure.comparison_rows({"ours": [2.0], "quicktok": [1.0]}),
            "load_cpu_s": measure.comparison_rows({"ours": [2.0], "quicktok": [0.0]}),
        },
    }
    lines = show_tokenizer(record).splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("tiktoken")] == ["NO", "yes"]
    assert any(line.startswith("gigabpe") and "failed: no memory" in line for line in lines)
    assert "everything installed; 100 MB were wanted" in lines[0]
    assert lines[-1] == (
        "not installed and not measured: rustbpe gigabpe (pip install rustbpe gigabpe)"
    )


def test_wrong_ids_and_wrong_merges_are_detected():
    loaders = {
        "ours": lambda: {"encode": lambda text: list(text.encode())},
        "good": lambda: {"batch": lambda text: [list(text[:2].encode()), list(text[2:].encode())]},
        "bad": lambda: {"encode": lambda text: list(text.encode())[:-1]},
    }
    calls = worker.encode_text("abcdef", loaders, 2)["calls"]
    assert {name: call["equal"] for name, call in calls.items()} == {
        "ours encode": True,
        "good batch": True,
        "bad encode": False,
    }
    assert all(len(call["seconds"]) == len(call["cpu_s"]) == 2 for call in calls.values())
    turn = {"seconds": 2.0, "cpu_s": 3.0, "peak_bytes": 5, "tokens": "x"}
    ours = turn | {"seconds": 1.0}
    rows = [measure.training_row("p", [turn, turn], [ours, ours], tokens) for tokens in "xy"]
    assert [row["equal"] for row in rows] == [True, False]
    assert rows[0]["ratio"]["median"] == 2.0 and rows[0]["cpu_ratio"]["median"] == 1.0
    mixed = measure.training_row("p", [turn, turn | {"tokens": "z"}], [ours, ours], "x")
    assert mixed["equal"] is False
    assert measure.training_row("p", [turn, {"error": "e"}], [ours, ours], "x")["error"] == "e"


def test_a_job_in_a_separate_process(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(TINY.read_bytes()[:20_000])
    job = {"what": "train", "name": "ours", "corpus": str(path), "vocab_size": 300}
    figures = process.run_job(job, process.ALL_CORES, WORKER, measure_memory=True)
    tokens = BPETokenizer.train_files([path], vocab_size=300, special_tokens=[]).token_bytes[256:]
    assert figures["tokens"] == worker.tokens_digest(tokens) != worker.tokens_digest(tokens[::-1])
    assert figures["n"] == 44 and figures["seconds"] > 0 and figures["peak_bytes"] > 5e6
    assert "KeyError: 'none'" in process.run_job({**job, "name": "none"}, {}, WORKER)["error"]


def test_memory_of_child_processes_is_counted():
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    import subprocess

    code = "x = bytearray(50_000_000); print(flush=True); input()"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        parent.stdout.readline()
        assert 50e6 < process.process_tree_bytes(parent.pid) < 150e6
        parent.stdin.close()
    assert process.process_tree_bytes(parent.pid) == 0


def test_flatten_ids_of_arrays_and_lists():
    import numpy as np

    assert (
        worker.flatten_ids(np.array([1, 2]))
        == worker.flatten_ids([1, 2])
        == worker.flatten_ids([[1], [], [2]])
    )
    assert worker.flatten_ids([]) == worker.flatten_ids(np.array([], dtype=int)) == []


@given(st.lists(st.sampled_from(["a", "é", "1", " ", "\n", ".", "'s"])), st.integers(1, 9))
def test_blocks_have_the_pretokens_of_the_whole_text(parts, size):
    text = "".join(parts)
    blocks = [block.decode() for block in corpus.safe_blocks(text.encode(), size)]
    assert "".join(blocks) == text and "" not in blocks
    assert [pretoken for block in blocks for pretoken in split(block)] == split(text)
    assert all(len(block.encode()) >= size for block in blocks[:-1])


def test_the_corpus_of_installed_packages(tmp_path, monkeypatch):
    files = {"b.py": "x = 1\n", "a/c.md": "é" * 10, "a/no.txt": b"\xff", "z.rst": "end", "q.c": "c"}
    root = tmp_path / "lib"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr(corpus.sysconfig, "get_paths", lambda: dict.fromkeys(KINDS, str(root)))
    whole = corpus.python_corpus(tmp_path / "out")
    assert whole.read_text(encoding="utf-8") == "é" * 10 + "x = 1\nend"
    cut = corpus.python_corpus(tmp_path / "out", max_bytes=5)
    assert cut.read_text(encoding="utf-8") == "éé" and cut.name != whole.name
    assert corpus.python_corpus(tmp_path / "out") == whole  # the name depends on the content
    assert sorted((tmp_path / "out").iterdir()) == sorted([whole, cut])
    monkeypatch.setattr(corpus, "installed_files", lambda: [])
    with pytest.raises(UserError, match="no Python package with text is installed"):
        corpus.python_corpus(tmp_path / "none")
    assert not (tmp_path / "none").exists()


KINDS = ("purelib", "platlib", "stdlib")


def test_quicktok_gives_equal_ids_with_its_pattern(tmp_path):
    pytest.importorskip("quicktok", reason="not installed (pip install quicktok-v1)")
    trained = BPETokenizer.train(TINY.read_bytes()[:50_000], vocab_size=500, special_tokens=[])
    tokenizer = BPETokenizer(trained.merges, [], pattern="cl100k")
    figures = measure.bench_encoding(TINY, tokenizer, ["quicktok"], 1, [20_000])
    assert all(row["equal"] for row in figures["texts"][0]["rows"])


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k"])
def test_gigatoken_gives_equal_ids(pattern):
    pytest.importorskip("gigatoken", reason="not installed (pip install gigatoken)")
    tokenizer = BPETokenizer.train_files([TINY], vocab_size=600, pattern=pattern)
    figures = measure.bench_encoding(TINY, tokenizer, ["gigatoken"], 1, [20_000])
    rows = {row["who"]: row for row in figures["texts"][0]["rows"]}
    for call in ("gigatoken encode", "gigatoken encode array"):
        assert rows[call]["equal"] and rows[call]["ratio"]["low"] > 0
