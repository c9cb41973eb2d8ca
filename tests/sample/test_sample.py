"""sample.py: the same text for equivalent arguments, and one line for each user error."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sample
from model.sampling.generate import generate_ids
from model.sampling.sampler import SamplingParams, sample_seeds
from sample import load_run
from tests.conftest import ROOT, clean_environment
from tok.tokenizer import BPETokenizer
from utils.errors import UserError
from utils.run import checkpoint
from utils.run.folder import RunFolder


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "copy")


def expected_text(run: Path, prompt: str, steps: int, seed: int, **settings: object) -> str:
    """Return the text of one sample, decoded as a whole: the expected result of streaming."""
    loaded = load_run(run)
    end = loaded.tokenizer.eot_id
    prompt_ids = [end, *loaded.tokenizer.encode(prompt)]
    (ids,) = generate_ids(
        loaded.model,
        [prompt_ids[-loaded.model.config.block_size :]],
        seeds=sample_seeds(seed, 1),
        max_new_tokens=steps,
        stop_id=end,
        params=SamplingParams(**settings),
    )
    return prompt + loaded.tokenizer.decode([i for i in ids if i != end]) + "\n"


@pytest.mark.parametrize("prompt", ["", "the cat", "Grüße 世界 🙂"])
@pytest.mark.parametrize("seed", [1, 7])
def test_the_streamed_text_is_the_decoded_whole(text, run, prompt, seed):
    streamed = text("--prompt", prompt, "--steps", "60", "--seed", str(seed))
    assert streamed == expected_text(run, prompt, 60, seed)


def test_compile_gives_the_same_text(text, run, capsys, monkeypatch):
    monkeypatch.setattr("model.sampling.compile.COMPILER", {"backend": "eager"})
    requested, real = [], sample.generate
    monkeypatch.setattr(
        sample, "generate", lambda *a, **k: (requested.append(k["compiled"]), real(*a, **k))[1]
    )
    argv = ["--prompt", "a", "--steps", "30", "--temp", "0"]
    plain = text(*argv)
    assert sample.main(["--run", str(run), *argv, "--compile"]) == 0
    output = capsys.readouterr()
    assert output.out == plain and "s of compiling" in output.err
    assert requested == [False, True]


def test_the_seed_decides_the_text(text):
    assert text("--seed", "3") == text("--seed", "3") != text("--seed", "4")


@pytest.mark.parametrize("argv", [[], ["--top-k", "9"], ["--temp", "1.5", "--min-p", "0.01"]])
def test_sample_i_does_not_depend_on_the_number_of_samples(text, argv):
    argv = ["--steps", "40", "--prompt", "a", *argv, "--num-samples"]
    one, two, eight = (text(*argv, str(n)) for n in (1, 2, 8))
    assert two.startswith(one + "\n") and eight.startswith(two + "\n") and len(eight) > len(two)


def test_temperature_0_takes_the_most_likely_token(text, run):
    cold = text("--temp", "0", "--seed", "1", "--steps", "30")
    assert cold == text("--temp", "0", "--seed", "99", "--steps", "30")
    assert cold == text("--top-k", "1", "--seed", "5", "--steps", "30")
    assert cold == expected_text(run, "", 30, 1, temperature=0)
    assert cold != text("--temp", "1", "--steps", "30")


def test_filters_and_both_spellings_reach_the_model(text, run):
    given = text("--top_k", "5", "--top-p", "0.7", "--temp", "0.8", "--steps", "30")
    assert given == expected_text(run, "", 30, 1, top_k=5, top_p=0.7, temperature=0.8)


def test_min_p_and_repetition_penalty_reach_the_model(text, run):
    for flag, value in (("min_p", 0.95), ("repetition_penalty", 1.7)):
        given = text(f"--{flag.replace('_', '-')}", str(value), "--steps", "30")
        assert given == expected_text(run, "", 30, 1, **{flag: value}) != text("--steps", "30")


def test_a_stop_string_ends_the_sample_before_it(text):
    full = text("--steps", "60", "--prompt", "the")
    stop = full[20:23]
    stopped = text("--steps", "60", "--prompt", "the", "--stop", stop)
    assert stopped == full[: full.index(stop, 3)] + "\n"
    assert text("--steps", "60", "--prompt", "the", "--stop", "never in there") == full
    several = ["--stop", "never", "--stop", stop, "--stop", full[40:43]]
    assert text("--steps", "60", "--prompt", "the", *several) == stopped


def test_a_long_prompt_is_cut_to_its_end_with_one_warning(text, run, capsys):
    long = "the cat sat on a mat with old Anna " * 30 + "and night came"
    loaded = load_run(run)
    assert sample.encode_prompt(loaded, long) == loaded.tokenizer.encode(long)[-32:]
    capsys.readouterr()
    assert sample.main(["--run", str(run), "--prompt", long, "--steps", "5"]) == 0
    out, err = capsys.readouterr()
    assert out == expected_text(run, long, 5, 1)
    assert err.count("warning") == 1 and "only its last 32" in err
    full = loaded.tokenizer.decode(loaded.tokenizer.encode(long)[:32])  # all of it is read
    assert len(loaded.tokenizer.encode(full)) == 32
    for prompt in ("short", full):
        assert sample.main(["--run", str(run), "--prompt", prompt, "--steps", "5"]) == 0
        assert "warning" not in capsys.readouterr().err


def test_stderr_names_the_checkpoint_that_was_read(run, capsys):
    for which in ("best", "last"):
        state = checkpoint.load(run / f"{which}.pt")
        assert sample.main(["--run", str(run), "--checkpoint", which, "--steps", "1"]) == 0
        err = capsys.readouterr().err
        assert str(run / f"{which}.pt") in err and f"step {state['step']}," in err
        assert f"val loss {state['last_val']:.4f}" in err
        assert re.search(
            r"^1 token in \S+ s: [\d,]+ tokens/s, the first after [\d,]+ ms$", err, re.M
        )


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--steps", "0"], "--steps: must be at least 1, got 0"),
        (["--steps", "many"], "--steps.*invalid int"),
        (["--temp", "-1"], "--temperature: must be 0 or more"),
        (["--temperature", "nan"], "--temperature: must be 0 or more"),
        (["--temperature", "inf"], "--temperature: must be 0 or more"),
        (["--temp", "1", "--temperature", "1"], "--temperature: given twice"),
        (["--top-k", "-1"], "--top-k: must be 0 or more"),
        (["--top-p", "0"], "--top-p: must be above 0"),
        (["--top_p", "1.1"], "--top-p: must be above 0 and at most 1"),
        (["--min-p", "1.5"], "--min-p: must be from 0 to 1, got 1.5"),
        (["--min_p", "nan"], "--min-p: must be from 0 to 1"),
        (["--repetition-penalty", "0"], "--repetition-penalty: must be above 0"),
        (["--repetition-penalty", "inf"], "--repetition-penalty: must be above 0"),
        (["--stop", "a", "--stop", ""], "--stop: must be some text"),
        (["--stop-token", "the cat sat"], "--stop-token: 'the cat sat' is . tokens; .*endoftext"),
        (["--stop-token", "a", "--stop-token", "b"], "--stop-token: given twice"),
        (["--prompt-sep", "x"], "--prompt-sep: separates the prompts of --prompt-file"),
        (["--prompt-sep", "", "--prompt-file", "x"], "--prompt-sep: must be some text"),
        (["--interactive", "--prompt", ""], "--interactive: .*leave out --prompt$"),
        (["--num-samples", "0"], "--num-samples: must be at least 1"),
        (["--chekpoint", "best"], "did you mean --checkpoint"),
        (["--checkpoint", "newest"], "newest"),
        (["--see", "1"], "unknown argument --see .did you mean --seed"),
        (["--out_dir=out"], "unknown argument --out_dir .did you mean --run"),
        (["--prompt"], "expected one argument"),
        (["--prompt", "-x"], "if the value begins with -, write --prompt=VALUE"),
        (["--device", "quantum"], "^device quantum: not available"),
        (["stray"], "stray"),
    ],
)
def test_bad_arguments_are_refused(run, capsys, argv, message):
    with pytest.raises(UserError, match=message):
        sample.main(["--run", str(run), *argv])
    assert capsys.readouterr().out == ""


def test_a_prompt_that_is_not_valid_text_is_refused(run, capsys):
    with pytest.raises(UserError, match="the prompt: lone surrogate"):
        sample.main(["--run", str(run), "--prompt", "ab\udcff"])
    assert capsys.readouterr().out == ""


def test_a_missing_run_or_checkpoint_is_an_error_with_a_hint(copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="runs/tiny: no run .*train.py --config configs/tiny.yaml"):
        sample.main([])
    (copy / "best.pt").unlink()
    with pytest.raises(UserError, match=f"no checkpoint yet; .*--run_dir {copy} --resume`"):
        sample.main(["--run", str(copy)])


@pytest.mark.parametrize("damage", ["cut", "bit", "other"])
def test_a_damaged_checkpoint_is_refused(copy, damage):
    path = copy / "best.pt"
    raw = bytearray(path.read_bytes())
    if damage == "bit":
        raw[len(raw) // 2] ^= 1
    path.write_bytes({"cut": raw[:-100], "bit": raw, "other": b"not a checkpoint"}[damage])
    with pytest.raises(UserError, match="best.pt: (damaged|refused).*; try --checkpoint last"):
        sample.main(["--run", str(copy)])
    assert sample.main(["--run", str(copy), "--checkpoint", "last"]) == 0


def test_another_tokenizer_is_refused(copy):
    BPETokenizer.train("abcabcabc" * 50, vocab_size=258).save(copy / "tokenizer.json")
    with pytest.raises(UserError, match="trained with .* put the original back"):
        sample.main(["--run", str(copy)])


def test_a_checkpoint_of_another_shape_is_refused(copy):
    state = checkpoint.load(copy / "best.pt")
    state["config"]["model"]["n_embd"] = 32
    checkpoint.save(copy / "best.pt", state)
    with pytest.raises(UserError, match="best.pt: weight .* has shape"):
        sample.main(["--run", str(copy)])


def test_a_run_in_training_can_be_sampled(copy, text):
    writer = RunFolder(copy)
    writer.lock()  # the lock of a training process
    with pytest.raises(UserError, match="another process"):
        RunFolder(copy).lock()
    assert text("--steps", "5", run=copy)
    assert not [path for path in copy.iterdir() if ".tmp" in path.name]


def test_a_closed_pipe_ends_quietly(run):
    """`sample.py ... | head -1`, in a locale that can only encode ASCII."""
    command = [sys.executable, str(ROOT / "sample.py"), "--run", str(run)]
    # More than the buffer of a pipe, so that the writer must notice.
    argv = ["--prompt", "é\n" + "x" * 100_000, "--steps", "2000"]
    program = subprocess.Popen(
        [*command, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(PYTHONIOENCODING="ascii"),
    )
    assert program.stdout is not None and program.stderr is not None
    assert program.stdout.readline() == "é\n".encode()
    program.stdout.close()
    err = program.stderr.read().decode()
    program.stderr.close()
    assert program.wait(60) == 0
    assert "Error" not in err and "Traceback" not in err and "Exception" not in err


def test_a_user_error_is_one_line_and_status_2(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "sample.py"), "--run", str(tmp_path)],
        capture_output=True,
        env=clean_environment(),
        check=False,
    )
    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr.decode().startswith("error: ") and done.stderr.count(b"\n") == 1
