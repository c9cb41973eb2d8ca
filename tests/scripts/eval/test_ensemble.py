"""scripts.eval with several --run: the average of their probabilities."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from torch import nn

import train
from sample import load_run, save_run
from scripts.eval import __main__ as script
from scripts.eval.scoring import Ensemble
from tests.helpers.runs import flags
from utils.errors import UserError


@pytest.fixture(scope="module")
def other_run(story_run, tmp_path_factory):
    """The run with other weights."""
    loaded = load_run(story_run)
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in loaded.model.parameters():
            weight += 0.3 * torch.randn_like(weight)
    path = tmp_path_factory.mktemp("other") / "run"
    save_run(loaded, path)
    return path


def without(figures: dict, *names: str) -> dict:
    return {name: value for name, value in figures.items() if name not in names}


def test_a_run_averaged_with_itself_is_the_run(story_run, printed, tmp_path):
    more = ["--pairs", "5", "--where", tmp_path / "where.png"]
    alone, _ = printed(script.main, "--run", story_run, *more)
    for copies in (2, 3):
        figures, _ = printed(script.main, *["--run", story_run] * copies, *more)
        named = ("runs", "checkpoints", "steps", "checkpoint", "step")
        assert without(figures, *named) == without(alone, *named)
        assert figures["runs"] == [str(story_run)] * copies


def test_all_checkpoints_are_named(story_run, other_run, printed):
    """With one run, the keys that name its checkpoint are what they were."""
    alone = {run: printed(script.main, "--run", run)[0] for run in (story_run, other_run)}
    for run, figures in alone.items():
        loaded = load_run(run)
        assert figures["checkpoint"] == str(loaded.path)
        assert figures["step"] == loaded.state["step"]
        assert figures["runs"] == [str(run)]
        assert figures["checkpoints"] == [figures["checkpoint"]]
        assert figures["steps"] == [figures["step"]]
    both, _ = printed(script.main, "--run", story_run, "--run", other_run)
    assert both["checkpoints"] == [one["checkpoint"] for one in alone.values()]
    assert both["steps"] == [one["step"] for one in alone.values()]
    assert "checkpoint" not in both and "step" not in both, "that of the first run is not all"


def test_the_plot_of_several_runs_is_not_that_of_the_first(story_run, other_run, printed, tmp_path):
    first, second = (shutil.copytree(run, tmp_path / run.name) for run in (story_run, other_run))
    (first / "where.png").write_bytes(b"its own")
    before = sorted(second.iterdir())
    argv = ["--run", first, "--run", second]
    for several in (argv, [*argv, "--run", second]):
        printed(script.main, *several, "--where")
        plot = first / f"where-{several.count('--run')}-runs.png"
        assert plot.read_bytes().startswith(b"\x89PNG")
    assert (first / "where.png").read_bytes() == b"its own"
    assert sorted(second.iterdir()) == before


def test_the_average_is_that_of_the_probabilities(story_run, other_run, printed):
    runs = [load_run(story_run), load_run(other_run)]
    figures, _ = printed(script.main, "--run", story_run, "--run", other_run)
    val = script.open_runs(script.arguments(["--run", str(story_run)]))[0].validation_set()
    windows = val.batches.splits["val"]
    nats = 0.0
    for i in range(windows.n_windows):
        ((x, y),) = windows.rows(torch.tensor([i]).numpy())
        with torch.no_grad():
            logits = [run.model(torch.from_numpy(x)[None])[0].double() for run in runs]
        p = [one.softmax(-1)[range(len(y)), y] for one in logits]
        nats -= float((sum(p) / len(p)).log().sum())
    assert figures["nats_per_token"] == pytest.approx(nats / figures["tokens"], abs=1e-6)
    each = [printed(script.main, "--run", run)[0] for run in (story_run, other_run)]
    losses = [one["nats_per_token"] for one in each]
    assert abs(losses[0] - losses[1]) > 0.01
    # By Jensen's inequality below the mean of the losses; at most ln 2 above the better one.
    assert figures["nats_per_token"] < sum(losses) / 2
    assert figures["nats_per_token"] < min(losses) + math.log(2)


def test_extreme_probabilities_are_averaged(story_run):
    class Fixed(nn.Module):
        def __init__(self, *logits: float) -> None:
            super().__init__()
            self.config, self.logits = load_run(story_run).model.config, torch.tensor([[logits]])

        def forward(self, ids_BT, doc_BT=None):
            return self.logits

    ensemble = Ensemble([Fixed(0.0, 300.0), Fixed(300.0, 0.0)])
    p = ensemble(torch.zeros(1, 1, dtype=torch.int64)).softmax(-1)
    assert p.flatten().tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    "settings, what",
    [
        ({"model.vocab_size": 390}, "tokenizer"),
        ({"data.val_story_bytes": 5000}, "validation text"),
        ({"model.block_size": 700}, "model.block_size"),
    ],
)
def test_runs_that_differ_are_refused(story_run, story_settings, printed, tmp_path, settings, what):
    other = tmp_path / "other"
    assert train.main(flags(other, story_settings | settings | {"train.max_steps": 1})) == 0
    with pytest.raises(UserError) as error:
        script.main(["--run", str(story_run), "--run", str(other)])
    assert str(error.value).startswith(f"--run {other}: another {what} than {story_run}")
    if what == "validation text":  # both can score a third text
        (tmp_path / "some.txt").write_text("The cat sat.", encoding="utf-8")
        argv = ["--run", story_run, "--run", other, "--text", tmp_path / "some.txt"]
        assert printed(script.main, *argv)[0]["bytes"] == 12


def test_what_looks_at_one_run_is_refused(story_run, tmp_path):
    for words in (["--html", str(tmp_path / "page.html")], ["--coherence", "2"]):
        with pytest.raises(UserError, match="look at one run; drop them, or give one --run"):
            script.main(["--run", str(story_run), "--run", str(story_run), *words])
    with pytest.raises(UserError, match="no run there"):
        script.main(["--run", str(story_run), "--run", str(tmp_path / "missing")])
