"""JSON lines, gzip and streams: the same documents as from whole files, and exact errors."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data import documents, prepare, readers
from data.config import DataConfig
from data.documents import read_documents, split_documents, stream_documents
from tests.helpers.runs import make_text
from tok.tokenizer import BPETokenizer
from utils.errors import UserError

FRAGMENTS = st.sampled_from(["a", "aa", "b", "%", "\n", "\r\n", "\r", " ", "\t", "é", "🙂", "\n\n"])


class Dribble(io.BytesIO):
    """A stream that returns at most a few bytes per read, as pipes do."""

    def __init__(self, raw: bytes, limit: int) -> None:
        super().__init__(raw)
        self.limit = limit

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self.limit)


@given(
    raw=st.lists(FRAGMENTS, max_size=40).map(lambda parts: "".join(parts).encode()),
    doc_sep=st.sampled_from(["", "blank-line", "%", "aa", "aaa", "\\n", "ab", "é"]),
    limit=st.integers(1, 9),
)
@example(
    raw=b"a\n\n \nb", doc_sep="blank-line", limit=3
)  # the separator continues in the next block
@example(raw=b"a\n\n\r\nb", doc_sep="blank-line", limit=4)
@example(raw=b"aaab", doc_sep="aa", limit=3)
def test_a_stream_has_the_documents_of_the_whole_file(raw: bytes, doc_sep: str, limit: int) -> None:
    wanted = split_documents(raw, doc_sep)
    assert list(stream_documents(Dribble(raw, limit), doc_sep)) == wanted
    assert list(stream_documents(io.BytesIO(raw), doc_sep)) == wanted


def test_little_more_than_a_document_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "BLOCK_BYTES", 64)
    sizes = []

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            sizes.append(size)
            return super().read(size)

    raw = b"%".join(b"x" * (30 + n % 50) for n in range(500))
    assert list(stream_documents(Watched(raw), "%")) == raw.split(b"%")
    assert len(sizes) > 300 and max(sizes) <= 160


@given(
    texts=st.lists(st.text(max_size=9), max_size=6),
    field=st.sampled_from(["text", "story body"]),
    newline=st.sampled_from(["\n", "\r\n", "\n\n"]),
    ascii_only=st.booleans(),
)
def test_each_json_line_is_a_document(
    texts: list[str], field: str, newline: str, ascii_only: bool, tmp_path_factory: object
) -> None:
    texts = [text for text in texts if text.encode("utf-8", "replace").decode() == text]
    lines = [json.dumps({"id": 1, field: text}, ensure_ascii=ascii_only) for text in texts]
    raw = newline.join(lines).encode()
    folder = tmp_path_factory.mktemp("json", numbered=True)  # type: ignore[attr-defined]
    wanted = [text.encode() for text in texts if text]
    for name, content in (("a.jsonl", b"\xef\xbb\xbf" + raw), ("b.ndjson.gz", gzip.compress(raw))):
        (folder / name).write_bytes(content)
        assert list(read_documents([folder / name], "", "strict", field=field)) == wanted


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a"', r"not JSON at character 12: Expecting ',' delimiter"),
        (b"text", "not JSON at character 0: Expecting value"),
        (b'["text"]', r'expected an object such as {"text": "..."}'),
        (b"{}", "no field 'text'; it has nothing; name the field with the text"),
        (b'{"body": 1, "Text": 2}', "no field 'text'; it has 'Text', 'body'; name"),
        (b'{"a": "x", "content": "one two", "b": [1]}', "--data.json_field content$"),
        (b'{"a": "x", "my text": "one two", "text": 1}', "--data.json_field 'my text'$"),
        (b'{"a\\nb": "x"}', "--data.json_field NAME$"),
        (b'{"v": "1.0", "data": [{"text": "one"}]}', r"\('data'\) is not supported.* .jsonl file$"),
        (b'{"text": [{"text": "one"}]}', r"of records .* is not supported.* .jsonl file$"),
        (b'{"text": 3}', r"the field 'text' holds no text \(its Python type is int"),
        (b'{"text": null}', "the field 'text' holds no text"),
        (b'{"text": "a\\ud800b"}', "holds half a character .* at character 1, which is not text"),
        (b'{"text": "a\xff"}', r"not UTF-8 at byte 11 \(0xff\); JSON lines are UTF-8"),
        (b'{"text": ' + b"[" * 100_000, "JSON that can't be read"),
        (b'{"n": ' + b"9" * 5000 + b', "text": 3}', "JSON that can't be read|holds no text"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_the_error_names_a_bad_line(
    line: bytes, message: str, packed: bool, tmp_path: Path
) -> None:
    path = tmp_path / ("a.jsonl.gz" if packed else "a.jsonl")
    raw = b'{"text": "good"}\n\n' + line + b'\n{"text": "never reached"}\n'
    path.write_bytes(gzip.compress(raw) if packed else raw)
    for errors in ("strict", "bytes"):
        found = read_documents([path], "", errors)
        assert next(found) == b"good"
        with pytest.raises(UserError, match=f"^{path}:3: .*{message}") as caught:
            next(found)
        assert len(str(caught.value)) < 1000 + len(str(path))


def test_gzip_is_decompressed_and_damage_is_a_user_error(tmp_path: Path) -> None:
    raw = b"one\n\ntwo\n\n" * 9999 + "é".encode()
    good = gzip.compress(raw)
    path = tmp_path / "a.txt.GZ"
    path.write_bytes(good)
    assert list(read_documents([path], "blank-line", "strict")) == split_documents(
        raw, "blank-line"
    )
    path.write_bytes(
        gzip.compress(b"one") + gzip.compress(b"two")
    )  # two members, as from `cat a.gz b.gz`
    assert list(read_documents([path], "", "strict")) == [b"onetwo"]
    path.write_bytes(gzip.compress(b"good\xff"))
    with pytest.raises(UserError, match=r"a\.txt\.GZ \(unpacked\): not UTF-8 at byte 4 \(0xff\)"):
        list(read_documents([path], "", "strict"))
    assert list(read_documents([path], "", "bytes")) == [b"good\xff"]
    for bad, message in (
        (good[:-9], "cut short"),
        (b"plain text", "not gzip"),
        (good[:20] + b"\0\0\0\0" + good[24:], "not gzip, or damaged"),
        (good[:-6] + b"\0\0" + good[-4:], "not gzip, or damaged"),
    ):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=rf"^{path}: {message}"):
            list(read_documents([path], "", "strict"))
    with pytest.raises(UserError, match="Is a directory"):
        list(read_documents([tmp_path], "", "strict"))
    with pytest.raises(UserError, match="none.gz: No such file"):
        list(read_documents([tmp_path / "none.gz"], "", "strict"))


def test_the_error_names_the_byte_that_is_not_utf8_in_any_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "BLOCK_BYTES", 2)
    path = tmp_path / "a.txt"
    text = "ab🙂é%".encode()
    for n in range(12):
        for bad in (b"\xff", b"\xe9", b"\xf0\x9f"):
            path.write_bytes(text * n + bad)
            with pytest.raises(UserError, match=rf"a\.txt: not UTF-8 at byte {len(text) * n} "):
                list(read_documents([path], "%", "strict"))
        path.write_bytes(text * n)
        assert list(read_documents([path], "%", "strict")) == ["ab🙂é".encode()] * n


def test_a_folder_of_mixed_formats_is_prepared(tmp_path: Path) -> None:
    """Text, JSON lines and gzip give the same tokens as plain files of the same documents."""
    BPETokenizer.train(make_text(), vocab_size=300).save(tmp_path / "tok.json")
    texts = [f"the cat {n} sat" for n in range(12)]
    lines = "\n".join(json.dumps({"body": text}) for text in texts[2:8])
    mixed, plain = tmp_path / "mixed", tmp_path / "plain"
    mixed.mkdir()
    plain.mkdir()
    (mixed / "a.txt").write_bytes(texts[0].encode())
    (mixed / "b.txt.gz").write_bytes(gzip.compress(texts[1].encode()))
    (mixed / "c.jsonl").write_bytes(lines.encode())
    (mixed / "d.jsonl.gz").write_bytes(
        gzip.compress("\n".join(json.dumps({"body": text}) for text in texts[8:]).encode())
    )
    for n, text in enumerate(texts):
        (plain / f"{n:02d}.txt").write_bytes(text.encode())
    made = []
    for files, field in ((mixed, "body"), (plain, "text")):
        out = tmp_path / f"{files.name}-out"
        argv = [str(files), "--tokenizer", str(tmp_path / "tok.json"), "--out", str(out)]
        argv += ["--json-field", field] if field != "text" else []
        assert prepare.main([*argv, "--val-fraction", "0.2"]) == 0
        made.append([(out / f"{part}.npy").read_bytes() for part in ("train", "val")])
        assert json.loads((out / "meta.json").read_text(encoding="utf-8"))["split"] == "documents"
    assert made[0] == made[1]


def test_settings_without_effect_are_errors_and_file_names_change_the_recipe(
    tmp_path: Path,
) -> None:
    text, lines = tmp_path / "a.txt", tmp_path / "a.jsonl"
    text.write_bytes(b"once\n")
    lines.write_bytes(b'{"text": "a", "b": "c"}\n')
    with pytest.raises(UserError, match="--data.json_field: has an effect only on JSON, and none"):
        prepare.DocumentSource(DataConfig(files=(str(text),), json_field="b"))
    for name in ("a.jsonl", "b.json"):
        (tmp_path / name).write_bytes(lines.read_bytes())
        with pytest.raises(UserError, match=rf"--doc-sep: has no effect on .*{name}, where each"):
            prepare.main([str(tmp_path / name), "--doc-sep", "%", "--out", str(tmp_path / "out")])
    (tmp_path / "b.json").unlink()
    both = DataConfig(files=(str(tmp_path),), doc_sep="%", json_field="b")
    assert list(prepare.DocumentSource(both)._read([text, lines])) == [b"once", b"c"]
    text.write_bytes(lines.read_bytes())
    settings = [(text, "text"), (lines, "text"), (lines, "b"), (lines, "")]
    recipes = [
        json.dumps(
            prepare.DocumentSource(DataConfig(files=(str(path),), json_field=field)).recipe()
        )
        for path, field in settings
    ]
    assert len(set(recipes)) == 4 and "kinds" not in recipes[0], "that of text does not change"


LAYOUTS = {
    "lines": lambda objects: "\n".join(map(json.dumps, objects)),
    "lines, blank lines": lambda objects: "\n\n \n" + "\r\n\n".join(map(json.dumps, objects)),
    "array": json.dumps,
    "array, dense": lambda objects: json.dumps(objects, separators=(",", ":")),
    "array of lines": lambda objects: "[\n" + ",\n".join(map(json.dumps, objects)) + "\n]\n",
    "array, indented": lambda objects: "\n" + json.dumps(objects, indent=2) + "\n",
    "objects, indented": lambda objects: "\n".join(json.dumps(one, indent=1) for one in objects),
}


@pytest.mark.parametrize("head_bytes", [1 << 20, 40])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "name", ["a.json", "c4-train.00000-of-01024.json.gz", "a.JSONL", "a.ndjson"]
)
def test_json_is_read_by_its_content(
    name: str, layout: str, head_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "HEAD_BYTES", head_bytes)
    texts = ["The cat 0 sat", 'é🙂"\\ \n\t', "]}, [{", "", "x" * 300, "\u2028\x85"]
    objects = [{"n": [n, {"m": 1.5e3}], "text": text, "url": None} for n, text in enumerate(texts)]
    raw = LAYOUTS[layout](objects).encode()
    for content in (raw, b"\xef\xbb\xbf" + raw):
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        found = list(read_documents([tmp_path / name], "", "strict"))
        assert found == [text.encode() for text in texts if text]
    assert list(read_documents([tmp_path / name], "", "strict", field="")) == [content]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'[{"text": "a"},\n {"text": "b"}\n', ":3: not JSON: the array has no end"),
        (b'[{"text": "a"},\n {"text": "b"},]', ":2: not JSON: Expecting value"),
        (b'[{"text": "a"}\n {"text": "b"}]', ":2: not JSON: expected , or ] after a value"),
        (b'[{"text": "a"}]\n[{"text": "b"}]', ":2: not JSON: there is more after the array"),
        (b'["a"]', r':1: expected an object such as \{"text": "..."\}'),
        (b'[\n{"body": "a"}]', ":2: no field 'text'; it has 'body'"),
        (b'{\n "text": "a"\n}\n{\n "text": 3\n}', ":4: the field 'text' holds no text"),
        (b'{\n "text": "a"\n "b": 1}', ":3: not JSON: Expecting ',' delimiter"),
        (b'{\n "text": "a\n', ":2: not JSON: Invalid control character|:2: not JSON: Unterminated"),
        (b'{\n "text": "a\xff"}', r": not UTF-8 at byte 13 \(0xff\)"),
        (b'{\n "text": "' + "é".encode()[:1], r": not UTF-8 at byte 12 \(0xc3\)"),
        (b"[" * 100_000, ":1: JSON that can't be read"),
        (b"once upon a time", ":1: not JSON at character 0: Expecting value"),
    ],
)
def test_the_error_names_the_line_of_json_that_spans_lines(
    raw: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=f"^{path}(?:{message})"):
        list(read_documents([path], "", "strict"))


def zipped() -> bytes:
    """Return a zip file of one text."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "once")
    return file.getvalue()


