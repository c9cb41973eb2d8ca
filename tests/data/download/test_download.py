"""data.download: the table, the command against a local server, and hostile zip files."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data.download import __main__ as download
from data.download.__main__ import unzip
from data.download.known_corpora import CORPORA, CORPORA_FOLDER, Content, KnownCorpus, Source
from tests.data.download import serving
from tests.data.download.serving import breaks, good, status
from tests.helpers.corpora import corpus_path
from train import Config
from utils.config.load import load
from utils.errors import UserError

TEXT, OTHER = b"the text\n" * 999, b"another text\n" * 99
MEMBER = "folder/a.txt"


def content(name: str, raw: bytes) -> Content:
    return Content(name, len(raw), hashlib.sha256(raw).hexdigest())


def zipped(**members: bytes) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), member)
    return raw.getvalue()


ZIP = zipped(folder__a_txt=TEXT, folder__b_txt=OTHER, __evil_txt=b"evil")


def test_the_table_is_consistent() -> None:
    assert [one.name for one in CORPORA] == [
        "tinyshakespeare",
        "tinystories",
        "wikitext2",
        "enwik8",
        "text8",
    ]
    names = set()
    for corpus in CORPORA:
        assert corpus.licence and corpus.about and corpus.sources
        for source in corpus.sources:
            assert source.published and all(url.startswith("https://") for url in source.urls)
            for one in (source.content, *source.members, *source.texts()):
                assert re.fullmatch("[0-9a-f]{64}", one.sha256) and one.size_bytes > 0
            assert all("/" not in text.name and ".." not in text.name for text in source.texts())
            if source.members:
                assert source.content.name.endswith(".zip")
            names |= {(corpus.name, text.name) for text in source.texts()}
    assert len(names) == 8


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)
def test_each_corpus_has_its_config(corpus: KnownCorpus, root: Path) -> None:
    config, _ = load(Config, [str(root / "configs" / f"{corpus.name}.yaml")], {})
    texts = {text.name for source in corpus.sources for text in source.texts()}
    files = [Path(name) for name in (*config.data.files, *config.data.val_files)]
    assert files and all(path.parent == Path(CORPORA_FOLDER, corpus.name) for path in files)
    assert {path.name for path in files} == texts - {"wiki.test.raw"}


def test_only_tinyshakespeare_is_marked_as_tried() -> None:
    (source,) = next(one for one in CORPORA if one.name == "tinyshakespeare").sources
    assert [one for c in CORPORA for one in c.sources if one.tried_by_us] == [source]
    text = corpus_path("shakespeare.txt")
    assert content("input.txt", text.read_bytes()) == source.content


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that replaces the table: `one` is a text, `two` a zip file."""
    serving.allow_here(monkeypatch)

    def put(*urls: str) -> None:
        one = Source(content("one.txt", TEXT), urls, "a test", tried_by_us=True)
        two = Source(
            content("two.zip", ZIP), urls, "a test", members=(content("folder/a.txt", TEXT),)
        )
        table = (KnownCorpus("one", "a", "MIT", (one,)), KnownCorpus("two", "b", "GFDL", (two,)))
        monkeypatch.setattr(download, "CORPORA", table)

    return put


