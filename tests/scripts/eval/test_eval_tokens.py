"""scripts.eval --tokens and --heat: the loss of each token of a text."""

from __future__ import annotations

import io
import json
import sys
import types

import pytest
import torch

from data.stories import story as stories
from sample import load_run
from scripts.eval import __main__ as script
from utils.errors import UserError

TEXT = "Grüße,  世界 🙂\tfor $5\r\n\x1b[0m end"


def lines_of(capsys, *argv: object) -> list[str]:
    capsys.readouterr()
    assert script.main([str(word) for word in argv]) == 0
    return capsys.readouterr().out.splitlines()


def logprobs_of(run, document: str) -> list[float]:
    """Return the log-probability of each token of one document: the reference."""
    loaded = load_run(run)
    end = loaded.tokenizer.eot_id
    ids = [*loaded.tokenizer.encode(document), end]
    with torch.no_grad():
        logits = loaded.model(torch.tensor([[end, *ids[:-1]]]))[0].double()
    return logits.log_softmax(-1)[range(len(ids)), ids].tolist()


def test_each_token_has_its_log_probability_in_the_order_of_the_text(story_run, capsys, tmp_path):
    written = list(stories.generate_stories(77, 2500))
    path = tmp_path / "some.txt"
    path.write_text(stories.join(written), encoding="utf-8")
    *tokens, last = map(
        json.loads, lines_of(capsys, "--run", story_run, "--text", path, "--tokens")
    )
    assert "".join(token["text"] for token in tokens) == "".join(
        story + "<|endoftext|>" for story in written
    )
    expected = [logprob for story in written for logprob in logprobs_of(story_run, story)]
    assert [token["logprob"] for token in tokens] == pytest.approx(expected, abs=1e-4)
    assert [token["place"] for token in tokens] == list(range(len(expected)))
    total = -sum(token["logprob"] for token in tokens)
    assert total / len(tokens) == pytest.approx(last["nats_per_token"], abs=1e-6)


def test_tokens_with_incomplete_characters_are_printed_in_hex(story_run, capsys, tmp_path):
    path = tmp_path / "some.txt"
    path.write_bytes(TEXT.encode())
    *tokens, last = map(
        json.loads, lines_of(capsys, "--run", story_run, "--text", path, "--tokens")
    )
    assert last["tokens"] == len(tokens)
    raw = [
        bytes.fromhex(token["hex"]) if token["text"] is None else token["text"].encode()
        for token in tokens
    ]
    assert b"".join(raw) == TEXT.encode() + b"<|endoftext|>"
    assert any(token["text"] is None for token in tokens)
    assert [token["logprob"] for token in tokens] == pytest.approx(
        logprobs_of(story_run, TEXT), abs=1e-4
    )


def test_a_text_longer_than_the_context_is_scored_once(story_run, capsys, tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("abc " * 900, encoding="utf-8")
    *tokens, last = map(
        json.loads, lines_of(capsys, "--run", story_run, "--text", path, "--tokens")
    )
    assert len(tokens) == last["tokens"] > load_run(story_run).model.config.block_size
    assert "".join(token["text"] for token in tokens[:-1]) == "abc " * 900
    total = -sum(token["logprob"] for token in tokens)
    assert total / len(tokens) == pytest.approx(last["nats_per_token"], abs=1e-6)


def test_text_from_stdin_is_printed_in_colours(story_run, capsys, monkeypatch, tmp_path):
    stdin = types.SimpleNamespace(buffer=io.BytesIO(TEXT.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    *lines, last = lines_of(capsys, "--run", story_run, "--text", "-", "--heat", "-")
    assert lines[0].startswith("nats:")
    plain = "".join(lines[1:])
    for colour in {part.split("m")[0] for part in plain.split("\x1b[")[1:]}:
        plain = plain.replace(f"\x1b[{colour}m", "")
    assert plain == r"Grüße,··世界·🙂→for·$5␍↵\x1b[0m·end<|endoftext|>"
    path = tmp_path / "same.txt"
    path.write_bytes(TEXT.encode())
    same = json.loads(lines_of(capsys, "--run", story_run, "--text", path)[-1])
    assert json.loads(last) | {"text": str(path)} == same


@pytest.mark.parametrize(
    "stdin, message",
    [
        (
            types.SimpleNamespace(buffer=io.BytesIO(b"ab\xff")),
            "^standard input: not UTF-8 at byte 2",
        ),
        (types.SimpleNamespace(buffer=io.BytesIO(b"")), "^standard input: no text in it"),
        (None, "^standard input: closed"),
    ],
)
def test_the_error_about_a_bad_text_names_standard_input(story_run, monkeypatch, stdin, message):
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(UserError, match=message):
        script.main(["--run", str(story_run), "--text", "-"])


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--heat", "-", "--tokens"], "--heat -: --tokens prints to stdout too"),
        (["--heat"], "--heat: expected one argument: .*`-` prints the text"),
    ],
)
def test_bad_arguments_are_refused_before_the_run_is_loaded(
    story_run, capsys, monkeypatch, argv, message
):
    monkeypatch.setattr(script, "load_run", None)
    with pytest.raises(UserError, match=message):
        script.main(["--run", str(story_run), *argv])
    assert capsys.readouterr().out == ""
