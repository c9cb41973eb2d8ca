"""No command overwrites files that it did not write, and a refused command writes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import train
from scripts.sweep import __main__ as sweep
from tests.helpers.runs import flags, state_of
from tok import cli
from utils.errors import UserError
from utils.metrics import read_rows
from utils.run import checkpoint
from utils.run.folder import RunFolder

pytestmark = pytest.mark.usefixtures("quick")
Settings = dict[str, object]
STEPS = {"train__max_steps": 4, "train__eval_every_steps": 2}


@pytest.fixture(scope="module")
def finished(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps. Tests must not change it."""
    run = tmp_path_factory.mktemp("finished") / "run"
    assert train.main(flags(run, settings, **STEPS)) == 0
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def refused(run: Path, settings: Settings, message: str, *more: str, **changes: object) -> None:
    """Check that train.py refuses to start and changes no file."""
    before = contents(run)
    with pytest.raises(UserError, match=message):
        train.main(flags(run, settings, *more, **{**STEPS, **changes}))
    assert contents(run) == before


def test_a_run_without_run_json_is_neither_resumed_nor_overwritten(
    run: Path, settings: Settings
) -> None:
    (run / "run.json").unlink()
    refused(run, settings, "run: holds last.pt, but run.json is missing; put it back", "--resume")
    refused(run, settings, "run: holds last.pt without the run.json of a run; name another")


@pytest.mark.parametrize(
    "name",
    ["config.yaml", "tokenizer.json", "metrics.csv", "loss.png", "best.pt", "tensorboard/x"],
)
def test_files_of_others_are_not_overwritten(tmp_path: Path, settings: Settings, name: str) -> None:
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("of somebody else", encoding="utf-8")
    refused(tmp_path / "run", settings, f"holds {name.split('/')[0]} without the run.json")


def test_other_files_do_not_prevent_a_run(tmp_path: Path, settings: Settings) -> None:
    run = tmp_path / "run"
    (run / ".hidden.tmp-12").mkdir(parents=True)
    (run / ".notes.tmp-12").write_text("mine", encoding="utf-8")
    (run / "notes.txt").write_text("mine", encoding="utf-8")
    assert train.main(flags(run, settings, train__max_steps=1)) == 0
    assert {".hidden.tmp-12", ".notes.tmp-12", "notes.txt"} <= {p.name for p in run.iterdir()}


def test_a_start_that_was_killed_can_be_repeated(tmp_path: Path, settings: Settings) -> None:
    run = tmp_path / "run"
    assert train.main(flags(run, settings, **STEPS)) == 0
    for path in run.iterdir():
        if path.name not in ("config.yaml", "tokenizer.json"):
            path.unlink()
    assert train.main(flags(run, settings, **STEPS)) == 0


def test_a_folder_named_like_the_plot_does_not_lose_the_last_evaluation(
    run: Path, settings: Settings
) -> None:
    (run / "loss.png").unlink(missing_ok=True)
    (run / "loss.png").mkdir()
    argv = flags(run, settings, "--resume", **STEPS | {"train__max_steps": 5})
    assert train.main(argv) == 0
    assert checkpoint.load(run / "last.pt")["step"] == 5


def test_what_a_killed_export_left_does_not_block_a_run(run: Path, settings: Settings) -> None:
    (run / ".hf.tmp-123").mkdir()
    (run / ".hf.tmp-123" / "model.safetensors").write_bytes(b"x")
    (run / ".last.pt.tmp-123").write_bytes(b"x")
    argv = flags(run, settings, "--resume", **STEPS | {"train__max_steps": 5})
    assert train.main(argv) == 0
    assert not (run / ".last.pt.tmp-123").exists()


@pytest.mark.parametrize(
    "name, content",
    [
        ("run.json", b"{"),
        ("run.json", b"[" * 100_000),
        ("metrics.csv", b"nonsense\n"),
        ("metrics.csv", b""),
        ("samples.txt", b""),
        ("tokenizer.json", b"{"),
        ("last.pt", b"x"),
    ],
)
def test_a_refused_resume_writes_nothing(
    run: Path, settings: Settings, name: str, content: bytes
) -> None:
    (run / name).write_bytes(content)
    refused(run, settings, f"{name}: ", "--resume", train__max_steps=9)


def change_rows(text: str) -> dict[str, str]:
    lines = text.splitlines(keepends=True)
    return {
        "shortened": "".join(lines[:-2]),
        "only the header": lines[0],
        "a row is missing": "".join(lines[:2] + lines[3:]),
        "a digit changed": text.replace("4", "5", 1),
        "of another run": lines[0] + "".join(lines[1:]).replace("0.", "1."),
        "the last row is cut": text[:-5],
    }


