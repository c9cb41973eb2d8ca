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
    assert [axes.get_xlabel() for axes in (width, lr, mlp)] == SETTINGS
    assert width.lines[0].get_xydata().tolist() == [[8, 1.75], [16, 1.8]]  # the means
    assert sorted(lr.collections[0].get_offsets().tolist()) == [
        [0.001, 1.8],
        [0.001, 2.0],
        [0.1, 1.5],
    ]
    assert (lr.get_xscale(), width.get_xscale()) == ("log", "linear")
    curves = figures["curves.png"].axes[0]
    assert [line.get_ydata().tolist()[-1] for line in curves.lines] == [2.0, 1.8, 1.5]


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
    points = [bars.lines[0].get_xydata().tolist()[0] for bars in axes.containers]
    assert points == [pytest.approx([0.05, 0]), pytest.approx([-0.495, 1])]


def test_positions_on_an_axis():
    position, order, log = axis_scale(["16", "8", "16"])
    assert (position("16"), order, log) == (16.0, ["8", "16"], False)
    assert axis_scale(["0", "0.1"])[2] is False  # no logarithm of 0
    assert axis_scale(["1", "true", "1"])[1] == ["1", "true"]
