"""Loss plots: the file, and the curves and the floor in its legend."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from utils.errors import UserError
from utils.metrics import CsvLog
from utils.run.figure import save_figure
from utils.run.plot import plot_losses


def metrics(path: Path, *values: float, column: str = "val_loss") -> Path:
    log = CsvLog(path)
    for step, value in enumerate(values):
        log.write({"step": step, column: value, "train_loss": value + 0.1, "val_bpb": value / 4})
    return path


def drawn(runs: dict[str, Path], out: Path, **changes: object) -> Any:
    """Plot, and return the figure."""
    figures = []

    def save(figure: Any, out: Path) -> None:
        figures.append(figure)
        save_figure(figure, out)

    with mock.patch("utils.run.plot.save_figure", save):
        plot_losses(runs, out, **changes)
    return figures[0]


def legend_of(runs: dict[str, Path], out: Path, **changes: object) -> list[str]:
    """Plot, and return the texts in the legend."""
    figure = drawn(runs, out, **changes)
    (legend,) = [*figure.legends, *filter(None, [figure.axes[0].get_legend()])]
    return [text.get_text() for text in legend.get_texts()]


def test_the_plot_shows_curves_and_floor(tmp_path: Path) -> None:
    path, out = metrics(tmp_path / "m.csv", 5.0, 2.0, 1.5), tmp_path / "loss.png"
    labels = legend_of({"tiny": path}, out, floor=1.25)
    assert out.read_bytes().startswith(b"\x89PNG") and len(out.read_bytes()) > 5000
    assert any("floor" in label and "1.25" in label for label in labels)
    assert any("val" in label and "1.5" in label for label in labels)


def test_the_ticks_of_steps_are_whole_numbers(tmp_path: Path) -> None:
    figure = drawn({"tiny": metrics(tmp_path / "m.csv", 5.0, 2.0, 1.5)}, tmp_path / "loss.png")
    assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks())


def test_points_at_one_place_are_all_visible(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "m.csv")
    log.write({"step": 10, "train_loss": 3.4, "val_loss": 3.4, "val_bpb": 3.0})
    axes = drawn({"run": log.path}, tmp_path / "loss.png").axes[0]
    train, val = axes.get_lines()
    assert train.get_markerfacecolor() == "none"
    assert train.get_markersize() > 2 * val.get_markersize()
    assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_equal_runs_have_narrower_and_narrower_lines(tmp_path: Path) -> None:
    path = metrics(tmp_path / "m.csv", 5.0, 2.0, 1.5)
    lines = drawn(dict.fromkeys("abc", path), tmp_path / "loss.png").axes[0].get_lines()
    for curves in (lines[::2], lines[1::2]):  # train, val
        widths = [line.get_linewidth() for line in curves]
        assert widths == sorted(widths, reverse=True) and len(set(widths)) == 3
    sizes = [line.get_markersize() for line in lines[1::2]]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
    only = drawn({"a": path}, tmp_path / "loss.png").axes[0].get_lines()[1]
    assert (only.get_linewidth(), only.get_markersize()) == (1.5, 4)


def test_several_runs_in_bits_per_byte_as_svg(tmp_path: Path) -> None:
    runs = {name: metrics(tmp_path / f"{name}.csv", 5.0, 4.0) for name in ("one", "two")}
    labels = legend_of(runs, tmp_path / "loss.svg", unit="bpb")
    assert (tmp_path / "loss.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert all(any(name in label for label in labels) for name in runs)


def test_non_finite_losses_do_not_hide_the_best(tmp_path: Path) -> None:
    path = metrics(tmp_path / "m.csv", math.nan, 3.0, 2.0, math.inf)
    labels = legend_of({"run": path}, tmp_path / "loss.png")
    assert any("2.0" in label for label in labels) and not any("nan" in x for x in labels)


def test_a_run_stopped_before_its_first_evaluation_shows_step_0_as_a_marker(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "m.csv")
    log.write({"step": 0, "val_loss": 7.5, "val_bpb": 3.0})
    log.write({"step": 20, "train_loss": 6.0})
    figure = drawn({"run": log.path}, tmp_path / "loss.png")
    train, val = figure.axes[0].get_lines()
    assert (train.get_marker(), val.get_label()) == ("o", "val, before training")
    assert list(val.get_xdata()) == [0] and val.get_marker() == "o"
    log.write({"step": 40, "val_loss": 9.0, "val_bpb": 4.0})
    figure = drawn({"run": log.path}, tmp_path / "loss.png")
    val = figure.axes[0].get_lines()[1]
    # The lowest is the lowest of the evaluations shown: step 0 is none of them.
    assert val.get_label() == "val, lowest 9.0000 at step 40" and list(val.get_xdata()) == [40]


def test_step_0_is_a_marker_if_no_later_loss_is_lower(tmp_path: Path) -> None:
    worse, better = metrics(tmp_path / "w.csv", 2.0, 3.0, 2.5), metrics(tmp_path / "b.csv", 2.0, 1)
    _, val, start = drawn({"run": worse}, tmp_path / "loss.png").axes[0].get_lines()
    assert list(val.get_xdata()) == [1, 2] and val.get_label() == "val, lowest 2.5000 at step 2"
    assert (list(start.get_xdata()), list(start.get_ydata())) == ([0], [2.0])
    assert start.get_label() == "val, 2.0000 before training" and start.get_marker() == "o"
    assert len(drawn({"run": better}, tmp_path / "loss.png").axes[0].get_lines()) == 2


def test_an_empty_run_and_an_unknown_format_are_refused(tmp_path: Path) -> None:
    empty = metrics(tmp_path / "m.csv")
    with pytest.raises(UserError, match="nothing to plot yet"):
        plot_losses({"run": empty}, tmp_path / "loss.png")
    with pytest.raises(UserError, match="can't write a .xyz"):
        plot_losses({"run": metrics(tmp_path / "n.csv", 1.0)}, tmp_path / "loss.xyz")
    assert not list(tmp_path.glob("loss*"))
