"""Flags of settings: parsing, and their texts in --help."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from utils.cli import Parser
from utils.config.flags import add_flags, given_flags
from utils.config.load import load
from utils.config.schema import setting
from utils.errors import UserError


@dataclass(frozen=True)
class Model:
    n_layer: int = setting(4, "blocks, 100% of them", minimum=1)
    betas: tuple[float, float] = setting((0.9, 0.95), "two rates")
    names: tuple[str, ...] = setting((), "any number")
    on: bool = setting(False, "a switch")
    kind: str = setting("gpt2", "a pattern", choices=("gpt2", "cl100k"))


@dataclass(frozen=True)
class Config:
    run_dir: str = setting("", "folder")
    model: Model = field(default_factory=Model)


def parse(*argv: str) -> dict[str, str | list[str]]:
    parser = Parser(prog="x")
    parser.add_argument("--config")
    add_flags(parser, Config)
    return given_flags(parser.parse_args(list(argv)), Config)


def test_only_given_flags_are_returned() -> None:
    assert parse() == parse("--config", "a") == {}
    given = parse("--model.n_layer", "6", "--model.betas", "0.5", "0.6", "--run-dir=a=b")
    assert given == {"model.n_layer": "6", "model.betas": ["0.5", "0.6"], "run_dir": "a=b"}
    config, values = load(Config, [], given)
    assert config == Config(run_dir="a=b", model=Model(n_layer=6, betas=(0.5, 0.6)))
    assert set(values) == set(given)


def test_lists_of_text() -> None:
    config, _ = load(Config, [], parse("--model.names", "a", "1", "--model.on", "true"))
    assert config.model.names == ("a", "1") and config.model.on is True
    for words in (["-"], ["-", "a"]):
        assert load(Config, [], parse("--model.names", *words))[0].model.names == tuple(words)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model.n_layers", "3"], "did you mean --model.n_layer"),
        (["--model.n_layer"], "expected one argument"),
        (["--model.n", "3"], "unknown argument --model.n"),
    ],
)
def test_invalid_flags(argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(*argv)


def read_help(capsys: pytest.CaptureFixture[str]) -> str:
    """The output of --help, with whitespace replaced by single spaces."""
    with pytest.raises(SystemExit):
        parse("--help")
    return " ".join(capsys.readouterr().out.split())


def test_help_shows_type_unit_range_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = read_help(capsys)
    assert "--model.n_layer INT blocks, 100% of them (>= 1); default 4" in text
    assert "--model.betas FLOAT [FLOAT ...] two rates; default [0.9, 0.95]" in text
    assert "--model.kind {gpt2,cl100k} a pattern; default gpt2" in text


def test_help_groups_the_settings_by_section(capsys: pytest.CaptureFixture[str]) -> None:
    text = read_help(capsys)
    assert text.startswith("usage: x [-h] [--config CONFIG] [--SECTION.SETTING VALUE]")
    assert text.index(" settings: --run_dir TEXT") < text.index(" model settings: --model.n_layer")
