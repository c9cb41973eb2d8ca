"""`python -m tok.bpe`, run as users run it: in a process, with pipes."""

import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from tests.conftest import ROOT
from tok.cli import main
from tok.cli_encode import format_ids
from tok.tokenizer import BPETokenizer
from utils.errors import UserError

CORPUS = b"The fox found the river.\r\nThe river found the fox <|endoftext|> na\xc3\xafve\n" * 5


def run(*arguments, stdin=b"", **more):
    return subprocess.run(
        [sys.executable, "-m", "tok.bpe", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        cwd=ROOT,
        timeout=60,
        **more,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "corpus.txt").write_bytes(CORPUS)
    BPETokenizer.train(CORPUS, vocab_size=280).save(folder / "tok.json")
    return folder


def test_train_writes_the_file_and_logs_to_stderr(folder, tmp_path):
    out = tmp_path / "new.json"
    done = run("train", folder / "corpus.txt", "--vocab_size", 280, "--out", out)
    assert (done.returncode, done.stdout) == (0, b"")
    assert f"learned 23 merges from {len(CORPUS)} bytes in 1 file(s)".encode() in done.stderr
    assert out.read_bytes() == (folder / "tok.json").read_bytes()


def test_train_accepts_folders_and_bytes(tmp_path, capsys):
    (tmp_path / "texts" / "sub").mkdir(parents=True)
    (tmp_path / "texts" / "a.txt").write_bytes(CORPUS)
    (tmp_path / "texts" / "sub" / "b.txt").write_bytes(b"\xff\xff\xff")
    arguments = [
        "train",
        str(tmp_path / "texts"),
        "--vocab-size=260",
        "--out",
        str(tmp_path / "t.json"),
    ]
    with pytest.raises(UserError, match=r"b\.txt: not UTF-8 at byte 0 \(0xff\); .* --errors bytes"):
        main(arguments)
    assert not (tmp_path / "t.json").exists()
    assert main([*arguments, "--errors", "bytes"]) == 0
    assert "2 file(s)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "raw", [b"", b"The fox\r\n", b"\xef\xbb\xbfa\x00b\n\n", "Zoë 😀 年\n".encode(), CORPUS * 40]
)
def test_encode_and_decode_in_a_pipe_are_inverse(folder, raw):
    tokenizer = ["--tokenizer", folder / "tok.json"]
    encoded = run("encode", *tokenizer, stdin=raw)
    assert encoded.returncode == 0
    assert encoded.stdout.count(b"\n") == 1 and encoded.stdout.isascii()
    decoded = run("decode", *tokenizer, stdin=encoded.stdout)
    assert (decoded.returncode, decoded.stdout) == (0, raw)
    assert f"{len(raw):,} bytes".encode() in encoded.stderr