@pytest.mark.parametrize("change", change_rows("a\n" * 5))
def test_changed_metrics_are_not_accepted(run: Path, settings: Settings, change: str) -> None:
    text = (run / "metrics.csv").read_text(encoding="utf-8")
    (run / "metrics.csv").write_text(change_rows(text)[change], encoding="utf-8")
    refused(run, settings, "metrics.csv: (not as it was|damaged)", "--resume", train__max_steps=9)


def test_every_flipped_bit_of_the_logs_is_noticed(run: Path, settings: Settings) -> None:
    for name in ("metrics.csv", "samples.txt"):
        original = (run / name).read_bytes()
        for position in range(0, len(original), max(1, len(original) // 12)):
            flipped = bytearray(original)
            flipped[position] ^= 1 << position % 8
            (run / name).write_bytes(flipped)
            refused(run, settings, f"{name}: ", "--resume", train__max_steps=9)
        (run / name).write_bytes(original)


def test_what_follows_the_samples_of_the_checkpoint_is_removed(
    run: Path, settings: Settings, tmp_path: Path
) -> None:
    """Without a header of a later step, it would become a part of the last sample."""
    other = tmp_path / "other"
    shutil.copytree(run, other)
    with open(run / "samples.txt", "ab") as file:
        file.write(b"from elsewhere\n\n")
    for one in (run, other):
        argv = flags(one, settings, "--resume", **STEPS | {"train__max_steps": 5})
        assert train.main(argv) == 0
    assert (run / "samples.txt").read_bytes() == (other / "samples.txt").read_bytes()


def test_a_checkpoint_without_the_logs_needs_the_row_of_its_evaluation(
    run: Path, settings: Settings
) -> None:
    state = checkpoint.load(run / "last.pt")
    del state["logs"]
    checkpoint.save(run / "last.pt", state)  # as older versions saved it
    text = (run / "metrics.csv").read_text(encoding="utf-8")
    (run / "metrics.csv").write_text("".join(text.splitlines(True)[:-1]), encoding="utf-8")
    refused(run, settings, "metrics.csv: not as it was", "--resume", train__max_steps=9)
    (run / "metrics.csv").write_text(text, encoding="utf-8")
    assert train.main(flags(run, settings, "--resume", **STEPS | {"train__max_steps": 6})) == 0


def test_a_run_without_its_checkpoints_does_not_start_again(run: Path, settings: Settings) -> None:
    (run / "last.pt").unlink()
    refused(run, settings, "last.pt: missing; copy .*best.pt over it", "--resume")
    (run / "best.pt").unlink()
    refused(run, settings, "metrics.csv: not as it was when last.pt was saved", "--resume")


def test_removed_logs_are_a_warning_and_the_run_stays_the_same(
    run: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    more = STEPS | {"train__max_steps": 6}
    (run / "samples.txt").unlink()
    assert train.main(flags(run, settings, "--resume", **more)) == 0
    assert "warning: " in capsys.readouterr().err
    assert state_of(run / "last.pt")["step"] == 6
    assert read_rows(RunFolder(run).metrics)[-1]["step"] == "6"


def test_tokenizer_exports_do_not_overwrite(tmp_path: Path) -> None:
    out = tmp_path / "gpt2"
    cli.main(["export", "tok/bpe.json", "--to", "gpt2", "--out", str(out)])
    cli.main(["export", "tok/bpe.json", "--to", "gpt2", "--out", str(out)])  # the same files
    (out / "vocab.bpe").write_text("of somebody else", encoding="utf-8")
    (out / "encoder.json").unlink()
    with pytest.raises(UserError, match="vocab.bpe exists and is different; name another --out"):
        cli.main(["export", "tok/bpe.json", "--to", "gpt2", "--out", str(out)])
    assert [path.name for path in out.iterdir()] == ["vocab.bpe"]


@pytest.mark.parametrize("name", ["results.csv", "curves.png", "axes.svg"])
def test_sweeps_do_not_overwrite_files_of_others(
    tmp_path: Path, settings: Settings, name: str
) -> None:
    (tmp_path / "c.yaml").write_text(json.dumps({"train": {"max_steps": 1}}), encoding="utf-8")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("of somebody else", encoding="utf-8")
    argv = ["--base", str(tmp_path / "c.yaml"), "--grid", "lr=0.1,0.2", "--out"]
    with pytest.raises(UserError, match=f"{name}: not written by a sweep; move it away"):
        sweep.main([*argv, str(tmp_path / "out")])
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
