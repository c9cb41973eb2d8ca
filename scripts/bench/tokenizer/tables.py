"""The figures of `scripts.bench tokenizer` as text tables."""

from collections.abc import Sequence
from typing import Any

from scripts.bench.timing import Spread
from scripts.report import table
from utils.errors import plural

EQUAL_NOTE = (
    "ids equal: for a trainer, the merges equal those of ours with the same byte order (gigabpe "
    "treats every line as a separate text, so ours does, too, for this comparison); for encoding, "
    "all ids of the text equal ours"
)


def show_tokenizer(record: dict[str, Any]) -> str:
    """Return the figures of `bench tokenizer` as text."""
    corpus = record["corpus"]
    size = f"{corpus['bytes']:,} bytes"
    if not corpus["complete"]:
        size += " (everything installed; 100 MB were wanted)"
    parts = [
        f"corpus {corpus['path']}: {size}, sha256 {corpus['sha256'][:12]}\n"
        f"{record['cores']} cores, {record['machine']}"
        + "".join(f", {name} {version}" for name, version in record["versions"].items())
    ]
    if "train" in record:
        head = f"training, vocabulary {record['vocab_size']:,}, all cores"
        parts.append(show_training(record["train"], head))
    parts.append(show_encoding(record["encode"]))
    parts.append(
        f"median of {plural(record['runs'], 'run')} (low to high), taken in turns; ratio: how many "
        f"times as fast ours is\n{EQUAL_NOTE}"
    )
    if record["missing"]:
        names = " ".join(record["missing"])
        parts.append(f"not installed and not measured: {names} (pip install {names})")
    return "\n\n".join(parts)


def show_training(rows: list[dict[str, Any]], head: str) -> str:
    """Return the table of trainers: seconds, ratios, memory."""
    lines = []
    for row in rows:
        if "error" in row:
            lines.append([row["who"], f"failed: {row['error']:.60}", *[""] * 5])
            continue
        figures = cells(row, ("seconds", "ratio", "cpu_s", "cpu_ratio"))
        lines.append([*figures, f"{row['peak_bytes'] / 1e6:,.0f}", yes_or_no(row["equal"])])
    columns = ["seconds", "ratio", "CPU seconds", "CPU ratio", "peak MB", "ids equal"]
    return table([head, *columns], lines)


def show_encoding(encode: dict[str, Any]) -> str:
    """Return the tables of encoding speed for each text, for prompts, and for loading."""
    parts = [
        f"encoding with {encode['vocabulary']}: {encode['ids']:,} ids, pattern "
        f"{encode['pattern']}, one core, caches empty"
    ]
    for text in encode["texts"]:
        keys = ("mb_per_s", "ratio", "cpu_mb_per_s", "cpu_ratio")
        lines = [[*cells(row, keys), yes_or_no(row["equal"])] for row in text["rows"]]
        head = f"{text['bytes'] / 1e6:g} MB of text"
        parts.append(table([head, "MB/s", "ratio", "MB/CPU s", "CPU ratio", "ids equal"], lines))
    named = {row["who"].split()[0] for text in encode["texts"] for row in text["rows"]}
    if "quicktok" in named and encode["pattern"] != "cl100k":
        parts.append(
            f"quicktok splits by cl100k's pattern, not by {encode['pattern']}: not comparable"
        )
    for size in encode["too_large"]:
        parts.append(f"{size / 1e6:g} MB of text: not measured, the corpus is smaller")
    for key, head, unit, digits in (
        ("prompt_us", "prompt of 20 words, first time", "microseconds", ".1f"),
        ("load_s", "loading the vocabulary", "seconds", ".3f"),
        ("load_cpu_s", "loading the vocabulary", "CPU seconds", ".3f"),
    ):
        lines = [cells(row, ("value", "ratio"), digits) for row in encode[key]]
        parts.append(table([head, unit, "ratio"], lines))
    return "\n\n".join(parts)


def cells(row: dict[str, Any], keys: Sequence[str], digits: str = ".2f") -> list[str]:
    """Return a row's name and figures with their ranges; "" for a ratio of ours, or if missing."""
    shown = [row.get(key) if "ratio" not in key or row["who"] != "ours" else None for key in keys]
    return [row["who"], *(format(Spread(**one), digits) if one else "" for one in shown)]


def yes_or_no(equal: bool) -> str:
    """Return "yes", or "NO" in capitals so that it is noticed."""
    return "yes" if equal else "NO"