@pytest.mark.parametrize("kind", ["hf", "tiktoken", "gpt2"])
def test_export_and_import_on_the_command_line(folder, tmp_path, capsys, kind):
    out, back = tmp_path / "out", tmp_path / "back.json"
    assert main(["export", str(folder / "tok.json"), "--to", kind, "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(f"wrote {out}")
    assert ("not in it: pattern gpt2; special tokens <|endoftext|>=279" in captured.err) == (
        kind == "tiktoken"
    )
    files = sorted(map(str, out.iterdir())) if kind == "gpt2" else [str(out)]
    more = ["--pattern", "gpt2", "--special", "<|endoftext|>=279"] if kind == "tiktoken" else []
    assert main(["import", *files, *more, "--out", str(back)]) == 0
    assert "280 ids: 256 bytes, 23 merges, special tokens <|endoftext|>=279" in (
        capsys.readouterr().err
    )
    assert back.read_bytes() == (folder / "tok.json").read_bytes()


def test_train_with_the_byte_order_of_gpt2(folder, tmp_path):
    out = tmp_path / "tok.json"
    arguments = ["train", str(folder / "corpus.txt"), "--vocab-size", "280", "--out", str(out)]
    assert main([*arguments, "--byte_order", "gpt2"]) == 0
    assert BPETokenizer.load(out) == BPETokenizer.train(CORPUS, vocab_size=280, byte_order="gpt2")
    assert main(arguments) == 0
    assert out.read_bytes() == (folder / "tok.json").read_bytes()


def test_any_bytes_with_errors_bytes(folder):
    tokenizer = ["--tokenizer", folder / "tok.json"]
    raw = bytes(range(256)) * 3
    refused = run("encode", *tokenizer, stdin=raw)
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert refused.stderr.startswith(b"error: standard input: not UTF-8 at byte 128 (0x80)")
    encoded = run("encode", *tokenizer, "--errors", "bytes", stdin=raw)
    assert run("decode", *tokenizer, stdin=encoded.stdout).stdout == raw


def test_arguments_and_files(folder, tmp_path):
    tokenizer = BPETokenizer.load(folder / "tok.json")
    source = ["--tokenizer", folder / "tok.json"]
    done = run("encode", "The fox", "😀", *source)
    lines = [" ".join(map(str, tokenizer.encode(text))) for text in ("The fox", "😀")]
    assert done.stdout.decode().split("\n") == [*lines, ""]
    ids = tmp_path / "ids.txt"
    ids.write_bytes(run("encode", "--file", folder / "corpus.txt", *source).stdout)
    assert run("decode", "--file", ids, *source).stdout == CORPUS
    assert run("decode", 84, 104, 101, *source).stdout == b"The"
    assert run("decode", *source, stdin=b" 84\n104\t 101\n\n").stdout == b"The"


def test_an_argument_that_is_not_utf8(folder):
    source = ["--tokenizer", str(folder / "tok.json")]
    command = [os.fsencode(part) for part in (sys.executable, "-m", "tok.bpe", "encode", *source)]
    refused = subprocess.run([*command, b"a\xff"], cwd=ROOT, capture_output=True, timeout=60)
    assert refused.returncode == 2 and b"not UTF-8 at byte 1" in refused.stderr
    accepted = subprocess.run(
        [*command, b"a\xff", b"--errors=bytes"], cwd=ROOT, capture_output=True, timeout=60
    )
    assert accepted.stdout == b"97 255\n"


def test_special_tokens_only_when_allowed(folder, capsys):
    eot = BPETokenizer.load(folder / "tok.json").eot_id
    source = ["--tokenizer", str(folder / "tok.json")]
    main(["encode", "<|endoftext|>", *source])
    plain = capsys.readouterr().out.split()
    assert str(eot) not in plain and len(plain) > 1
    main(["encode", "<|endoftext|>", "--allow_special", *source])
    assert capsys.readouterr().out == f"{eot}\n"


def test_the_default_tokenizer_is_the_committed_one():
    done = run("encode", "Once upon a time")
    assert done.returncode == 0
    committed = BPETokenizer.load(ROOT / "tok" / "bpe.json")
    assert committed.decode(map(int, done.stdout.split())) == "Once upon a time"


def test_a_missing_default_tokenizer_is_an_error_with_a_hint(monkeypatch, tmp_path):
    monkeypatch.setattr("tok.cli.DEFAULT_TOKENIZER", tmp_path / "bpe.json")
    with pytest.raises(UserError, match=r"default tokenizer is missing; .* --vocab-size 2048"):
        main(["encode", "a"])


MISTAKES = [
    (["train", "none.txt", "--vocab-size", "300", "--out", "OUT"], "none.txt: No such file"),
    (["train", "EMPTY", "--vocab-size", "300", "--out", "OUT"], "EMPTY: no text to train on"),
    (
        ["train", *["EMPTY"] * 4, "--vocab-size", "300", "--out", "OUT"],
        "EMPTY, EMPTY, EMPTY, ...: no text",
    ),
    (["train", "CORPUS", "--vocab-size", "100", "--out", "OUT"], "vocabulary 100 is too small"),
    (
        ["train", "CORPUS", "--vocab-size", "9999", "--out", "OUT"],
        "gives at most 287; use more text, or set --vocab-size 287",
    ),
    (
        ["train", "CORPUS", "--vocab-size", "x", "--out", "OUT"],
        "argument --vocab-size: invalid int",
    ),
    (["train", "CORPUS", "--vocab-size", "300"], "required: --out"),
    (
        ["train", "CORPUS", "--vocab-size", "300", "--out", "."],
        "--out .: this is a folder; name a file",
    ),
    (
        ["train", "CORPUS", "--vocab-size", "300", "--out", "no/t.json"],
        "--out no/t.json: there is no folder no; make it first",
    ),
    (["train", "CORPUS", "--vocab-siz", "300", "--out", "OUT"], "--vocab-size"),
    (
        ["encode", "a", "--file", "CORPUS", "--tokenizer", "TOK"],
        "give either text or --file, not both",
    ),
    (
        ["decode", "1", "--file", "CORPUS", "--tokenizer", "TOK"],
        "give either ids or --file, not both",
    ),
    (["encode", "a", "--tokenizer", "CORPUS"], "CORPUS: not valid JSON"),
    (["encode", "a", "--tokenizer", "none.json"], "none.json: No such file"),
    (["encode", "--file", "none.txt", "--tokenizer", "TOK"], "none.txt: No such file"),
    (["encode", "--file", ".", "--tokenizer", "TOK"], ".: Is a directory"),
    (
        ["decode", "x", "--tokenizer", "TOK"],
        "ids: 'x' is not an id; ids are whole numbers separated by blanks",
    ),
    (["decode", "-1", "--tokenizer", "TOK"], "ids: id -1 is out of range: the ids are 0 to 279"),
    (["decode", "280", "--tokenizer", "TOK"], "ids: id 280 is out of range: the ids are 0 to 279"),
    (["decode", "--file", "CORPUS", "--tokenizer", "TOK"], "CORPUS: 'The' is not an id"),
    (["encod", "a"], "invalid choice: 'encod'"),
    (
        ["import", "CORPUS", "--pattern", "gpt2", "--out", "OUT"],
        "CORPUS: line 1: not a token in base64 and a rank",
    ),
    (["import", "TOK", "--out", "OUT"], "TOK: this is already a tokenizer of llm-tiny"),
    (["import", "EMPTY", "--out", "OUT"], "EMPTY: the 256 single bytes must be there"),
    (["import", "none", "--out", "OUT"], "none: No such file"),
    (
        ["import", "TOK", "--out", "no/t.json"],
        "--out no/t.json: there is no folder no; make it first",
    ),
    (
        ["import", "TOK", "--special", "a", "--special", "a=1", "--out", "OUT"],
        "--special 'a' is given twice",
    ),
    (["import", "TOK", "--special", "", "--out", "OUT"], "a special token can't be empty"),
    (["import", "TOK", "--pattern", "x", "--out", "OUT"], "invalid choice: 'x'"),
    (["export", "CORPUS", "--to", "hf", "--out", "OUT"], "CORPUS: not valid JSON"),
    (["export", "TOK", "--to", "xml", "--out", "OUT"], "invalid choice: 'xml'"),
    (["export", "TOK", "--to", "hf", "--out", "."], "--out .: this is a folder; name a file"),
    (
        ["export", "TOK", "--to", "gpt2", "--out", "EMPTY"],
        "--out EMPTY: this is a file; name a folder",
    ),
    ([], "required: train|encode|decode|import|export"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[m for _, m in MISTAKES])
def test_mistakes_are_user_errors_and_write_nothing(
    folder, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    names = {name: tmp_path / name for name in ("EMPTY", "CORPUS", "TOK")}
    names["EMPTY"].write_bytes(b"")
    names["CORPUS"].write_bytes(CORPUS)
    names["TOK"].write_bytes((folder / "tok.json").read_bytes())
    with pytest.raises(UserError) as caught:
        main(arguments)
    assert message in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["CORPUS", "EMPTY", "TOK"]


def test_a_user_error_is_one_line_and_exit_status_2(folder):
    done = run("decode", "999", "--tokenizer", folder / "tok.json")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"error: ids: id 999 is out of range: the ids are 0 to 279\n"


def test_help_and_encode_do_not_import_torch_yaml_or_tqdm():
    code = (
        "import sys; from tok.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "main(['encode', 'a'])\n"
        "print(sorted({'torch', 'yaml', 'tqdm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60)
    assert b"train|encode|decode|import|export" in done.stdout and done.stdout.endswith(
        b"\n97\n[]\n"
    ), done


def test_decode_adds_a_newline_on_a_terminal(folder):
    if sys.platform == "win32":
        pytest.skip("needs a pseudo terminal")
    import pty

    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "tok.bpe",
        "decode",
        "72",
        "105",
        "--tokenizer",
        folder / "tok.json",
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=theirs, stderr=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0
    assert os.read(ours, 100) == b"Hi\r\n"
    os.close(ours)
    os.close(theirs)


def test_a_closed_pipe_is_not_an_error(folder, tmp_path):
    long = tmp_path / "long.txt"
    long.write_bytes(CORPUS * 2000)
    command = [
        sys.executable,
        "-m",
        "tok.bpe",
        "encode",
        "--file",
        long,
        "--tokenizer",
        folder / "tok.json",
    ]
    writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout.read(10)
    writer.stdout.close()
    assert b"Traceback" not in writer.stderr.read()
    assert writer.wait(timeout=60) == 0


def test_workers_give_the_same_ids_and_nothing_is_printed_for_invalid_text(
    folder, tmp_path, capsysbinary, monkeypatch
):
    monkeypatch.setattr("tok.encoding.parallel.JOB_BYTES", 2000)
    monkeypatch.setattr("tok.encoding.parallel.MAX_SERIAL_JOBS", 1)
    path = tmp_path / "large.txt"
    path.write_bytes(CORPUS * 2000)
    expected = BPETokenizer.load(folder / "tok.json").encode(CORPUS * 2000)
    source = ["--tokenizer", str(folder / "tok.json"), "--file", str(path)]
    for workers in ("1", "2"):
        main(["encode", *source, "--workers", workers])
        assert capsysbinary.readouterr().out == " ".join(map(str, expected)).encode() + b"\n"
    path.write_bytes(CORPUS * 2000 + b"\xe5\xb9")
    with pytest.raises(UserError, match=rf"not UTF-8 at byte {2000 * len(CORPUS)} \(0xe5\)"):
        main(["encode", *source])
    assert capsysbinary.readouterr().out == b""
    with pytest.raises(UserError, match="--workers: must be at least 0, got -1"):
        main(["encode", "a", "--workers", "-1"])


def test_formatting_many_ids_takes_little_more_memory_than_their_text():
    ids, expected = np.arange(1_000_000) % 60_000, b" %d"
    format_ids(60_000, ids[:1])  # makes the table of texts
    tracemalloc.start()
    text = format_ids(60_000, ids)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert text == b"".join(expected % i for i in ids.tolist())
    assert peak_bytes < 2 * len(text)
