"""The table `size.*`: settings that follow from the size of the text."""

import dataclasses
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import train
from data.config import DataConfig
from data.ngrams import ngram_bits
from data.prepare import measure_text, prepare
from model.training import duration
from scripts.sweep import __main__ as sweep
from tests.conftest import ROOT
from tests.helpers.runs import assert_same_run
from utils.config.load import load
from utils.config.sizing import SizeConfig, settings_for, sized
from utils.errors import UserError

TEXT = (ROOT / "data" / "tiny.txt").read_bytes()
SMALL = """
model: {head_size: 32, block_size: 16, n_layer: 1, rope_theta: 100.0}
data: {stories: false}
train: {batch_size: 4, eval_every_steps: 5, sample_tokens: 2, num_threads: 1}
size:
  min_bytes: [0, 10_000]
  vocab_sizes: [257, 300]
  wide_vocab_sizes: [257, 300]
  widths: [32, 64]
  dropouts: [0.2, 0.1]
  weight_decays: [1, 0.5]
  passes: [0.2, 0.1]
"""


@pytest.fixture()
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    (tmp_path / "text.txt").write_bytes(TEXT[:20_000])
    return path


def start(config_file: Path, name: str, *more: str) -> train.Config:
    """Train a run of the text; return the settings that config.yaml holds."""
    folder = config_file.parent
    flags = [
        "--config",
        config_file,
        "--data.files",
        folder / "text.txt",
        "--run_dir",
        folder / name,
    ]
    assert train.main([*map(str, flags), "--data.cache_dir", str(folder / "cache"), *more]) == 0
    return load(train.Config, [str(folder / name / "config.yaml")], {})[0]


