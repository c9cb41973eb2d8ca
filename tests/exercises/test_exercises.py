"""docs/exercises.md: each solution passes its judge; skeletons and common mistakes fail."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.exercises.judges import JUDGES, exercise, main, sections
from tests.helpers.repo import tracked_files
from utils.errors import UserError

SOLUTIONS = Path(__file__).parent / "solutions"
PAGE = (ROOT / "docs" / "exercises.md").read_text(encoding="utf-8")
NUMBERS = [pytest.param(n, marks=pytest.mark.slow if n == 12 else ()) for n in JUDGES]
# Exercise, a line of its solution, a mistake, and a part of the message.
MISTAKES = [
    (1, "i += 2 if found else 1", "i += 1", "merge([1, 2], (1, 2), 9)"),
    (2, "(-counts[pair], pair)", "-counts[pair]", "learn("),
    (2, "if not counts:", "if False:", "line 20: ValueError: min() "),
    (3, "in enumerate(merges, start=256)", "in [*enumerate(merges, start=256)][::-1]", "encode("),
    (4, ".mean()", ".sum()", "logits times 1: differs"),
    (4, "logits_NV.logsumexp(dim=1)", "logits_NV.exp().sum(1).log()", "logits times 1000"),
    (5, "dim=-1, keepdim=True", "", "random vectors"),
    (5, " + eps", " + 1e-5", "eps 1"),
    (6, "== 0", "< 0", "random q, k and v"),
    (6, " / K**0.5", "", "random q, k and v"),
    (7, "-2 * torch", "-torch", "random vectors"),
    (8, "if temperature == 0", "if temperature < 0", "temperature 0.0"),
    (8, "logits_V / temperature", "logits_V * temperature", "temperature 0.7"),
    (9, "(step + 1) / warmup", "step / warmup", "step 0 of 7"),
    (9, "max_steps - 1 - (warmup", "max_steps - (warmup", "step 2 of 7"),
    (10, "m / (1 - beta1**step)", "m", "the weight after step 1"),
    (10, "weight * (1 - lr * decay)", "weight", "the weight after step 1"),
    (
        11,
        "        self.values.append(v_K)",
        "        self.values = [v_K] * len(self.keys)",
        "token 1",
    ),
    (12, "(1, H + 1)", "(H)", "random q, k and v"),
]


def test_there_are_twelve_exercises_of_one_form() -> None:
    assert [*sections(PAGE)] == [*JUDGES] == [*range(1, 13)]
    assert {path.name for path in SOLUTIONS.glob("*.py")} == {f"ex{n:02}.py" for n in JUDGES}
    for n, text in sections(PAGE).items():
        skeleton, figure = exercise(n)
        assert "raise NotImplementedError" in skeleton and figure and "\nHint: " in text
        assert "Compare:" in text or n == 12
        assert len(skeleton.splitlines()) <= 9 and len(text.splitlines()) <= 28
    assert main.__module__ in PAGE


def run(n: int, folder: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.chdir(folder)
    (folder / "exercises").mkdir()
    (folder / "exercises" / f"ex{n:02}.py").write_text(source, encoding="utf-8")
    return main([str(n)])


@pytest.mark.parametrize("n", NUMBERS)
def test_the_solution_is_right(n, tmp_path, monkeypatch, capsys) -> None:
    source = (SOLUTIONS / f"ex{n:02}.py").read_text(encoding="utf-8")
    assert run(n, tmp_path, source, monkeypatch) == 0
    assert capsys.readouterr().out == f"exercise {n} is right: {exercise(n)[1]}\n"


@pytest.mark.parametrize("n", JUDGES)
def test_the_skeleton_is_written_and_then_refused(n, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(n)]) == 0
    path = Path("exercises") / f"ex{n:02}.py"
    assert str(path) in capsys.readouterr().out
    written = path.read_text(encoding="utf-8")
    assert written == exercise(n)[0]
    with pytest.raises(UserError, match=f"{re.escape(str(path))}: not written yet"):
        main([str(n)])
    assert path.read_text(encoding="utf-8") == written


@pytest.mark.parametrize("n", JUDGES)
def test_a_function_that_returns_nothing_is_wrong(n, tmp_path, monkeypatch) -> None:
    source = exercise(n)[0].replace("raise NotImplementedError", "return None")
    with pytest.raises(UserError, match=rf"ex{n:02}\.py"):
        run(n, tmp_path, source, monkeypatch)


@pytest.mark.parametrize(("n", "line", "mistake", "message"), MISTAKES)
def test_a_common_mistake_is_found(n, line, mistake, message, tmp_path, monkeypatch) -> None:
    source = (SOLUTIONS / f"ex{n:02}.py").read_text(encoding="utf-8")
    assert line in source
    with pytest.raises(UserError, match=re.escape(message)):
        run(n, tmp_path, source.replace(line, mistake), monkeypatch)


@pytest.mark.parametrize("words", [[], ["0"], ["13"], ["x"], ["1", "2"]])
def test_another_number_is_refused(words, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="exercise: name one of 1 to 12: make exercise N=1"):
        main(words)
    assert list(tmp_path.iterdir()) == []


def test_make_and_git_know_the_exercises(run_python) -> None:
    assert shutil.which("make") is None or "exercise" in (ROOT / "Makefile").read_text("utf-8")
    assert not [path for path in tracked_files() if path.parent == ROOT / "exercises"]
    done = run_python("-m", "tests.exercises.judges", "x")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
