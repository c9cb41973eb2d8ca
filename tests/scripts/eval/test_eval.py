"""scripts.eval: figures equal those of training, for any batch size, and for any text."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
from pathlib import Path

import pytest

import train
from data.stories import story as stories
from data.token_file import TokenFile
from model.sampling.sampler import SamplingParams
from sample import load_run
from scripts.eval import __main__ as script
from scripts.eval import coherence
from scripts.eval.coherence import describe, score_coherence, texts_in_training
from tests.helpers.runs import flags, make_corpus
from tests.helpers.stories import nats_of
from utils.errors import UserError
from utils.metrics import read_rows


def copy_run(run: Path, to: Path, **record: object) -> Path:
    """Copy a run and change entries of run.json; return the copy."""
    shutil.copytree(run, to)
    known = json.loads((to / "run.json").read_text(encoding="utf-8"))
    (to / "run.json").write_text(json.dumps(known | record), encoding="utf-8")
    return to


@pytest.mark.parametrize("which", ["best", "last"])
def test_the_figures_are_those_of_training(story_run, printed, which):
    figures, people = printed(script.main, "--run", story_run, "--checkpoint", which)
    row = read_rows(story_run / "metrics.csv")[-1]  # a falling loss: the last is the best
    assert figures["step"] == int(row["step"])
    assert figures["nats_per_token"] == pytest.approx(float(row["val_loss"]), abs=1e-7)
    assert figures["bits_per_byte"] == pytest.approx(float(row["val_bpb"]), abs=1e-7)
    assert figures["checkpoint"] == str(story_run / f"{which}.pt")
    record = json.loads((story_run / "run.json").read_text(encoding="utf-8"))["data"]
    assert figures["tokens"] == record["val"]["tokens"]
    assert figures["bytes"] == record["val"]["bytes"] == figures["part_bytes"]
    assert figures["floor"] == record["floor"]["nats_per_byte"]
    assert figures["over_floor"] == pytest.approx(figures["nats_per_byte"] / figures["floor"] - 1)
    total = figures["nats_per_token"] * figures["tokens"]
    assert figures["nats_per_byte"] == pytest.approx(total / figures["bytes"])
    assert figures["bits_per_byte"] == pytest.approx(figures["nats_per_byte"] / math.log(2))
    assert figures["perplexity"] == pytest.approx(math.exp(figures["nats_per_token"]))
    assert f"step {row['step']}" in people and "bits/byte" in people


def test_the_figures_do_not_depend_on_the_batch_size(story_run, printed):
    losses = {
        printed(script.main, "--run", story_run, "--batch-size", size)[0]["nats_per_token"]
        for size in ("1", "3", "100")
    }
    assert max(losses) - min(losses) < 1e-6


def test_nothing_is_written_to_the_run(story_run, printed):
    def look() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in story_run.iterdir()}

    before = look()
    printed(script.main, "--run", story_run)
    assert look() == before


def test_missing_data_is_prepared_again(story_run, printed, tmp_path):
    record = json.loads((story_run / "run.json").read_text(encoding="utf-8"))
    missing = record["data"] | {"folder": str(tmp_path / "missing")}
    copy = copy_run(story_run, tmp_path / "copy", data=missing)
    expected, _ = printed(script.main, "--run", story_run)
    figures, people = printed(script.main, "--run", copy)
    assert figures["nats_per_token"] == expected["nats_per_token"]
    assert "prepared again" in people


def test_other_data_than_the_runs_is_refused(story_run, tmp_path):
    record = json.loads((story_run / "run.json").read_text(encoding="utf-8"))
    missing = record["data"] | {"folder": str(tmp_path / "missing")}
    copy = copy_run(story_run, tmp_path / "copy", data=missing)
    text = (copy / "config.yaml").read_text(encoding="utf-8")
    other = text.replace("val_story_bytes: 4000", "val_story_bytes: 5000")
    other = other.replace("cache_dir: ", "cache_dir: " + str(tmp_path))
    assert other.count("5000") == 1
    (copy / "config.yaml").write_text(other, encoding="utf-8")
    with pytest.raises(UserError, match="other data than the run was trained on"):
        script.main(["--run", str(copy)])
    made = re.compile(r"  (val_)?story_bytes: .*\n|  cache_dir: .*\n")  # data.dir excludes these
    named = made.sub("", text.replace('  dir: ""\n', "  dir: missing\n"))
    (copy / "config.yaml").write_text(named, encoding="utf-8")
    with pytest.raises(UserError, match="restore it"):
        script.main(["--run", str(copy)])


def test_a_text_of_stories_is_scored_story_by_story(story_run, printed, tmp_path):
    written = list(stories.generate_stories(77, 2000))
    path = tmp_path / "some.txt"
    path.write_text(stories.join(written), encoding="utf-8")
    figures, _ = printed(script.main, "--run", story_run, "--text", path)
    nats, tokens = nats_of(story_run, written)
    assert figures["tokens"] == tokens
    assert figures["bytes"] == sum(map(len, written))
    assert figures["nats_per_token"] == pytest.approx(nats / tokens, abs=1e-6)
    assert figures["floor"] == pytest.approx(stories.floor(written).nats_per_byte)
    assert figures["text"] == str(path)


def test_the_scored_end_of_text_tokens_are_named(story_run, printed, capsys, tmp_path):
    written = list(stories.generate_stories(77, 2000))
    for name, documents in (("one.txt", ["The cat sat."]), ("some.txt", written)):
        (tmp_path / name).write_text(stories.join(documents), encoding="utf-8")
        figures, people = printed(script.main, "--run", story_run, "--text", tmp_path / name)
        ends = f"{figures['tokens']:,} tokens ({len(documents)} of them end-of-text), "
        assert f"over {ends}{figures['bytes']:,} bytes" in people
    with pytest.raises(SystemExit):
        script.main(["--help"])
    about = " ".join(capsys.readouterr().out.split())
    assert "the end-of-text token after each document is scored too" in about


def test_a_limited_evaluation_says_what_it_covers(printed, capsys, tmp_path):
    settings = make_corpus(tmp_path) | {"train.max_steps": 1, "train.sample_tokens": 0}
    for limit, name in ((0, "all"), (1000, "limited")):
        folder = tmp_path / name
        assert train.main(flags(folder, settings | {"data.val_max_bytes": limit})) == 0
        err = capsys.readouterr().err
        figures, people = printed(script.main, "--run", folder)
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))["data"]["val"]
        assert figures["bytes"] == record["bytes"] and figures["part_bytes"] > 1000
        covered = f"the first {figures['bytes']:,} of {figures['part_bytes']:,} bytes of the valid"
        assert (covered in err, covered in people) == (limit > 0, limit > 0)
        assert 900 < figures["bytes"] <= 1000 if limit else figures["bytes"] > 1000
        row = read_rows(folder / "metrics.csv")[-1]
        assert figures["nats_per_token"] == pytest.approx(float(row["val_loss"]), abs=1e-7)
    prepared = {"data.dir": record_folder(tmp_path / "all"), "data.val_max_bytes": 1000}
    del settings["data.files"], settings["data.cache_dir"], settings["data.doc_sep"]
    with pytest.raises(UserError, match="more than data.val_max_bytes 1000; prepare it with --val"):
        train.main(flags(tmp_path / "dir", settings | prepared))
    prepared["data.dir"] = record_folder(tmp_path / "limited")
    assert train.main(flags(tmp_path / "dir", settings | prepared)) == 0


def record_folder(run: Path) -> str:
    """Return the prepared folder of a run."""
    return json.loads((run / "run.json").read_text(encoding="utf-8"))["data"]["folder"]


def test_the_files_of_a_folder_are_chosen(story_run, printed, tmp_path):
    (tmp_path / "a.md").write_text("The cat sat.", encoding="utf-8")
    (tmp_path / "b.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"b.png: not UTF-8 .*files of the folder, such as --incl"):
        script.main(["--run", str(story_run), "--text", str(tmp_path)])
    words = ["--run", story_run, "--text", tmp_path, "--include", "*.md"]
    (tmp_path / "c.md").touch()
    result, people = printed(script.main, *words)
    assert result["bytes"] == 12
    assert "reading 1 file; left out: 1 empty file, 1 that does not match '*.md'\n" in people
    with pytest.raises(UserError, match="--include: has an effect only on folders"):
        script.main([*map(str, words[:3]), str(tmp_path / "a.md"), "--include", "*.md"])


def test_any_other_text_has_no_floor(story_run, printed, tmp_path):
    path = tmp_path / "any.txt"
    path.write_bytes("Grüße, 世界 🙂\r\n".encode())
    figures, _ = printed(script.main, "--run", story_run, "--text", path)
    nats, tokens = nats_of(story_run, ["Grüße, 世界 🙂"])
    assert figures["floor"] is None and figures["over_floor"] is None
    assert figures["bytes"] == len("Grüße, 世界 🙂".encode())
    assert figures["nats_per_token"] == pytest.approx(nats / tokens, abs=1e-6)


def test_json_lines_are_scored_like_the_texts_in_them(story_run, printed, tmp_path):
    written = list(stories.generate_stories(77, 2000))
    (tmp_path / "some.txt").write_text(stories.join(written), encoding="utf-8")
    lines = "".join(json.dumps({"tale": one}) + "\n" for one in written)
    (tmp_path / "some.jsonl").write_text(lines, encoding="utf-8")
    expected, _ = printed(script.main, "--run", story_run, "--text", tmp_path / "some.txt")
    argv = ["--run", str(story_run), "--text", str(tmp_path / "some.jsonl")]
    with pytest.raises(UserError, match="some.jsonl:1: no field 'text'; it has 'tale'"):
        script.main(argv)
    found, _ = printed(script.main, *argv, "--json-field", "tale")
    assert found | {"text": 0} == expected | {"text": 0} and found["floor"] is not None
    copy = copy_run(story_run, tmp_path / "run")  # of a run that was trained on such lines
    text = (copy / "config.yaml").read_text(encoding="utf-8")
    files = text.replace("files: []", f"files: [{argv[3]}]", 1)
    files = files.replace("json_field: text", "json_field: tale")
    files = re.sub("  (story_bytes|val_story_bytes|story_seed): .*\n", "", files)
    (copy / "config.yaml").write_text(files, encoding="utf-8")
    found, _ = printed(script.main, "--run", copy, *argv[2:])
    assert found["nats_per_token"] == expected["nats_per_token"]
    plain = str(tmp_path / "plain.txt")
    Path(plain).write_text("once", encoding="utf-8")
    with pytest.raises(UserError, match="^--json-field: has an effect only on JSON, and none"):
        script.main(["--run", str(story_run), "--text", plain, "--json-field", "tale"])
    Path(plain).write_text('{"text": "a"}\n', encoding="utf-8")
    with pytest.raises(UserError, match="plain.txt: holds JSON .*, or --json-field ''"):
        script.main(["--run", str(story_run), "--text", plain])
    assert printed(script.main, "--run", str(story_run), "--text", plain, "--json-field", "")
    with pytest.raises(UserError, match="^--json-field: needs --text with a file or folder"):
        script.main(["--run", str(story_run), "--json-field", "tale"])


def test_documents_longer_than_block_size_are_read_in_windows(story_run, printed, tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("abc " * 2000, encoding="utf-8")
    figures, people = printed(script.main, "--run", story_run, "--text", path)
    assert "packed windows" in people
    assert figures["bytes"] == 8000
    assert figures["tokens"] == len(load_run(story_run).tokenizer.encode("abc " * 2000)) + 1


@pytest.mark.parametrize(
    "raw, message",
    [
        (b"", "no text in it"),
        (b"\n\n\n", "no text in it"),
        (b"ab\xff", "not UTF-8 at byte 2 .*; convert the file to UTF-8$"),
        (None, "No such file"),
    ],
)
def test_a_bad_text_is_refused(story_run, tmp_path, raw, message):
    path = tmp_path / "bad.txt"
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(UserError, match=message):
        script.main(["--run", str(story_run), "--text", str(path)])


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--batch-size", "-1"], "--batch-size: must be"),
        (["--coherence", "-5"], "--coherence: must be"),
        (["--batch_size", "x"], "invalid int"),
        (["--cohernce", "5"], "did you mean --coherence"),
        (["--checkpoint", "first"], "first"),
        (["--device", "quantum"], "not available"),
        (["--coherence", "1", "--min-p", "2"], "--min-p: must be from 0 to 1"),
        (["--temp", "0.5"], "need --coherence"),
    ],
)
def test_a_bad_argument_is_refused(story_run, argv, message):
    with pytest.raises(UserError, match=message):
        script.main(["--run", str(story_run), *argv])


def test_a_folder_without_a_run_is_refused():
    with pytest.raises(UserError, match="no run there .*; train one with"):
        script.main(["--run", "nowhere"])


def test_coherence_counts_what_the_grammar_accepts(story_run, printed, monkeypatch):
    loaded = load_run(story_run)
    end, encode = loaded.tokenizer.eot_id, loaded.tokenizer.encode
    record = json.loads((story_run / "run.json").read_text(encoding="utf-8"))
    train = list(stories.generate_stories(1, 30_000))
    new = next(stories.generate_stories(123, 1000))
    name = stories.parse(new).text.split()[5]
    samples = [
        [*encode(train[3]), end],  # memorised
        [*encode(new), end],
        [*encode(new), end],  # a duplicate
        encode(new),  # does not end
        [*encode(new.replace(name, "Zebra", 1)), end],
        [end],
    ]
    given: list[tuple[object, dict]] = []

    def fake(model: object, prompt: object, **settings: object) -> list[list[int]]:
        given.append((prompt, settings))
        return samples

    monkeypatch.setattr(coherence, "generate_ids", fake)
    figures, people = printed(
        script.main, "--run", story_run, "--coherence", "6", "--min-p", "0.25"
    )
    assert record["data"]["train"]["documents"] == len(train)
    assert figures["coherence"] == {
        "samples": 6,
        "accepted": 3 / 6,
        "distinct": 4 / 6,
        "new": 5 / 6,
        "ended": 5 / 6,
    }
    ((prompts, settings),) = given
    assert prompts == [[end]] * 6 and settings["seeds"] == [0, 1, 2, 3, 4, 5]
    assert (settings["max_new_tokens"], settings["stop_id"]) == (640, end)
    assert settings["params"] == SamplingParams(min_p=0.25)
    assert "never ends" in people and ">>Zebra<<" in people and "3 coherent" in people


def test_coherence_of_a_real_model(story_run, printed, monkeypatch):
    loaded = load_run(story_run)
    monkeypatch.setattr(coherence, "SAMPLES_PER_BATCH", 2)
    real = coherence.generate_ids

    def short(model, prompt, **settings):
        return real(model, prompt, **(settings | {"max_new_tokens": 12}))

    monkeypatch.setattr(coherence, "generate_ids", short)
    texts, ended = coherence.sample_stories(loaded, 5, SamplingParams())
    assert len(texts) == len(ended) == 5 and len(set(texts)) > 1
    assert (
        coherence.sample_stories(loaded, 3, SamplingParams())[0] == texts[:3]
    )  # sample i has seed i


def test_known_documents_are_compared_as_text(story_run):
    record = json.loads((story_run / "run.json").read_text(encoding="utf-8"))
    train = list(stories.generate_stories(1, 30_000))
    texts = [train[0], train[-1], train[0][:-1], train[0] + " ", ""]
    path = Path(record["data"]["folder"]) / "train.npy"
    with contextlib.closing(TokenFile(path)) as tokens:
        known = texts_in_training(tokens, load_run(story_run).tokenizer, texts)
    assert known == {train[0], train[-1]}


def test_every_generated_story_is_coherent():
    written = list(stories.generate_stories(5, 5000))
    counts, failures = score_coherence(written, [True] * len(written), set(written[:1]))
    n = len(written)
    assert counts == {"accepted": n, "distinct": n, "new": n - 1, "ended": n} and failures == []


def test_the_most_frequent_failures_are_counted(capsys):
    texts = ["Not a story.", "Not a tale either.", "Not"]  # "Not " may become "Not long ago"
    describe(*score_coherence(texts, [True, True, False], in_training=set()), n_samples=3)
    log = capsys.readouterr().err
    assert "3 stories: 0 coherent, 3 distinct, 3 not in the training text, 2 ended" in log
    assert "sample 2 goes wrong: never ends" in log
    assert "most often: 2 at 'a', 1 never ends" in log