def test_a_run_stores_what_the_table_chose_and_resumes_with_the_same_flags(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = start(config_file, "run")
    model = config.model
    assert (model.vocab_size, model.n_embd, model.n_head, model.dropout) == (300, 64, 2, 0.1)
    assert config.size == SizeConfig() and config.train.max_passes == 0
    chosen = "for 20,000 bytes of text: model.vocab_size 300, model.n_embd 64, model.dropout 0.1, "
    assert (
        chosen + "optim.weight_decay 0.5, train.max_passes 0.1, model.n_head 2\n"
        in capsys.readouterr().err
    )
    steps = config.train.max_steps
    assert 2 <= steps < 30
    assert start(config_file, "run", "--resume").train.max_steps == steps
    assert "nothing to do" in capsys.readouterr().err
    folder = config_file.parent
    same = ["--config", str(folder / "run" / "config.yaml"), "--run_dir", str(folder / "same")]
    assert train.main(same) == 0
    assert_same_run(folder / "run", folder / "same")


def test_settings_that_are_given_are_kept(config_file: Path) -> None:
    flags = ["--model.n_embd", "128", "--model.dropout", "0", "--train.max_steps", "31"]
    config = start(config_file, "run", *flags)
    assert (config.model.n_embd, config.model.n_head, config.model.dropout) == (128, 4, 0)
    assert config.train.max_steps == 31, "passes do not limit a number of steps that is given"


def test_a_budget_is_limited_by_the_passes_and_sets_the_width(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = start(config_file, "run", "--train.max_minutes", "0.3")
    found = re.search(
        r"\n(\d+) steps fit into 0.3 minutes: 0.1 passes over the text are (\d+): about",
        capsys.readouterr().err,
    )
    assert found and int(found[1]) > int(found[2]) == config.train.max_steps
    assert config.model.n_embd == 32


def test_the_width_grows_with_the_fourth_root_of_the_budget() -> None:
    table = SizeConfig((0,), (512,), (1024,), (128,), (0.0,), (0.1,), (9.0,))
    widths = [
        settings_for(table, 10**8, 0.0, minutes)["model.n_embd"] for minutes in (0, 5, 80, 0.3)
    ]
    assert widths == [128, 128, 256, 64]


def test_text_in_wide_characters_gets_a_larger_vocabulary(tmp_path: Path) -> None:
    for name, text, share in (("zh", "汉字" * 500, 1), ("ru", "да" * 500, 0), ("en", "ab", 0)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        n_bytes, wide_share, vocab_size = measure_text(DataConfig(files=(str(tmp_path / name),)))
        assert (n_bytes, wide_share, vocab_size) == (len(text.encode()), share, None)
    table = SizeConfig((0,), (512,), (1024,), (128,), (0.0,), (0.1,), (9.0,))
    assert settings_for(table, 9, 1.0, 0)["model.vocab_size"] == 2 * 512
    assert settings_for(table, 9, 0.02, 0)["model.vocab_size"] == 512  # some quotation marks
    assert settings_for(table, 9, 0.5, 0)["model.vocab_size"] == 512 + 256


def test_the_page_about_sizes_has_the_numbers_of_the_table() -> None:
    config, _ = load(train.Config, [str(ROOT / "configs" / "text.yaml")], {})
    page = (ROOT / "docs" / "sizes.md").read_text(encoding="utf-8")
    row = r"^\| ([\d.]+) (kB|MB), (.*?) \| ([\d,.]+), ([\d.]+), ([\d.]+) \|(.*)"
    rows = re.findall(row, page, re.M)
    assert len(rows) == 10
    for size, unit, text, *numbers, rest in rows:
        n_bytes = round(float(size) * {"kB": 10**3, "MB": 10**6}[unit])
        chosen = settings_for(config.size, n_bytes, 1.0 if text == "Chinese" else 0.0, 5.0)
        names = ("model.vocab_size", "model.dropout", "optim.weight_decay")
        for name, number in zip(names, numbers, strict=True):
            value = number.replace(",", "")
            # Only a row whose command names the setting may have another value than the table.
            assert chosen[name] == float(value) or f"--{name} {value}" in rest
        assert chosen["model.n_embd"] == 128


def test_a_tokenizer_and_a_prepared_folder_keep_their_vocabulary(config_file: Path) -> None:
    folder, tokenizer = config_file.parent, str(ROOT / "tok" / "bpe.json")
    data = DataConfig(files=(str(folder / "text.txt"),), tokenizer=tokenizer, stories=False)
    prepared = prepare(data, None, folder / "prepared")
    for where in (data, DataConfig(dir=str(prepared), stories=False)):
        config, given = load(train.Config, [str(config_file)], {})
        n_bytes, _, vocab_size = measure_text(where)
        chosen, _ = sized(dataclasses.replace(config, data=where), given, measure_text)
        assert n_bytes == 20_000 and chosen.model.vocab_size == vocab_size == 2048


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--size.dropouts", "0.1"],
            "size.*: lists of different lengths; give each as many numbers",
        ),
        (["--size.min_bytes", "5", "9"], "size.min_bytes: must start at 0 and rise; change"),
        (["--size.min_bytes", "0", "0"], "size.min_bytes: must start at 0 and rise; change"),
        (["--size.dropouts", "0", "1"], "--size.dropouts: must be below 1, got 1.0"),
    ],
)
def test_a_wrong_table_is_an_error(config_file: Path, flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        start(config_file, "run", *flags)
    assert not (config_file.parent / "run").exists()


def test_the_end_of_a_run_compares_it_with_the_best_ngrams(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(config_file, "run", "--train.max_steps", "2")
    found = re.search(
        r"run: (.+) bits/byte, (.+)% above the (.+) of counted (\d)-grams of bytes\n",
        capsys.readouterr().err,
    )
    assert found
    # The end-of-text token after each part is a symbol, too.
    parts = (np.array([*part, 255]) for part in (TEXT[:18_000], TEXT[18_000:20_000]))
    bits = ngram_bits(*parts, 256, range(2, 9))
    order = min(bits, key=bits.__getitem__)
    assert int(found[4]) == order and float(found[3]) == pytest.approx(bits[order] / 2000, abs=1e-4)
    ours, theirs = float(found[1]), float(found[3])
    assert float(found[2]) == pytest.approx(100 * (ours / theirs - 1), abs=0.1)


def test_passes_count_all_rows_of_a_step(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accumulated = ["--train.batch_size", "2", "--train.grad_accum_steps", "2"]
    steps = start(config_file, "run", "--train.max_minutes", "0.3", *accumulated).train.max_steps
    epochs = steps / float(re.findall(r"([\d.]+) steps an epoch", capsys.readouterr().err)[0])
    assert epochs == pytest.approx(0.1, rel=0.05)


def test_the_estimate_is_that_of_the_limited_steps(
    config_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duration, "MIN_FLOPS", 0)
    steps = start(config_file, "run").train.max_steps
    err = capsys.readouterr().err
    assert f"\n0.1 passes over the text are {steps}: about " in err and f", {steps} steps of" in err


def test_a_long_budget_does_not_widen_the_model_of_a_short_text() -> None:
    table = SizeConfig((0,), (512,), (1024,), (128,), (0.0,), (0.1,), (9.0,))
    sizes = {10**5: 128, 16 * 10**5: 256, 10**8: 416}
    for n_bytes, width in sizes.items():
        assert settings_for(table, n_bytes, 0.0, 600)["model.n_embd"] == width


def test_a_killed_start_can_be_repeated(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(train.RunFolder, "write_record", lambda *args: sys.exit("killed"))
        with pytest.raises(SystemExit):
            start(config_file, "run")
    assert (config_file.parent / "run" / "config.yaml").exists()
    start(config_file, "run")


def test_a_sweep_sizes_its_points_and_can_be_repeated(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = config_file.parent
    data = f"stories: false, files: [{folder}/text.txt], cache_dir: {folder}/cache"
    config_file.write_text(SMALL.replace("stories: false", data), encoding="utf-8")
    flags = ["--base", str(config_file), "--out", str(folder / "out"), "--each", "lr=1e-3"]
    with pytest.raises(UserError, match="train.max_passes: set train.max_steps instead"):
        sweep.main(flags)
    flags += ["--set", "train.max_steps=2"]
    assert sweep.main(flags) == 0
    assert sweep.main(flags) == 0, "both points are done"
    stored, _ = load(train.Config, [str(folder / "out" / "base" / "config.yaml")], {})
    assert stored.model.vocab_size == 300
