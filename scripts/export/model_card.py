"""The README.md of an exported model: what it is, its data, its loss, its settings, its licence."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from data.download.known_corpora import CORPORA, KnownCorpus
from model.flops import count_parameters
from sample import LoadedRun
from scripts.export.exporters import Exporter
from train import Config
from utils.config.load import dump
from utils.errors import UserError
from utils.metrics import read_rows
from utils.run.folder import RunFolder

STORIES_LICENCE = "mit"  # data/README.md
UNKNOWN_LICENCE = "other"  # Hugging Face's word for one that is not in its list

TEMPLATE = Path(__file__).with_name("model_card.template")


def check_licence(licence: str) -> None:
    """Checks that a licence can stand in the card's header.

    Raises:
        UserError: it is no identifier.
    """
    if licence and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise UserError(
            f"--license {licence!r:.40}: give Hugging Face's identifier, such as mit or cc-by-4.0"
        )


def model_card(
    loaded: LoadedRun,
    run: RunFolder,
    config: Config,
    exporter: Exporter,
    *,
    name: str,
    kind: str,
    licence: str,
) -> bytes:
    """The text of the card, UTF-8.

    Args:
        name: of the folder that it lies in.
        kind: what the model is called there.
        licence: an identifier of Hugging Face; empty where nobody said.

    Raises:
        UserError: run.json or metrics.csv is damaged.
    """
    record, state = run.read_record(), loaded.state
    data, stories = record["data"], not (config.data.files or config.data.dir)
    # Runs of before the name was written down have none.
    corpus = {one.name: one for one in CORPORA}.get(data.get("corpus", ""))
    given = licence or (STORIES_LICENCE if stories else UNKNOWN_LICENCE)
    row = _row(run, state["step"])
    began = Path(config.train.init_from).name
    text = TEMPLATE.read_text(encoding="utf-8").format(
        licence=given,
        language="language: en\n" if stories or corpus else "",
        front=exporter.front_matter,
        name=name,
        kind=kind,
        parameters=count_parameters(config.model).total,
        beginning=f"from the weights of {began}" if began else "from random weights",
        knows=_knowledge(data["train"]["bytes"], began),
        step=state["step"],
        max_steps=config.train.max_steps,
        use=exporter.usage.format(name=name),
        block_size=config.model.block_size,
        data=_data_words(config, stories, corpus),
        train=_counts(data["train"]),
        val=_counts(data["val"]),
        identity=data["identity"],
        vocab_size=config.model.vocab_size,
        tokenizer=loaded.tokenizer.identity,
        loss=_loss(row, state, record["floor_nats_per_token"]),
        tokens=state["tokens"],
        epochs=f" or {float(row['epoch']):.2f} times the training part" if row else "",
        settings=dump(strip_paths(config)),
        licence_words=_licence_words(licence, stories, corpus),
    )
    return text.encode()


def strip_paths(config: Config) -> Config:
    """The settings without folders of the machine that trained: names of files alone.

    >>> from data.prepare import DataConfig
    >>> strip_paths(Config(run_dir="runs/x", data=DataConfig(files=("a/b.txt",)))).data.files
    ('b.txt',)
    """
    data = config.data
    data = dataclasses.replace(
        data,
        dir=Path(data.dir).name,
        files=tuple(Path(path).name for path in data.files),
        val_files=tuple(Path(path).name for path in data.val_files),
        tokenizer=Path(data.tokenizer).name,
        cache_dir=data.cache_dir if data.dir else "artifacts",
    )
    train = dataclasses.replace(config.train, init_from=Path(config.train.init_from).name)
    return dataclasses.replace(config, run_dir=Path(config.run_dir).name, data=data, train=train)


def _knowledge(n_bytes: int, began: str) -> str:
    if began:
        return f"knows what {began} knew, as far as {n_bytes:,} bytes of other text left it"
    return f"knows no more of the world than {n_bytes:,} bytes of text tell a model of its size"


def _data_words(config: Config, stories: bool, corpus: KnownCorpus | None) -> str:
    if stories:
        seed = config.data.story_seed
        return (
            f"Short stories in English, drawn from llm-tiny's own grammar (seed {seed}; {seed + 1} "
            "for validation)."
        )
    if corpus:
        return (
            f"{corpus.name}: {corpus.about}. Its licence: {corpus.licence}. Known by the sha256 of "
            f"its files; `python -m data.download {corpus.name}` of llm-tiny brings them."
        )
    if config.data.dir:
        return f"The prepared folder {Path(config.data.dir).name}."
    names = ", ".join(Path(path).name for path in config.data.files)
    return f"Text of {names}."


def _counts(part: dict[str, Any]) -> str:
    return " | ".join(f"{part[name]:,}" for name in ("tokens", "bytes", "documents"))


def _row(run: RunFolder, step: int) -> dict[str, str] | None:
    """The row of metrics.csv of a step; None where it is gone."""
    rows = read_rows(run.metrics) if run.metrics.exists() else []
    return next((row for row in rows if row["step"] == str(step)), None)


def _loss(row: dict[str, str] | None, state: dict[str, Any], floor: float | None) -> str:
    words = f"{state['last_val']:.4f} nats per token"
    if row and row["val_bpb"]:
        words += (
            f", perplexity {float(row['val_ppl']):.3f}, {float(row['val_bpb']):.4f} bits per byte"
        )
    if floor:
        words += f"; no model can have less than {floor:.4f} nats per token there"
    return words


def _licence_words(licence: str, stories: bool, corpus: KnownCorpus | None) -> str:
    if licence:
        return f"As whoever exported the model said: {licence}."
    if stories:
        return "MIT, as llm-tiny and its stories."
    text = f" ({corpus.licence})" if corpus else ""
    return (
        f"Not told: it depends on that of the training text{text}. Put an identifier in place of "
        "`other` at the head of this file, or export with `--license`."
    )
