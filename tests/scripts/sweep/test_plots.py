"""Plots of a sweep: positions of the plotted points, and runs that are left out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from scripts.sweep import plots as plot_sweep
from scripts.sweep.plots import axis_scale, plot_all
from scripts.sweep.ranking import group_runs
from utils.metrics import CsvLog

SETTINGS = ["model.n_embd", "optim.lr", "model.mlp"]


def row(width: int, lr: float, mlp: str, bits: float, **more: object) -> dict[str, Any]:
    settings = dict(zip(SETTINGS, (str(width), str(lr), mlp)))
    figures = {"seed": 1, "val_bpb": str(bits), "val_loss": str(2 * bits), "status": "done"}
    return {"point": f"{width}-{lr}-{mlp}", **settings, **figures, **more}


@pytest.fixture
def figures(monkeypatch):
    """Return a mapping that receives the figure of each picture by file name."""
    found: dict[str, Any] = {}
    save = plot_sweep.save_figure
    monkeypatch.setattr(
        plot_sweep,
        "save_figure",
        lambda figure, out: (found.update({out.name: figure}), save(figure, out)),
    )
    return found


def draw(rows: list[dict[str, Any]], out: Path, settings: list[str] = SETTINGS) -> list[str]:
    """Plot runs with two evaluations each; return the names of the pictures."""
    for one in rows:
        (out / one["point"]).mkdir(parents=True, exist_ok=True)
        log = CsvLog(out / one["point"] / "metrics.csv")
        for step, factor in ((0, 3.0), (10, 1.0)):
            if one["val_bpb"]:
                log.write({"step": step, "val_bpb": factor * float(one["val_bpb"])})
    pictures = plot_all(rows, settings, group_runs(rows, settings), out)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    return [path.name for path in pictures]


def test_a_grid(tmp_path, figures):
    rows = [
        row(8, 0.001, "gelu", 2.0),
        row(8, 0.1, "relu2", 1.5),
        row(16, 0.001, "gelu", 1.8),
        row(16, 0.1, "relu2", math.nan),
        row(16, 0.1, "gelu", 9.0, status="failed"),
    ]
    assert draw(rows, tmp_path) == ["curves.png", "axes.png"]
    width, lr, mlp = figures["axes.png"].axes
    names = [axes.get_xlabel() for axes in (width, lr, mlp)]  # those of the table and the curves
    assert names == ["n_embd", "lr (log scale)", "mlp"]
    # 16-0.1-relu2 is missing, so 8-0.1-relu2 is in no mean.
    assert width.lines[0].get_xydata().tolist() == [[8, 2.0], [16, 1.8]]
    assert width.get_title("left") == "mean over 1 run at each value"
    assert width.get_ylabel() == "best val bits per byte"
    assert not [*lr.lines, *mlp.lines] and lr.get_title("left").startswith("no mean")
    assert sorted(lr.collections[0].get_offsets().tolist()) == [
        [0.001, 1.8],
        [0.001, 2.0],
        [0.1, 1.5],
    ]
    assert (lr.get_xscale(), width.get_xscale()) == ("log", "linear")
    curves = figures["curves.png"].axes[0]
    assert [line.get_xydata().tolist() for line in curves.lines] == [
        [[10, 1.5]],  # no line from step 0
        [[10, 1.8]],
        [[10, 2.0]],
    ]
    assert len({(line.get_color(), line.get_marker()) for line in curves.lines}) == 3
    # A lone point has no line in the legend either, and the title says why it is alone.
    assert {line.get_linestyle() for line in curves.lines} == {"None"}
    assert "a single point: one evaluation in a run\n" in curves.get_title("left")
    assert curves.get_title("left").endswith("5 variants, 1 seed, 4 of 5 points done")
    assert legend_of(figures["curves.png"]) == [
        "variant: its best val bits per byte",
        "n_embd=8, lr=0.1, mlp=relu2: 1.5000",
        "n_embd=16, lr=0.001, mlp=gelu: 1.8000",
        "n_embd=8, lr=0.001, mlp=gelu: 2.0000",
    ]


def test_runs_with_two_evaluations_are_lines(tmp_path, figures):
    rows = [row(8, 0.1, "gelu", 2.0), row(16, 0.1, "gelu", 1.5)]
    for one in rows:
        (tmp_path / one["point"]).mkdir()
        log = CsvLog(tmp_path / one["point"] / "metrics.csv")
        for step in (10, 20):
            log.write({"step": step, "val_bpb": float(one["val_bpb"])})
    plot_all(rows, SETTINGS, group_runs(rows, SETTINGS), tmp_path)
    axes = figures["curves.png"].axes[0]
    assert [line.get_linestyle() for line in axes.lines] == ["-", "--"]
    assert axes.get_title("left").startswith("Validation loss during training\n")


def legend_of(figure) -> list[str]:
    (legend,) = figure.legends
    return [legend.get_title().get_text(), *(text.get_text() for text in legend.get_texts())]


def test_seeds_are_a_band_and_the_legend_says_so(tmp_path, figures):
    rows = [
        row(width, 0.1, "gelu", bits, seed=seed, point=f"{width}-{seed}")
        for width, losses in ((8, (2.0, 2.2)), (16, (1.0, 1.4)))
        for seed, bits in enumerate(losses)
    ]
    draw(rows, tmp_path)
    axes = figures["curves.png"].axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[10, 1.2]], [[10, 2.1]]]
    corners = [band.get_paths()[0].vertices[:, 1] for band in axes.collections]
    assert [(low.min(), low.max()) for low in corners] == [(1.0, 1.4), (2.0, 2.2)]
    assert all(band.get_linewidth() > 0 for band in axes.collections)  # one evaluation: no width
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    title, *lines = legend_of(figures["curves.png"])
    assert "mean +- standard deviation" in title and "band: from the lowest to the highest" in title
    assert lines[0] == "n_embd=16, lr=0.1, mlp=gelu: 1.2000 +- 0.2828 (2 seeds)"
    assert axes.get_title("left").endswith("2 variants, 2 seeds each, 4 of 4 points done")


def test_many_variants_are_coloured_by_their_loss(tmp_path, figures):
    draw([row(width, 0.1, "gelu", width) for width in range(1, 11)], tmp_path)
    axes, bar = figures["curves.png"].axes
    assert len(axes.lines) == 10 and bar.get_ylabel() == "best val bits per byte, mean over seeds"
    assert len(legend_of(figures["curves.png"])) == 3  # the title, the lowest and the highest
    low, high = figures["axes.png"].axes[0].get_xlim()
    ticks = figures["axes.png"].axes[0].get_xticks()
    assert len([tick for tick in ticks if low <= tick <= high]) <= 10


def test_many_values_that_are_not_numbers_are_all_named(tmp_path, figures):
    draw([row(8, 0.1, f"kind{n}", 1 + n / 10) for n in range(10)], tmp_path)
    labels = [label.get_text() for label in figures["axes.png"].axes[0].get_xticklabels()]
    assert labels == [f"kind{n}" for n in range(10)]


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_plots_in_another_format(tmp_path, suffix, start):
    rows = [row(8, 0.1, "gelu", 2.0), row(16, 0.1, "gelu", 1.5)]
    draw(rows, tmp_path)
    pictures = plot_all(rows, SETTINGS, group_runs(rows, SETTINGS), tmp_path, suffix)
    assert [path.name for path in pictures] == [f"curves.{suffix}", f"axes.{suffix}"]
    assert all(path.read_bytes().startswith(start) for path in pictures)


def test_a_picture_needs_a_setting_with_two_values(tmp_path):
    rows = [row(8, 0.1, "gelu", 2.0), row(16, 0.1, "gelu", 1.5)]
    assert draw(rows, tmp_path) == ["curves.png", "axes.png"]
    assert draw([row(8, 0.1, "gelu", 2.0)], tmp_path, []) == ["curves.png"]


def test_without_finished_runs_nothing_is_plotted(tmp_path):
    assert draw([row(8, 0.1, "gelu", 2.0) | {"status": "failed"}], tmp_path) == []
    assert not list(tmp_path.glob("*.png"))


def test_changes_are_plotted_with_their_intervals(tmp_path, figures):
    bits = {"base": (2.0, 2.1), "wide": (1.5, 1.61), "same": (2.0, 2.2)}
    rows = [
        row(8, 0.1, "gelu", value, change=change, seed=seed, point=f"{change}{seed}")
        for change, values in bits.items()
        for seed, value in enumerate(values)
    ]
    assert draw(rows, tmp_path) == ["curves.png", "changes.png"]
    axes = figures["changes.png"].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["same", "wide"]
    points = {line.get_label(): line for line in axes.lines if len(line.get_xdata()) == 1}
    same, wide = points["no difference beyond the noise"], points["lower loss than the base"]
    assert same.get_xydata().tolist() == [pytest.approx([0.05, 0])]
    assert wide.get_xydata().tolist() == [pytest.approx([-0.495, 1])]
    assert (same.get_marker(), wide.get_marker()) == ("D", "o")
    assert "95% interval" in axes.get_xlabel() and len(legend_of(figures["changes.png"])) == 3
    assert [text.get_text() for text in axes.texts] == ["+0.0500 +- 0.6353", "-0.4950 +- 0.0635"]


def test_a_change_with_unfinished_seeds_has_no_verdict_in_the_plot(tmp_path, figures):
    rows = [
        row(8, 0.1, "gelu", bits, change=change, seed=seed, point=f"{change}{seed}")
        for change, bits in (("base", 2.0), ("wide", 1.0))
        for seed in (1, 2)
    ]
    rows.append(rows[-1] | {"seed": 3, "status": "stopped", "point": "wide3"})
    draw(rows, tmp_path)
    assert legend_of(figures["changes.png"])[1:] == ["not known: one seed, or unfinished"]


def test_positions_on_an_axis():
    position, order, log = axis_scale(["16", "8", "16"])
    assert (position("16"), order, log) == (16.0, ["8", "16"], False)
    assert axis_scale(["0", "0.1"])[2] is False  # no logarithm of 0
    assert axis_scale(["1", "true", "1"])[1] == ["1", "true"]
