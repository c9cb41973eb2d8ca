"""scripts.plot: one run or several, in either unit, with the floor."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import matplotlib.figure
import pytest

from scripts import plot as script
from utils.errors import UserError
from utils.metrics import read_rows
from utils.run import plot

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def plotted(monkeypatch):
    """Return a list that receives the axes of every figure."""
    made = []
    original = matplotlib.figure.Figure.subplots

    def subplots(self, *args, **kwargs):
        made.append(original(self, *args, **kwargs))
        return made[-1]

    monkeypatch.setattr(matplotlib.figure.Figure, "subplots", subplots)
    return made


def copy_run(run: Path, to: Path, floor: float) -> Path:
    shutil.copytree(run, to)
    record = json.loads((to / "run.json").read_text(encoding="utf-8"))
    record["floor_nats_per_token"] = floor
    (to / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return to


def line(axes, start: str):
    (found,) = [one for one in axes.get_lines() if one.get_label().startswith(start)]
    return found


def test_one_run_is_drawn_into_its_folder(story_run, tmp_path, capsys, plotted):
    copy = shutil.copytree(story_run, tmp_path / "copy")
    (copy / "loss.png").unlink()
    assert script.main(["--run", str(copy)]) == 0
    assert capsys.readouterr().out == f"{copy / 'loss.png'}\n"
    assert (copy / "loss.png").read_bytes().startswith(PNG)
    (axes,) = plotted
    rows = read_rows(copy / "metrics.csv")
    val = line(axes, "val")
    after = [row for row in rows if row["val_loss"] and row["step"] != "0"]  # no line from step 0
    assert list(val.get_ydata()) == [float(row["val_loss"]) for row in after]
    assert list(val.get_xdata()) == [int(row["step"]) for row in after] and len(after) == 2
    train = line(axes, "train")
    assert list(train.get_ydata()) == [float(r["train_loss"]) for r in rows if r["train_loss"]]
    record = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    assert list(line(axes, "floor").get_ydata()) == [record["floor_nats_per_token"]] * 2
    assert axes.get_ylabel() == "nats per token"
    low, high = axes.get_ylim()
    assert low < record["floor_nats_per_token"] and high > max(val.get_ydata())
    assert axes.get_yscale() == "log"  # from ln V to a floor of a tenth of it
    assert (axes.get_xlabel(), axes.get_title("left")) == (
        "optimizer step",
        "Loss of copy during training",
    )
    assert train.get_alpha() is None and train.get_color() != val.get_color()


def test_the_floor_is_drawn_in_bits_per_byte_too(story_run, tmp_path, plotted):
    assert (
        script.main(["--run", str(story_run), "--unit", "bpb", "--out", str(tmp_path / "b.png")])
        == 0
    )
    record = json.loads((story_run / "run.json").read_text(encoding="utf-8"))
    expected = record["data"]["floor"]["nats_per_byte"] / math.log(2)
    assert line(plotted[0], "floor").get_ydata()[0] == pytest.approx(expected)
    assert plotted[0].get_ylabel() == "bits per byte"


def test_several_runs_need_a_name_for_the_picture(story_run, tmp_path, capsys, plotted):
    copy = copy_run(story_run, tmp_path / "copy", floor=0.3)
    with pytest.raises(UserError, match="--out"):
        script.main(["--run", str(story_run), str(copy)])
    out = tmp_path / "two.svg"
    assert script.main(["--run", str(story_run), str(copy), "--out", str(out)]) == 0
    assert out.read_bytes().lstrip().startswith(b"<?xml")
    printed = capsys.readouterr()
    assert "different floors" in printed.err
    labels = [text.get_text() for text in plotted[-1].figure.legends[0].get_texts()]
    assert [label.split(",")[0] for label in labels] == [
        "thin lines: train",
        f"{story_run.name} val",
        "copy val",
    ]
    header, first, second, path = printed.out.splitlines()
    rows = read_rows(story_run / "metrics.csv")
    best = min((row for row in rows[1:] if row["val_loss"]), key=lambda row: float(row["val_loss"]))
    figures = [f"{float(best[name]):.4f}" for name in ("val_loss", "val_bpb")]
    assert header.split() == "run steps best val nats/token bits/byte at step time".split()
    assert first.split()[:-1] == [story_run.name, "4", *figures, best["step"]]
    assert second.split()[0] == "copy" and path == str(out)


def test_a_run_without_an_evaluation_is_compared_too(story_run, tmp_path, capsys):
    copy = copy_run(story_run, tmp_path / "stopped", floor=0.3)
    lines = (copy / "metrics.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (copy / "metrics.csv").write_text("".join(lines[:2]), encoding="utf-8")  # only step 0
    out = tmp_path / "two.pdf"
    assert script.main(["--run", str(story_run), str(copy), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"%PDF")
    stopped = capsys.readouterr().out.splitlines()[2]
    assert stopped.split()[:5] == ["stopped", "0", "-", "-", "-"]  # step 0 is not a result


def test_runs_with_equal_names_are_labelled_by_their_paths(tmp_path):
    runs = [script.RunFolder(tmp_path / "a" / "x"), script.RunFolder(tmp_path / "b" / "x")]
    assert script.labels(runs) == [str(run.path) for run in runs]
    assert script.labels(runs[:1]) == ["x"]


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--run", "nowhere"], "no run there"),
        (["--out", "loss.xyz"], "can't write a .xyz picture; supported: .*png"),
        (["--unit", "nats"], "nats"),
        (["--out", "nodir/x.svg"], "--out nodir/x.svg: there is no folder nodir; make it first"),
    ],
)
def test_bad_arguments_are_refused(story_run, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        script.main(["--run", str(story_run), *argv] if "--run" not in argv else argv)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_rows_is_refused(story_run, tmp_path):
    copy = shutil.copytree(story_run, tmp_path / "copy")
    header = (copy / "metrics.csv").read_text(encoding="utf-8").splitlines()[0]
    (copy / "metrics.csv").write_text(header + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="nothing to plot yet"):
        script.main(["--run", str(copy), "--out", str(tmp_path / "no.png")])
    assert not (tmp_path / "no.png").exists()


def test_a_narrow_range_has_a_linear_axis():
    axes = matplotlib.figure.Figure().subplots()
    plot.scale_y(axes, [2.0, 3.0])
    assert axes.get_yscale() == "linear"
    plot.scale_y(axes, [-1.0, 30.0])
    assert axes.get_yscale() == "linear"
    plot.scale_y(axes, [0.5, 7.6])
    assert axes.get_yscale() == "log"
    low, high = axes.get_ylim()
    shown = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert len(shown) >= 5 and axes.yaxis.get_major_formatter()(1.5) == "1.5"
