"""Figures do not depend on the user's Matplotlib settings or on the texts in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from tests.conftest import ROOT
from utils.errors import UserError
from utils.metrics import CsvLog
from utils.run import figure
from utils.run.folder import RunFolder
from utils.run.plot import plot_finished_run, plot_losses

HOSTILE = [
    "_hidden",
    "$x^$",
    "$\\frac{",
    "caf\udce9",
    "\ud800",
    "a\x00b\n\x1b[0m",
    "_child1",
    "n" * 300,
]
# Draws a sweep's figure with a logarithmic axis, whose numbers are mathematics by default.
PROGRAM = """
import sys
from pathlib import Path
from utils.run.figure import import_matplotlib
import_matplotlib()
from scripts.sweep.plots import plot_axes
rows = [{"lr": f"1e-{n}", "status": "done", "val_bpb": "2.0"} for n in range(1, 12)]
plot_axes(rows, ["lr"], Path(sys.argv[1]))
"""
SETTINGS = "text.usetex: True\nfont.family: no such font\nlines.linewidth: 40\nfigure.dpi: 7\n"
SETTINGS += "savefig.bbox: tight\nsavefig.transparent: True\naxes.formatter.use_mathtext: True\n"


def metrics(path: Path) -> Path:
    log = CsvLog(path)
    for step in (0, 10):
        log.write({"step": step, "val_loss": 5.0 - step / 10, "train_loss": 4.0, "val_bpb": 2.0})
    return path


def draw(out: Path, folder: Path, **environment: str) -> bytes:
    """Run PROGRAM in a folder with more variables in the environment; return the picture."""
    variables = {"PATH": "", "PYTHONPATH": str(ROOT), "HOME": str(folder), **environment}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(out)], cwd=folder, env=variables, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return out.read_bytes()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """Return the folder of matplotlib's cache, and the picture without settings of a user."""
    folder = tmp_path_factory.mktemp("plain")
    cache = str(folder / "cache")
    return cache, draw(folder / "plain.png", folder, MPLCONFIGDIR=cache)


@pytest.mark.parametrize("place", ["working folder", "MATPLOTLIBRC", "MPLCONFIGDIR"])
def test_the_users_matplotlib_settings_do_not_change_a_figure(
    tmp_path: Path, place: str, plain: tuple[str, bytes]
) -> None:
    cache, expected = plain
    folder = tmp_path / "settings"
    folder.mkdir()
    (folder / "matplotlibrc").write_text(SETTINGS, encoding="utf-8")
    changes = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "MPLCONFIGDIR": cache}
    if place != "working folder":
        changes[place] = str(folder)
    found = draw(tmp_path / "own.png", folder if place == "working folder" else ROOT, **changes)
    assert found == expected


def test_a_style_set_by_the_caller_is_neither_used_nor_changed(tmp_path: Path) -> None:
    path = metrics(tmp_path / "m.csv")
    plot_losses({"run": path}, tmp_path / "one.png")
    with matplotlib.rc_context({"lines.linewidth": 30, "text.usetex": True}):
        plot_losses({"run": path}, tmp_path / "two.png")
        assert matplotlib.rcParams["lines.linewidth"] == 30 and matplotlib.rcParams["text.usetex"]
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_can_be_drawn(tmp_path: Path, text: str, suffix: str) -> None:
    path, out = metrics(tmp_path / "m.csv"), tmp_path / f"loss.{suffix}"
    plot_losses({text: path}, out)
    plot_losses({text: path, f"{text}2": path}, out)
    assert out.stat().st_size > 5000


def test_no_label_is_left_out_of_a_legend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = metrics(tmp_path / "m.csv")
    saved = []
    monkeypatch.setattr("utils.run.plot.save_figure", lambda made, out: saved.append(made))
    plot_losses(dict.fromkeys(("_one", "_child0", "$a$"), path), tmp_path / "loss.png")
    texts = [text.get_text() for text in saved[0].legends[0].get_texts()]
    assert [text.split(" val,")[0] for text in texts[1:]] == ["_one", "_child0", "$a$"]


def test_an_error_of_matplotlib_names_the_file(tmp_path: Path) -> None:
    @figure.draws
    def broken(out: Path) -> None:
        raise RuntimeError("no fonts")

    with pytest.raises(UserError, match="loss.png: can't draw the figure .RuntimeError: no fonts"):
        broken(tmp_path / "loss.png")


def test_a_run_whose_figure_cannot_be_drawn_is_finished_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    metrics(run.metrics)
    data = {"folder": "d", "identity": "i", "floor": None}
    run.write_record({"data": data, "floor_nats_per_token": None, "starts": []})
    assert plot_finished_run(run)
    run.plot.unlink()
    run.plot.mkdir()  # it can't be replaced by a file
    assert not plot_finished_run(run)
    assert "warning: no figure: " in capsys.readouterr().err
    run.plot.rmdir()
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda *args, **kwargs: 1 / 0)
    assert not plot_finished_run(run)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_lines_differ_without_colour_and_in_other_colour_visions() -> None:
    """Every pair of the palette differs for a reader without red or without green cones.

    The matrices are for dichromats in linear RGB: Machado, Oliveira and Fernandes (2009).
    """
    styles = [figure.line_style(number) for number in range(56)]
    assert len({(one["color"], one["marker"]) for one in styles}) == 56
    first = styles[: len(figure.COLOURS)]
    assert len({one["marker"] for one in first}) == len({one["color"] for one in first}) == 7
    simulations = {
        "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    }
    for matrix in simulations.values():
        seen = [
            np.array(matrix) @ np.array(matplotlib.colors.to_rgb(colour)) ** 2.2
            for colour in figure.COLOURS
        ]
        for number, one in enumerate(seen):
            assert all(np.abs(one - other).max() > 0.1 for other in seen[:number])


@pytest.mark.parametrize("suffix", ["pgf", "jpg", "eps", "xyz"])
def test_only_three_formats_of_pictures_are_written(tmp_path: Path, suffix: str) -> None:
    message = f"can't write a .{suffix} picture; supported: .png, .pdf, .svg"
    with pytest.raises(UserError, match=message):
        figure.picture_format(tmp_path / f"loss.{suffix}")
    names = ("a.PNG", "a.b.pdf", "a.svg", "stdout")
    assert [figure.picture_format(Path(name)) for name in names] == ["png", "pdf", "svg", "png"]
