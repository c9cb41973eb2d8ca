"""The data of the page of `scripts.eval --html` are the model's own, at any length."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.internals import internals
from scripts.eval import __main__ as script
from scripts.eval import page
from scripts.eval.visible_text import whole_characters
from tests.helpers.pages import eval_set, random_run
from tok.tokenizer import BPETokenizer
from utils.errors import UserError

TOKENIZER = BPETokenizer([(97, 98), (256, 99)])  # ab, abc
END = TOKENIZER.eot_id
IDS = [*TOKENIZER.encode("abc ab, cab"), END, *TOKENIZER.encode("é abba"), END]
N = len(IDS)


def triangles(window: dict, planes: int) -> np.ndarray:
    """Return the stored levels of a window, (planes, rows, rows)."""
    found = np.frombuffer(base64.b64decode(window["attention"]), np.uint8)
    levels = np.zeros((planes, window["rows"], window["rows"]))
    levels[:, np.tri(window["rows"], dtype=bool)] = found.reshape(planes, -1)
    return levels


@pytest.mark.parametrize(
    "data",
    [
        {"windows": "packed"},
        {"windows": "packed", "stride": 5, "mask_documents": True},
        {"windows": "documents"},
    ],
)
def test_each_token_has_what_the_model_computes_to_predict_it(tmp_path, data):
    run = random_run(tmp_path, TOKENIZER, block_size=12, pointer=True)
    made = page.page_data(run, eval_set(run, tmp_path, IDS, **data))
    assert made["ids"] == IDS and len(made["nats"]) == len(made["entropy"]) == N
    owners = [next(w for w in made["windows"] if i < w["start"] + w["length"]) for i in range(N)]
    for i, window in enumerate(owners):
        first, row = window["start"], i - window["start"]
        context = [END, *IDS][first : i + 1]
        doc = None
        if data.get("mask_documents"):
            doc = torch.cumsum(torch.tensor([context]) == END, 1)
        inside = internals(run.loaded.model, torch.tensor([context]), doc_BT=doc)
        logp = inside.logits_BTV[0, -1].double().log_softmax(-1)
        assert made["nats"][i] == pytest.approx(-float(logp[IDS[i]]), abs=1e-4)
        assert made["entropy"][i] == pytest.approx(-float((logp * logp.exp()).sum()), abs=1e-4)
        top = logp.topk(5)
        assert made["likely"][5 * i : 5 * i + 5] == top.indices.tolist()
        assert made["p"][5 * i : 5 * i + 5] == pytest.approx(top.values.exp().tolist(), abs=1e-5)
        levels = triangles(window, 5)[:, row, : row + 1]
        assert (levels[:4].sum(-1) == 255).all(), "attention weights add up to 1"
        weights = torch.cat([layer[0, :, -1] for layer in inside.attention]).numpy()
        assert np.abs(levels[:4] / 255 - weights).max() < 1 / 255
        gains = inside.gains_BTT[0, -1].numpy()
        assert window["gains"][row] == pytest.approx(gains.sum(), abs=1e-4)
        assert np.abs(levels[4] / 255 * window["gains"][row] - gains).max() <= gains.sum() / 255


def test_a_long_text_is_cut_and_the_page_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page, "MAX_TOKENS", 100)
    monkeypatch.setattr(page, "MAX_ATTENTION_BYTES", 12_000)
    run = random_run(tmp_path, TOKENIZER)
    text = eval_set(run, tmp_path, IDS * 100)
    made = page.page_data(run, text)
    assert [len(made[name]) for name in ("ids", "nats", "entropy")] == [128] * 3  # two windows
    assert len(made["likely"]) == len(made["p"]) == 5 * 128
    assert sum(n for _, n, _ in made["groups"]) == 128
    rows = [window["rows"] for window in made["windows"]]
    stored = [len(base64.b64decode(window["attention"])) for window in made["windows"]]
    assert rows[0] == 64 and 0 < rows[1] < 64 and sum(stored) <= 12_000 * 1.1
    page.write_page(run, text, tmp_path / "page.html")
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"the first 128 of {100 * N:,} tokens" in err
    assert f"attention weights for about the first {sum(rows)} tokens" in err
    assert (tmp_path / "page.html").stat().st_size < 80_000


def test_a_damaged_model_gives_a_page_without_numbers(tmp_path):
    run = random_run(tmp_path, TOKENIZER)
    with torch.no_grad():
        run.loaded.model.token_embedding.weight.fill_(float("nan"))
    page.write_page(run, eval_set(run, tmp_path, IDS), tmp_path / "page.html")
    written = (tmp_path / "page.html").read_text(encoding="utf-8")
    data = written.split('id="data">')[1].split("</script>")[0]
    assert json.loads(data)["nats"] == [None] * N


@settings(max_examples=50)
@given(st.lists(st.tuples(st.binary(max_size=4), st.booleans()), max_size=9))
def test_groups_of_tokens_have_all_bytes_and_whole_characters(tokens):
    groups = list(whole_characters(tokens))
    assert sum(n for _, n, _ in groups) == len(tokens)
    at, plain = 0, ""
    for text, n, special in groups:
        raw = b"".join(one for one, _ in tokens[at : at + n])
        assert text == raw.decode("utf-8", "backslashreplace") or special
        at += n
        plain += text
    if not any(special for _, special in tokens):
        assert plain == b"".join(raw for raw, _ in tokens).decode("utf-8", "backslashreplace")


def test_the_command_writes_one_file_that_loads_nothing(story_run, printed, tmp_path):
    text, out = tmp_path / "some.txt", tmp_path / "page.html"
    text.write_text("Once </script> upon a time.", encoding="utf-8")
    argv = ["--run", story_run, "--text", text, "--html", out]
    result, err = printed(script.main, *argv)
    assert result["tokens"] and f"{out}: open it in a browser" in err
    written = out.read_text(encoding="utf-8")
    assert written.count("</script>") == 2 and page.PLACEHOLDER not in written
    assert not any(word in written for word in ("http:", "https:", "src=", "@import", "fetch("))
    data = json.loads(written.split('id="data">')[1].split("</script>")[0])
    plain = "".join(part for part, _, special in data["groups"] if not special)
    assert plain == text.read_text(encoding="utf-8")
    assert sum(data["nats"]) / len(data["nats"]) == pytest.approx(
        result["nats_per_token"], abs=1e-4
    )
    _, err = printed(script.main, "--run", story_run, "--html", out)
    assert "validation part" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--heat", "heat.png"], "--heat heat.png: pictures are not .*; use --html page.html"),
        (["--html", "page.png"], "--html page.png: a page is a file such as page.html"),
        (["--html", "-"], "--html -: a page is a file"),
        (["--html", "no/such/page.html"], "--html no/such/page.html: there is no folder no.such"),
        (["--html", "a.html", "--text", "./a.html"], "--html a.html: this is the --text"),
    ],
)
def test_a_page_that_cannot_be_written_is_refused_before_the_run_is_loaded(
    monkeypatch, tmp_path, argv, message
):
    monkeypatch.setattr(script, "load_run", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        script.main(["--run", "runs/tiny", *argv])
