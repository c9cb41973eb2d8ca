"""scripts.scaling: planted constants are found, and what can't be fitted is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts import scaling as script
from scripts import scaling_law
from scripts.scaling_law import Grid, choose_law, fit_law, relative_noise, terms
from tests.conftest import ROOT
from tests.helpers.runs import fake_run
from train import Config
from utils.config.load import load
from utils.errors import UserError

SIZES, TOKENS = np.array(
    [(n, d) for n in (1e5, 2e5, 4e5, 6e5, 9e5) for d in (8e5, 1.7e6, 3.4e6) for _ in range(3)]
).T
EQUAL = np.ones(len(SIZES))
STORIES = (0.487, 60.0, 9000.0, 0.6, 0.75)
CHINCHILLA = (1.69, 406.4, 410.7, 0.34, 0.28)  # of Hoffmann et al. 2022


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SAMPLES", 100)  # of the bootstrap: enough for these tests


def planted(constants: tuple[float, ...], sizes: Any, tokens: Any) -> Any:
    E, A, B, a, b = constants
    return E + A / sizes**a + B / tokens**b


def constants_of(laws: np.ndarray) -> np.ndarray:
    return np.concatenate([np.exp(laws[:, :3]), laws[:, 3:]], 1)


@pytest.mark.parametrize("constants", [STORIES, CHINCHILLA])
def test_exact_losses_give_the_planted_constants(constants):
    losses = planted(constants, SIZES, TOKENS)
    laws, _ = fit_law(losses, Grid(SIZES, TOKENS, EQUAL), 20)
    found = constants_of(laws)
    assert found[0] == pytest.approx(constants, rel=1e-5)
    assert np.allclose(found, found[0], rtol=1e-4)  # no residuals, so no spread


@pytest.mark.parametrize("power", [0.0, -1.0])
def test_the_planted_floor_is_in_its_interval_in_19_of_20_sweeps(monkeypatch, power):
    """And so are the loss that the law has for a larger run, and that of a single such run.

    With power -1, the loss of the smallest model varies nine times as much as that of the largest.
    """
    monkeypatch.setattr(scaling_law, "FIT_STEPS", 20)  # enough here, and faster
    rng, repetitions = np.random.default_rng(1), 100
    inside, deviation = np.zeros(3), 0.003 * (SIZES / SIZES.max()) ** power
    larger = np.array([2 * SIZES.max()]), np.array([2 * TOKENS.max()])
    for _ in range(repetitions):
        losses = planted(STORIES, SIZES, TOKENS) * np.exp(deviation * rng.normal(size=len(SIZES)))
        noise = relative_noise(losses, SIZES, TOKENS)
        laws, errors = fit_law(losses, Grid(SIZES, TOKENS, noise), 100)
        predicted, true = terms(laws, *larger).sum((1, 2)), planted(STORIES, *larger)[0]
        values = [(np.exp(laws[:, 0]), STORIES[0]), (predicted, true)]
        run = true * np.exp(rng.normal(0, 0.003))
        values.append((predicted * np.exp(errors), run))
        for number, (found, value) in enumerate(values):
            low, high = script.bounds(found)
            inside[number] += low <= value <= high
    assert (0.89 <= inside / repetitions).all() and (inside / repetitions <= 0.99).all()


def test_runs_that_vary_much_count_little(monkeypatch):
    """The prediction is closer to the truth than if all runs counted the same."""
    monkeypatch.setattr(scaling_law, "FIT_STEPS", 20)
    rng, deviation = np.random.default_rng(1), 0.003 * SIZES.max() / SIZES
    larger = np.array([2 * SIZES.max()]), np.array([2 * TOKENS.max()])
    found: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(40):
        losses = planted(STORIES, SIZES, TOKENS) * np.exp(deviation * rng.normal(size=len(SIZES)))
        for weighted in found:
            noise = relative_noise(losses, SIZES, TOKENS) if weighted else EQUAL
            laws, _ = fit_law(losses, Grid(SIZES, TOKENS, noise), 1)
            found[weighted].append(float(terms(laws[:1], *larger).sum()))
    true = planted(STORIES, *larger)[0]
    error = {weighted: np.std(np.array(values) - true) for weighted, values in found.items()}
    assert error[True] < 0.7 * error[False]


PRODUCT = (0.487, 4e9, 0.6, 1.1)


def test_the_law_that_describes_the_runs_is_taken():
    """A planted product is recognised, and its constants found."""
    rng, grid = np.random.default_rng(1), Grid(SIZES, TOKENS, EQUAL)
    E, C, a, b = PRODUCT
    errors = np.exp(rng.normal(0, 0.003, len(SIZES)))
    losses = (E + C / (SIZES**a * TOKENS**b)) * errors
    law, misfits = choose_law(losses, grid)
    assert law == "product" and misfits["sum"] > 2 * misfits["product"]
    assert misfits["product"] == pytest.approx(0.003, rel=0.3)
    laws, _ = fit_law(losses, grid._replace(law=law), 100)
    for found, true in zip((np.exp(laws[:, 0]), laws[:, 2], laws[:, 3]), (E, a, b), strict=True):
        low, high = script.bounds(found)
        assert low <= true <= high
    assert choose_law(planted(STORIES, SIZES, TOKENS) * errors, grid)[0] == "sum"


def test_law_forces_a_law(sweep, printed):
    folder = sweep(WIDTHS, LENGTHS)
    records = [printed(script.main, "--sweep", folder, *more)[0] for more in ([], ["--law", "sum"])]
    assert records[0] == records[1] and records[0]["law"] == "sum"
    record, _ = printed(script.main, "--sweep", folder, "--law", "product")
    assert record["law"] == "product" and record["misfits"] == records[0]["misfits"]
    assert record["C"]["low"] < record["C"]["value"] and "A" not in record


def test_one_seed_says_nothing_about_the_noise():
    sizes, steps = np.array([1.0, 2, 4]), np.array([1.0, 1, 1])
    assert (relative_noise(np.array([3.0, 2, 1]), sizes, steps) == 1).all()
    cheap = np.array([1.0, 1, 2, 2, 4, 8])  # only the cheap ones are repeated: too little to tell
    few = np.array([3.0, 3.1, 2, 2.0001, 1, 1])
    assert (relative_noise(few, cheap, np.ones(6)) == 1).all()
    repeated = np.array([3.0, 3, 2, 2])  # equal losses: no variance has a logarithm
    assert (relative_noise(repeated, np.array([1.0, 1, 2, 2]), np.ones(4)) == 1).all()


@pytest.fixture
def sweep(story_run: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return sweep(widths, steps, ...) -> a folder of finished runs with planted losses."""
    config, _ = load(Config, [str(story_run / "config.yaml")], {})

    def make(
        widths: tuple[int, ...],
        lengths: tuple[int, ...],
        seeds: int = 1,
        name: str = "sweep",
        E: float = 1.0,
        noise: float = 1e-3,
        **settings: Any,
    ) -> Path:
        for width in widths:
            for steps in lengths:
                for seed in range(1, seeds + 1):
                    run = tmp_path / name / f"{width}-{steps}-{seed}"
                    changed = {"model.n_embd": width}
                    changed |= {key.replace("__", "."): value for key, value in settings.items()}
                    loss = planted((E, 20.0, 30.0, 0.5, 0.4), width**2, 100 * steps)
                    loss *= 1 + noise * np.random.default_rng(width * steps + seed).normal()
                    fake_run(story_run, run, config, loss, steps, seed, changed)
        return tmp_path / name

    return make


