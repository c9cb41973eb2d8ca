"""`python -m tok.bpe train`: the flags for splitting and counting text."""

import gzip
import lzma

import pytest

from tok.cli import main
from tok.tokenizer import BPETokenizer
from tok.training import count_files
from utils.errors import UserError

CORPUS = b"The fox found the river.\r\nThe river found the fox <|endoftext|> na\xc3\xafve\n" * 5


def test_train_with_another_pattern(tmp_path):
    out = tmp_path / "tok.json"
    raw = b"12345 " * 50 + CORPUS  # cl100k splits after three digits
    (tmp_path / "digits.txt").write_bytes(raw)
    arguments = ["train", str(tmp_path / "digits.txt"), "--vocab-size", "270", "--out", str(out)]
    assert main([*arguments, "--pattern", "cl100k"]) == 0
    trained = BPETokenizer.load(out)
    assert trained == BPETokenizer.train(raw, vocab_size=270, pattern="cl100k")
    assert main(arguments) == 0
    default = BPETokenizer.load(out)
    assert (default.pattern, trained.pattern) == ("gpt2", "cl100k")
    assert default.merges != trained.merges


def test_train_with_any_number_of_workers(tmp_path, monkeypatch):
    trained = BPETokenizer.train(CORPUS, vocab_size=280)
    seen = []
    count = count_files._count

    def recording_count(spans, pattern, errors, workers, on_bytes):
        seen.append(workers)
        return count(spans, pattern, errors, workers, on_bytes)

    monkeypatch.setattr(count_files, "_count", recording_count)
    out, text = tmp_path / "tok.json", tmp_path / "corpus.txt"
    text.write_bytes(CORPUS)
    arguments = ["train", str(text), "--vocab-size", "280", "--out", str(out)]
    for more in (["--workers", "1"], ["--workers", "3"], []):
        assert main([*arguments, *more]) == 0
        assert BPETokenizer.load(out) == trained
        out.unlink()
    assert seen == [1, 3, 0]
    with pytest.raises(UserError, match="--workers: must be at least 0, got -1"):
        main([*arguments, "--workers", "-1"])
    assert not out.exists()


def test_a_picture_among_the_texts_is_left_out(tmp_path, capsys):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_bytes(CORPUS)
    (tmp_path / "texts" / "cat.png").write_bytes(b"\x89PNG")
    out = tmp_path / "tok.json"
    arguments = ["train", str(tmp_path / "texts"), "--vocab-size", "280", "--out", str(out)]
    with pytest.raises(UserError, match=r"cat.png: not UTF-8 .*such as --include '\*.txt'"):
        main(arguments)
    assert main([*arguments, "--include", "*.txt"]) == 0
    assert "reading 1 file; left out: 1 that does not match '*.txt'\n" in capsys.readouterr().err
    assert BPETokenizer.load(out) == BPETokenizer.train(CORPUS, vocab_size=280)
    arguments[1] += "/a.txt"
    with pytest.raises(UserError, match="--include: has an effect only on folders"):
        main([*arguments, "--include", "*.txt"])


def test_a_json_lines_file_gives_a_warning(tmp_path, capsys):
    out, lines = tmp_path / "tok.json", tmp_path / "a.JSONL"
    lines.write_bytes(b'{"text": "the cat sat"}\n' * 9)
    (tmp_path / "b.txt").write_bytes(CORPUS)
    arguments = ["--vocab-size", "270", "--out", str(out)]
    assert main(["train", str(tmp_path), *arguments]) == 0
    warning = capsys.readouterr().err.splitlines()[0]
    assert warning.startswith(f"warning: {lines}: the tokenizer learns the JSON syntax too")
    assert main(["train", str(tmp_path / "b.txt"), *arguments]) == 0
    assert "warning" not in capsys.readouterr().err
    out.unlink()
    (tmp_path / "c.jsonl.gz").write_bytes(b"\x1f\x8b\x08")
    message = r"c.jsonl.gz: compressed; decompress it first \(gunzip --keep\), or .*txt'$"
    with pytest.raises(UserError, match=message):
        main(["train", str(tmp_path), *arguments, "--errors", "bytes"])
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.json", b'[{"text": "once upon a time"}]'),
        ("a.txt", b'{"text": "once upon a time"}\n' * 9),
        ("b", b"[\n" + b'{"text": "once upon a time"}\n'),
    ],
)
def test_json_under_any_name_gives_a_warning(name, raw, tmp_path, capsys):
    (tmp_path / name).write_bytes(raw)
    out = tmp_path / "tok.json"
    assert main(["train", str(tmp_path / name), "--vocab-size", "258", "--out", str(out)]) == 0
    assert f"warning: {tmp_path / name}: the tokenizer learns the JSON" in capsys.readouterr().err


@pytest.mark.parametrize("raw", [gzip.compress(b"once"), lzma.compress(b"once"), b"PK\3\4..."])
def test_compressed_content_under_a_name_of_text_is_refused(raw, tmp_path):
    (tmp_path / "a.txt").write_bytes(raw)
    argv = ["train", str(tmp_path), "--vocab-size", "258", "--errors", "bytes"]
    with pytest.raises(UserError, match=r"a.txt: compressed; decompress it first"):
        main([*argv, "--out", str(tmp_path / "tok.json")])
    assert not (tmp_path / "tok.json").exists()