def tarred() -> bytes:
    """Return a tar file of one text."""
    file = io.BytesIO()
    with tarfile.TarFile(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.txt", gzip.compress(b"once"), "holds gzip data, .* or rename it to a.txt.gz"),
        ("a.json", gzip.compress(b'{"text": "a"}'), "holds gzip data"),
        ("a.txt.gz", gzip.compress(gzip.compress(b"once")), "holds gzip data"),
        ("a.tar.gz", gzip.compress(tarred()), "holds tar data, not text; unpack it$"),
        ("corpus", tarred(), "holds tar data"),
        ("a.txt", zipped(), "holds zip data"),
        ("a.txt", bz2.compress(b"once"), "holds bzip2 data"),
        ("a.txt", lzma.compress(b"once"), "holds xz data"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfd once", "holds Zstandard data"),
        ("a.txt", b'{"text": "a"}\n{"text": "b"}', "holds JSON objects with a field 'text', but"),
        ("a", b'\xef\xbb\xbf\n[\n {"n": 1, "text": "a"}\n]', "holds JSON objects"),
        ("a.txt.gz", gzip.compress(b'{"text":\n "a"}'), "holds JSON objects"),
    ],
)
@pytest.mark.parametrize("errors", ["strict", "bytes"])
def test_content_that_contradicts_the_name_is_refused(
    name: str, raw: bytes, message: str, errors: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(raw)
    with pytest.raises(UserError, match=f"^{path}.*: {message}"):
        list(read_documents([path], "", errors))
    if "JSON" in message:
        packed = name.endswith(".gz")
        wanted = gzip.decompress(raw) if packed else raw
        assert list(read_documents([path], "", errors, field="")) == [wanted]
        assert list(read_documents([path], "", errors, field="other")) == [wanted]


def test_the_error_about_a_missing_corpus_says_how_to_download_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match="No such file .*; `python -m data.download enwik8` downloads"
    ):
        prepare.DocumentSource(DataConfig(files=("corpora/enwik8/enwik8",)))
    with pytest.raises(UserError, match=r"^mytext.txt: No such file .* \(looked in /.*\)$"):
        prepare.DocumentSource(DataConfig(files=("mytext.txt",)))
