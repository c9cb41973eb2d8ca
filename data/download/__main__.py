"""Well-known corpora, verified: `python -m data.download NAME`; `--list` tells which there are.

A broken download goes on where it was. The last line of stdout is a JSON object with the files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from data.download.fetch import BrokenError, RefusedError, fetch
from data.download.known_corpora import CORPORA, FOLDER, Content, KnownCorpus, Source
from data.download.unzip import unpack
from utils.cli import Parser
from utils.errors import UserError, run_cli
from utils.files import sha256_file
from utils.output import say
from utils.suggest import nearest


def find(name: str) -> KnownCorpus:
    """The corpus of that name.

    >>> find("Enwik8").licence
    'GFDL'

    Raises:
        UserError: there is none.
    """
    known = {corpus.name: corpus for corpus in CORPORA}
    if name.lower() in known:
        return known[name.lower()]
    near = nearest(name.lower(), known)
    meant = f" (did you mean {near}?)" if near else ""
    raise UserError(f"{name}: no such corpus{meant}; there are: {', '.join(known)}")


def get(source: Source, folder: Path) -> None:
    """Brings the texts of a source into `folder`, unless they are there.

    Raises:
        UserError: it can't be had; the message says how to put it there by hand.
    """
    missing = [text for text in source.texts() if not is_right(folder / text.name, text)]
    if not missing:
        say(f"{', '.join(text.name for text in source.texts())}: there already, sha256 as known")
        return
    if not source.verified:
        say(
            f"warning: {source.content.name} is unverified: nobody here has seen it downloaded; "
            f"its size and sha256 are as published by {source.published}"
        )
    target = folder / source.content.name
    by_hand = is_right(target, source.content)
    if not by_hand:
        download(source, target)
    if source.members:
        unpack(target, source.members, folder)
        if not by_hand:
            target.unlink()


def is_right(path: Path, content: Content) -> bool:
    """Whether the file is there with the content that it should have.

    Raises:
        UserError: it is there with another.
    """
    if not path.exists():
        return False
    size_bytes = path.stat().st_size
    if size_bytes == content.size_bytes and sha256_file(path) == content.sha256:
        return True
    raise UserError(
        f"{path}: {size_bytes} bytes that are not the known {content.size_bytes}, by their "
        "sha256; move it away, and it is downloaded"
    )


def download(source: Source, target: Path) -> None:
    """Tries the addresses of a source in turn.

    Raises:
        UserError: none gives the file.
    """
    failures = []
    for url in source.urls:
        say(f"{target}: {source.content.size_bytes} bytes from {url}")
        try:
            fetch(url, target, source.content)
        except (RefusedError, BrokenError) as error:
            failures.append(str(error))
        else:
            return
    raise UserError(
        f"{'; '.join(failures)}; run it again to go on, or without network bring a file "
        f"{source.content.name} of {source.content.size_bytes} bytes, sha256 "
        f"{source.content.sha256}, put it at {target}, and run it again"
    )


def describe(corpus: KnownCorpus) -> str:
    """What --list says of a corpus: a line for it, and one for each of its files."""
    lines = [f"{corpus.name}: {corpus.about}; licence: {corpus.licence}"]
    for source in corpus.sources:
        content = source.content
        lines += [f"  {content.name}, {content.size_bytes} bytes, sha256 {content.sha256}"]
        lines += [f"    from {url}" for url in source.urls]
        seen = "verified: seen here" if source.verified else "unverified: not seen here"
        lines += [f"    sha256 published by {source.published}; {seen}"]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Downloads a corpus, or lists all."""
    parser = Parser(prog="data.download", description=__doc__)
    parser.add_argument("name", nargs="?", help="which corpus: see --list")
    parser.add_argument("--list", action="store_true", help="tell all corpora, and download none")
    parser.add_argument("--out", default=FOLDER, help="folder to put NAME/ into (%(default)s)")
    args = parser.parse_args(argv)
    if args.list:
        print("\n".join(map(describe, CORPORA)))
        return 0
    if args.name is None:
        parser.error("name a corpus, or give --list")
    corpus = find(args.name)
    folder = Path(args.out) / corpus.name
    for source in corpus.sources:
        get(source, folder)
    texts = [folder / text.name for source in corpus.sources for text in source.texts()]
    print(json.dumps({"corpus": corpus.name, "files": [str(path) for path in texts]}))
    return 0


if __name__ == "__main__":
    run_cli(main)