Known = Callable[..., None]


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_text_is_downloaded_once(
    known: Known, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["one", "--out", str(tmp_path)]
    with serving.serving(breaks(TEXT, 99), good(TEXT)) as server:
        known(server.url)
        assert download.main(argv) == 0
        out, err = capsys.readouterr()
        assert json.loads(out) == {"corpus": "one", "files": [str(tmp_path / "one" / "one.txt")]}
        assert server.url in err and "not tried" not in err
        assert download.main(argv) == 0 and server.n_requests == 2
    assert capsys.readouterr() == (out, "one.txt: already there, sha256 verified\n")
    assert names(tmp_path) == ["one/one.txt"] and (tmp_path / "one/one.txt").read_bytes() == TEXT


def test_a_second_download_of_the_same_file_is_refused(known: Known, tmp_path: Path) -> None:
    argv = ["one", "--out", str(tmp_path)]
    with serving.serving(good(TEXT)) as server:
        known(server.url)
        (tmp_path / "one").mkdir()
        with download.download_lock(tmp_path / "one" / "one.txt"):
            with pytest.raises(UserError, match="one.txt: another process is downloading it; wait"):
                download.main(argv)
        assert server.n_requests == 0 and download.main(argv) == 0
    assert names(tmp_path) == ["one/one.txt"]


def test_a_zip_file_is_unpacked_and_removed(
    known: Known, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving.serving(good(ZIP)) as server:
        known(server.url)
        assert download.main(["TWO", "--out", str(tmp_path)]) == 0
        assert download.main(["two", "--out", str(tmp_path)]) == 0
    assert server.n_requests == 1
    assert (
        "warning: two.zip: the authors of llm-tiny have not tried this download"
        in capsys.readouterr().err
    )
    assert names(tmp_path) == ["two/a.txt"] and (tmp_path / "two/a.txt").read_bytes() == TEXT


def test_a_file_placed_by_hand_is_verified_and_used(known: Known, tmp_path: Path) -> None:
    known("http://127.0.0.1:1/two.zip")
    argv = ["two", "--out", str(tmp_path)]
    with pytest.raises(UserError) as caught:
        download.main(argv)
    hint = re.search(
        r"copy a file two.zip of (\d+) bytes, sha256 (\w+), to ([^,]+), and",
        str(caught.value),
    )
    assert hint and "\n" not in str(caught.value)
    assert (int(hint[1]), hint[2]) == (len(ZIP), hashlib.sha256(ZIP).hexdigest())
    target = Path(hint[3])
    assert names(tmp_path) == [] and not target.parent.exists()
    target.parent.mkdir()
    target.write_bytes(ZIP[:-1])
    with pytest.raises(
        UserError, match=r"two.zip: \d+ bytes, not the known file of \d+ bytes .*; move"
    ):
        download.main(argv)
    target.write_bytes(ZIP[:-1] + b"x")
    with pytest.raises(UserError, match="two.zip: .*not the known file .* with sha256 .*; move"):
        download.main(argv)
    target.write_bytes(ZIP)
    assert download.main(argv) == 0
    assert names(tmp_path) == ["two/a.txt", "two/two.zip"], "the user's file is kept"
    target.unlink()
    assert download.main(argv) == 0, "the text alone is enough"
    (tmp_path / "two" / "a.txt").write_bytes(b"changed")
    with pytest.raises(UserError, match=r"a\.txt: 7 bytes, not the known file of"):
        download.main(argv)
    assert (tmp_path / "two" / "a.txt").read_bytes() == b"changed"


def test_the_next_url_is_tried(
    known: Known, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        serving.serving(status(404)) as missing,
        serving.serving(good(OTHER)) as wrong,
        serving.serving(good(TEXT)) as right,
    ):
        known(missing.url, wrong.url)
        with pytest.raises(
            UserError, match="HTTP status 404.*; .*has .* bytes, expected .*; run the command"
        ):
            download.main(["one", "--out", str(tmp_path)])
        assert names(tmp_path) == []
        known(missing.url, wrong.url, right.url)
        assert download.main(["one", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "one/one.txt").read_bytes() == TEXT


def test_wrong_names_and_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        UserError, match=r"no such corpus \(did you mean enwik8\?\); there are: tiny"
    ):
        download.main(["enwik9"])
    with pytest.raises(UserError, match="name a corpus, or give --list"):
        download.main([])
    assert download.main(["--list"]) == 0
    listed = capsys.readouterr().out
    for corpus in CORPORA:
        for source in corpus.sources:
            wanted = (corpus.name, corpus.licence, *source.urls, source.content.sha256)
            assert all(text in listed for text in (*wanted, source.published))
    assert listed.count("; not tried by llm-tiny's authors\n") == 5


def archive(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (zipped(folder__a_txt=TEXT + b"x"), "its folder/a.txt is not the known file"),
        (zipped(folder__a_txt=TEXT * 1000), "its folder/a.txt is not the known file"),
        (zipped(folder__a_txt=TEXT[:-1]), "its folder/a.txt is not the known file"),
        (zipped(a_txt=TEXT), "it has no member folder/a.txt"),
        (zipped(__folder__a_txt=TEXT), "it has no member folder/a.txt"),
        (ZIP[:-30], "not a complete zip file"),
        (b"", "not a complete zip file"),
        (ZIP[:200] + bytes(20) + ZIP[220:], "not a complete zip file|not the known"),
    ],
)
def test_a_bad_zip_file_leaves_no_files(raw: bytes, message: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UserError, match=message):
        unzip(archive(tmp_path / "x.zip", raw), content(MEMBER, TEXT), out / "a.txt")
    assert names(tmp_path) == ["x.zip"]


@pytest.mark.parametrize("name", ["../a.txt", "/a.txt", "folder/../../a.txt"])
def test_no_member_name_escapes_from_the_folder(name: str, tmp_path: Path) -> None:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as file:
        file.writestr(name, TEXT)
    out = tmp_path / "in" / "out"
    out.mkdir(parents=True)
    unzip(archive(tmp_path / "x.zip", raw.getvalue()), content(name, TEXT), out / "a.txt")
    assert names(tmp_path) == ["in/out/a.txt", "x.zip"]


def test_an_encrypted_member_is_a_user_error(tmp_path: Path) -> None:
    raw = bytearray(zipped(folder__a_txt=TEXT))
    raw[6] |= 1  # the flag of the local header, and of the directory
    raw[raw.rindex(b"PK\1\2") + 8] |= 1
    with pytest.raises(UserError, match="not a complete zip file .*password"):
        unzip(archive(tmp_path / "x.zip", bytes(raw)), content(MEMBER, TEXT), tmp_path / "a.txt")
