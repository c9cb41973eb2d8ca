"""`python scripts/x` works like `python -m scripts.x`."""

from __future__ import annotations

import runpy
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("name", ["bench", "eval", "export", "plot.py", "scaling.py", "sweep"])
def test_a_script_started_as_a_file_finds_the_root(name, monkeypatch, capsys):
    path = ROOT / "scripts" / name
    # As Python sets it: the script's own folder, without the repository root.
    others = [entry for entry in sys.path if entry not in ("", str(ROOT))]
    monkeypatch.setattr(sys, "path", [str(path if path.is_dir() else path.parent), *others])
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 0 and str(ROOT) in sys.path
    assert f"usage: scripts.{path.stem} [-h]" in capsys.readouterr().out


def test_a_script_started_as_a_module(run_python):
    done = run_python("-m", "scripts.plot", "--run", "nowhere")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: nowhere: no run there") and done.stderr.count("\n") == 1