WIDTHS, LENGTHS = (8, 16, 32, 64), (10, 40, 160, 640)


def test_a_floor_that_runs_do_not_determine_is_no_certain_zero():
    """The fitted E is zero: fits that start from it alone would stay there, with zero width."""
    sizes, tokens = np.array([(n, d) for n in (1e5, 3e5, 9e5) for d in (8e5, 1.7e6, 3.4e6)]).T
    noise = np.random.default_rng(5).normal(0, 0.02, 9)
    losses = planted(STORIES, sizes, tokens) * np.exp(noise)
    E = np.exp(fit_law(losses, Grid(sizes, tokens, np.ones(9)), 100)[0][:, 0])
    assert E[0] < 1e-3 and script.bounds(E)[1] > STORIES[0]
    found = script.estimate_floor(E, losses.min())
    assert math.isnan(found["value"]) and found["low"] == 0 and found["high"] > STORIES[0]


def test_nothing_is_said_about_a_floor_that_is_not_determined(sweep, printed, capsys):
    folder = sweep(WIDTHS, LENGTHS, E=0.0, noise=0.05)
    record, _ = printed(script.main, "--sweep", folder)
    assert record["E"]["value"] is None and record["E"]["low"] == 0 < record["E"]["high"]
    script.main(["--sweep", str(folder)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:3] == ["E", "-", "0"] and "nan" not in "".join(lines)
    assert lines[-4].startswith("E: not determined by these runs, its interval reaches 0")
    assert lines[-3].endswith("; these runs do not show whether E is near it")


def test_runs_with_other_settings_are_refused(sweep, printed):
    folder = sweep(WIDTHS, LENGTHS, train__eval_every_steps=3)
    depth = {"model__n_layer": 2, "model__n_head": 4, "model__n_kv_head": 2}
    sweep((16,), (80,), train__eval_every_steps=5, **depth)
    assert printed(script.main, "--sweep", folder)[0]["runs"] == 17  # sizes may differ
    larger = sweep((128,), (1280,), name="larger", optim__lr=0.5)
    message = "--run .*: 128-1280-1 has optim.lr 0.5, not .* as 16-10-1; train all runs with the"
    with pytest.raises(UserError, match=message):
        script.main(["--sweep", str(folder), "--run", str(larger / "128-1280-1")])
    sweep((16,), (90,), train__batch_size=2)
    with pytest.raises(UserError, match="--sweep .*: 16-90-1 has train.batch_size 2, not 4 as"):
        script.main(["--sweep", str(folder)])


def test_a_sweep_is_fitted_plotted_and_compared_with_the_floor(sweep, printed):
    folder = sweep(WIDTHS, LENGTHS, seeds=2)
    record, _ = printed(script.main, "--sweep", folder)
    floor = record["floor"]
    assert record["runs"] == 32 and 0 < floor < 5
    for name in "EABab":
        assert record[name]["low"] <= record[name]["value"] <= record[name]["high"]
    assert record["b"]["low"] <= 0.4 <= record["b"]["high"]
    one = record["prediction"]
    assert one["tokens"] == 2 * 64_000 and one["times_compute"] == 4 and "measured" not in one
    assert one["low"] < one["value"] < one["high"] and one["high"] / one["low"] < 1.05
    assert one["run_low"] < one["low"] and one["high"] < one["run_high"]
    described = (ROOT / "docs/formats.md").read_text(encoding="utf-8").partition("scripts.scaling")
    words = set(re.findall(r"`(\w+)`", described[2].partition("## ")[0]))
    keys = {*record, *one, *record["E"], "measured"}
    assert words - {"C"} == keys | {"sum", "product"}
    assert (folder / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_a_larger_run_is_compared_with_its_prediction(sweep, printed, capsys):
    folder, larger = sweep(WIDTHS, LENGTHS), sweep((128,), (1280,), name="larger")
    record, _ = printed(script.main, "--sweep", folder, "--run", larger / "128-1280-1")
    one = record["prediction"]
    assert one["tokens"] == 128_000 and one["times_compute"] > 4
    assert one["measured"] == pytest.approx(planted((1.0, 20, 30, 0.5, 0.4), 128**2, 128_000), 0.01)
    change_data(larger / "128-1280-1")
    argv = ["--sweep", str(folder), "--run", str(larger / "128-1280-1")]
    with pytest.raises(UserError, match="--run .*: other data; name a run on the data of the"):
        script.main(argv)
    metrics = larger / "128-1280-1" / "metrics.csv"
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    metrics.write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(UserError, match="--run .*128-1280-1: not finished"):
        script.main(argv)


def test_the_text_compares_the_fit_with_the_floor_and_the_measurement():
    one = {"value": 0.5, "low": 0.49, "high": 0.51}
    record = {"floor": 0.495, "law": "sum", "runs": 45, **dict.fromkeys("EABab", one)}
    record["misfits"] = {"sum": 0.0123, "product": 0.02}
    record["prediction"] = {"parameters": 2e6, "tokens": 7e6, "times_compute": 4.1, **one}
    record["prediction"] |= {"run_low": 0.48, "run_high": 0.52}
    start, *lines = script.show(record).splitlines()
    assert start.startswith("L = E + A / N^a + B / D^b, of 45 runs (E + A / N^a + B / D^b misses ")
    assert start.endswith("misses them by 1.23%; E + C / (N^a D^b) misses them by 2.00%)")
    assert lines[1].split() == ["E", "0.5", "0.49", "0.51"]
    assert lines[6].split() == ["predicted", "0.5000", "0.4900", "0.5100"]
    assert lines[7].split() == ["a", "single", "run", "0.4800", "0.5200"]
    assert "4.1 times the compute" in lines[-2] and "2.0M parameters and 7.0M tokens" in lines[-2]
    assert lines[-1] == "floor: 0.4950; E is +1.01% from it, and its interval contains it"
    record["floor"], record["prediction"]["measured"] = 0.48, 0.505
    *_, measured, floor = script.show(record).splitlines()
    assert measured == "measured: 0.5050, +1.00% from the prediction"
    assert floor.endswith("does not contain it")
    assert "floor" not in script.show(record | {"floor": None})  # a text has no known floor


def change_data(run: Path) -> None:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    record["data"]["identity"] = "other"
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize(
    ("widths", "lengths", "found"),
    [
        ((8, 16), LENGTHS, "8 finished runs, 2 sizes, 4 numbers of steps"),
        (WIDTHS, (10, 40), "8 finished runs, 4 sizes, 2 numbers of steps"),
        ((8, 16, 32), (10, 40, 160), "9 finished runs, 3 sizes, 3 numbers of steps"),
        ((8,), (10,), "1 finished run, 1 size, 1 number of steps"),
    ],
)
def test_too_few_sizes_or_lengths_are_refused(sweep, widths, lengths, found):
    folder = sweep(widths, lengths, seeds=1)
    with pytest.raises(UserError, match=f"{found}; train at least 12 runs, 3 sizes .*n_embd.* and"):
        script.main(["--sweep", str(folder)])
    assert not (folder / "scaling.png").exists()


def test_runs_that_do_not_belong_together_are_refused(sweep, tmp_path):
    folder = sweep(WIDTHS, LENGTHS)
    with pytest.raises(UserError, match="--sweep .*nowhere: no runs there"):
        script.main(["--sweep", str(tmp_path / "nowhere")])
    (folder / "8-10-1").rename(folder / "copy")  # sorted after the others
    sweep((8,), (10,))
    with pytest.raises(UserError, match="two runs have equal size, steps and seed; drop"):
        script.main(["--sweep", str(folder)])
    change_data(folder / "16-10-1")
    with pytest.raises(UserError, match="its runs have different data; train all on the same"):
        script.main(["--sweep", str(folder)])


def test_unfinished_runs_and_losses_that_are_not_numbers_are_left_out(sweep, printed):
    folder = sweep(WIDTHS, LENGTHS)
    for name, old, new in (("8-10-1", "\n10,", "\n9,"), ("8-40-1", None, "nan")):
        path = folder / name / "metrics.csv"
        text = path.read_text(encoding="utf-8")
        old = old or text.splitlines()[-1].split(",")[6]
        path.write_text(text.replace(old, new), encoding="utf-8")
    record, err = printed(script.main, "--sweep", folder)
    assert record["runs"] == 14
    for reason in ("not finished", "its loss is not finite"):
        assert f"sweep: 1 of 16 runs left out: {reason}" in err
