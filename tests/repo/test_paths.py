"""Paths that users give: ~ is the home folder everywhere, and errors say where they looked."""

from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path

import pytest

import train
from scripts.sweep.grid_file import load_sweep
from tok.text_files import expand_folders
from train import Config
from utils.cli import PATH_METAVARS, Parser, expand_home
from utils.config.load import load
from utils.config.schema import flat_fields
from utils.errors import UserError
from utils.files import read_bytes
from utils.run.folder import RunFolder

PROGRAMS = (
    "train",
    "sample",
    "tok.cli",
    "data.prepare",
    "data.download.__main__",
    "data.stories.__main__",
    "scripts.plot",
    "scripts.scaling",
    "scripts.eval.__main__",
    "scripts.export.__main__",
    "scripts.sweep.__main__",
    "scripts.bench.__main__",
    "scripts.bench.gpu_check",
)
PATH_SETTINGS = {
    "run_dir",
    "data.dir",
    "data.files",
    "data.val_files",
    "data.tokenizer",
    "data.cache_dir",
    "train.init_from",
}
NAMES_OF_PATHS = re.compile(
    r"(^|_)(files?|folder|dir|path|out|run|config|tokenizer|corpus|nanogpt|ranks|base|html|text|"
    r"plot|check|json)$"
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home folder that is not the current folder."""
    folder, here = tmp_path / "home", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))  # the same on Windows
    monkeypatch.chdir(here)
    return folder


def actions_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a parser and of its commands."""
    found: list[argparse.Action] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                found += actions_of(command)
        else:
            found.append(action)
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_in_each_path_argument_a_tilde_is_the_home_folder(
    program: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ParserFoundError(Exception):
        pass

    def stop(self: Parser, *rest: object) -> None:
        raise ParserFoundError(self)

    monkeypatch.setattr(Parser, "parse_known_args", stop)
    with pytest.raises(ParserFoundError) as caught:
        importlib.import_module(program).main([])
    parser = caught.value.args[0]
    paths = [
        action
        for action in actions_of(parser)
        if action.nargs != 0 and str(action.metavar).startswith(PATH_METAVARS)
    ]
    assert paths, "each program has a path among its arguments"
    for action in paths:
        assert parser._get_value(action, "~/x") == f"{home}/x"
    named = {
        action.dest
        for action in actions_of(parser)
        if action.nargs != 0 and not action.choices and NAMES_OF_PATHS.search(action.dest)
    }
    assert named - {action.dest for action in paths} <= PATH_SETTINGS | {
        "text"
    }, "a path needs a metavar that says so"


def test_the_settings_that_are_paths() -> None:
    fields = flat_fields(Config)
    assert {name for name, (_, field) in fields.items() if field.metadata["is_path"]} == (
        PATH_SETTINGS
    )


def test_a_tilde_in_a_file_or_flag_of_settings(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "run_dir: ~/run\ndata:\n  files: [~/a.txt, b~.txt]\n  val_files: ~/val\n"
    (home / "c.yaml").write_text(text, encoding="utf-8")
    config, given = load(Config, [str(home / "c.yaml")], {"data.tokenizer": "~/t.json"})
    assert config.run_dir == given["run_dir"] == f"{home}/run"
    assert config.data.files == (f"{home}/a.txt", "b~.txt")
    assert config.data.val_files == (f"{home}/val",)
    assert config.data.tokenizer == f"{home}/t.json"
    assert train.main(["--config=~/c.yaml", "--data.cache_dir=~/cache", "--print_config"]) == 0
    shown = capsys.readouterr().out
    assert f"run_dir: {home}/run\n" in shown.replace('"', "").replace("  #", "\n")
    assert f"cache_dir: {home}/cache" in shown.replace('"', "")
    assert train.main(["--run_dir=~", "--print_config"]) == 0
    assert str(home) in capsys.readouterr().out


def test_a_tilde_in_a_sweep(home: Path) -> None:
    text = "config: ~/c.yaml\nout: ~/runs\ngrid:\n  data.files: [[~/a.txt], [~/b.txt]]\n"
    (home / "s.yaml").write_text(text, encoding="utf-8")
    sweep = load_sweep(str(home / "s.yaml"), Config, {"set": ["data.tokenizer=~/t.json"]})
    assert (sweep.config, sweep.out) == (f"{home}/c.yaml", f"{home}/runs")
    assert sweep.axes == {"data.files": [(f"{home}/a.txt",), (f"{home}/b.txt",)]}
    assert sweep.fixed == {"data.tokenizer": f"{home}/t.json"}


def test_a_name_that_begins_with_a_tilde(home: Path) -> None:
    with pytest.raises(UserError, match=r"^--out: ~nobody-here/x: no home .*; write \./~nobody"):
        expand_home("~nobody-here/x", "--out")
    with pytest.raises(UserError, match=r"^--run_dir: ~nobody-here: no home folder"):
        load(Config, [], {"run_dir": "~nobody-here"})
    Path("~backup.txt").write_text("a", encoding="utf-8")  # from a shell pattern such as *.txt
    assert expand_home("~backup.txt", "FILE") == "~backup.txt"
    assert expand_home("./~nobody-here", "--out") == "./~nobody-here"


def test_errors_about_relative_paths_say_where_they_looked(home: Path) -> None:
    here = Path.cwd()
    looked = rf"\(looked in {re.escape(str(here))}\)"
    for path in ("a.txt", "sub/a.txt"):
        with pytest.raises(UserError, match=f"^{path}: No such file or directory {looked}"):
            expand_folders([path])
        with pytest.raises(UserError, match=f"^{path}: No such file or directory {looked}"):
            read_bytes(path)
    with pytest.raises(UserError, match=f"runs/x: no run there {looked}; train one"):
        RunFolder("runs/x").check_has_run()
    with pytest.raises(UserError, match=f"runs/x: no run to resume {looked}"):
        train.main(["--run_dir", "runs/x", "--resume"])
    with pytest.raises(UserError, match=f"artifacts/x: not a prepared folder {looked}"):
        train.main(["--data.dir", "artifacts/x", "--run_dir", "run"])
    with pytest.raises(UserError, match=f"^hf/config.json: No such file or directory {looked}"):
        train.main(["--train.init_from", "hf", "--run_dir", "run"])
    with pytest.raises(UserError, match=r"a\.txt: No such file or directory$"):
        read_bytes(here / "a.txt")
    assert not list(here.iterdir())
