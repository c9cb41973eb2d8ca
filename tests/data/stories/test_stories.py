"""Stories: generated, parsed, rejected when changed, and their exact probability."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.stories import __main__ as command
from data.stories import story as stories
from data.stories.story import (
    NotAStory,
    floor,
    floor_of,
    generate_stories,
    generate_story,
    join,
    log_prob,
    parse,
    split,
)
from data.stories.template_grammar import ByClass, VariableRef
from tests.conftest import ROOT
from utils.errors import UserError

TINY = ROOT / "data" / "tiny.txt"
SEEDS = st.integers(min_value=0, max_value=2**63 - 1)


def fragments(one: stories.Story) -> list[tuple[str, VariableRef | None, bool]]:
    """Return a story's text in fragments, rebuilt from its choices.

    Each comes with the variable that it mentions, if any, and whether it copies an earlier mention.
    """
    grammar = stories.story_grammar()
    bound: dict[int, dict] = {}
    choices, found = iter(one.choices), []

    def walk(sequence):
        for part in (sequence,) if isinstance(sequence, str) else sequence:
            if isinstance(part, str):
                found.append((part, None, False))
            elif isinstance(part, VariableRef):
                copied = part.slot in bound
                if not copied:
                    candidates = part.candidates([bound.get(s) for s in range(len(grammar.slots))])
                    bound[part.slot] = candidates[next(choices)[1]]
                found.append((bound[part.slot][part.form], part, copied))
            else:
                chosen = (
                    part.choices[bound[part.slot]["class"]] if isinstance(part, ByClass) else part
                )
                walk(chosen.alternatives[next(choices)[1] if chosen.count > 1 else 0])

    walk(grammar.start)
    assert "".join(text for text, _, _ in found) == one.text
    return found


@given(SEEDS)
@settings(deadline=None, max_examples=80)
def test_parsing_gives_back_the_choices_and_the_probability(seed):
    made = generate_story(random.Random(seed))
    assert parse(made.text) == made
    assert log_prob(made.text) == made.log_prob == -sum(math.log(n) for _, _, n in made.choices)
    assert stories.story_grammar().write(random.Random(seed).random, []) == made.text


def test_stories_are_short_lines_of_ascii_with_many_choices():
    sample = stories.sample_stories(7, 4000)
    for one in sample:
        assert one.text.isascii() and one.text.isprintable() and 400 <= len(one.text) <= 900
        assert one.text == " ".join(one.text.split())
        assert len(one.choices) >= 40 and all(count >= 2 for _, _, count in one.choices)
    assert 100 <= sum(one.bits for one in sample) / len(sample) <= 130
    assert len({one.text for one in sample}) == len(sample)


def test_stories_hold_six_agreements_across_sentences():
    """A copy of a variable (in any form: a name, a pronoun, a promise kept) counts as an agreement
    across sentences if the previous mention is in an earlier sentence."""
    for one in stories.sample_stories(8, 1000):
        sentence, last, agreements = 0, {}, 0
        for text, mention, copied in fragments(one):
            if mention is not None:
                agreements += copied and last[mention.name] < sentence
                last[mention.name] = sentence
            sentence += len(re.findall(r"[.!?:]", text))
        assert agreements >= 6, one.text
        assert {"hero", "friend", "thing", "kind", "place", "promise"} <= set(last)


@given(SEEDS)
@settings(deadline=None, max_examples=15)
def test_every_swapped_copy_is_rejected(seed):
    """Names, pronouns, things, kinds, places, promises: a copy can't be another entry's form."""
    rng = random.Random(seed)
    made = generate_story(rng)
    before = ""
    found = fragments(made)
    for number, (text, mention, copied) in enumerate(found):
        if copied:
            others = sorted({entry[mention.form] for entry in mention.pool} - {text})
            after = "".join(text for text, _, _ in found[number + 1 :])
            with pytest.raises(NotAStory):
                parse(before + others[int(rng.random() * len(others))] + after)
        before += text


@given(SEEDS)
@settings(deadline=None, max_examples=40)
def test_a_swapped_first_mention_is_rejected_if_a_second_follows(seed):
    rng = random.Random(seed)
    found = fragments(generate_story(rng))
    names = [mention.name for _, mention, _ in found if mention is not None]
    for number, (text, mention, copied) in enumerate(found):
        if mention is not None and not copied and names.count(mention.name) > 1:
            others = sorted({entry[mention.form] for entry in mention.pool} - {text})
            other = others[int(rng.random() * len(others))]
            with pytest.raises(NotAStory):
                texts = [text for text, _, _ in found]
                parse("".join([*texts[:number], other, *texts[number + 1 :]]))


@given(SEEDS, st.data())
@settings(deadline=None, max_examples=100)
def test_a_changed_text_is_rejected_at_the_changed_byte(seed, data):
    text = generate_story(random.Random(seed)).text
    cut = data.draw(st.integers(0, len(text) - 1))
    for changed in (text[:cut], text[:cut] + "#" + text[cut:], text[:cut] + "é" + text[cut + 1 :]):
        with pytest.raises(NotAStory, match=r"byte \d+") as error:
            parse(changed)
        assert error.value.position <= cut
        assert text[: error.value.position] == changed[: error.value.position]


@pytest.mark.parametrize(
    "change", [str.lower, str.upper, "{} ".format, " {}".format, "{}\n".format]
)
def test_other_cases_and_spaces_are_rejected(change):
    for one in stories.sample_stories(3, 20):
        with pytest.raises(NotAStory):
            parse(change(one.text))


def test_two_stories_an_empty_text_and_other_text_are_rejected():
    one = generate_story(random.Random(1)).text
    for text in ("", one + one, one + " " + one, join([one]), "The moon."):
        with pytest.raises(NotAStory):
            parse(text)
    assert isinstance(NotAStory(3), ValueError) and "byte 3" in str(NotAStory(3))


def test_more_bytes_continue_the_same_stories_and_seeds_differ():
    short, long = list(generate_stories(3, 20_000)), list(generate_stories(3, 60_000))
    assert long[: len(short)] == short and len(long) > 2 * len(short)
    assert [one.text for one in stories.sample_stories(3, len(long))] == long
    assert not set(long) & set(generate_stories(4, 60_000))


@given(SEEDS, st.integers(1, 8))
@settings(deadline=None, max_examples=50)
def test_generated_stories_fill_the_given_bytes(seed, count):
    texts = [one.text for one in stories.sample_stories(seed, count)]
    size = len(join(texts))
    assert (
        list(generate_stories(seed, size))
        == list(generate_stories(seed, size + 300))
        == texts
        == split(join(texts))
    )
    assert list(generate_stories(seed, size - 1)) == texts[:-1]


def test_a_negative_seed_is_an_error():
    with pytest.raises(ValueError, match="seed -1"):
        next(generate_stories(-1, 10_000))


def test_the_command_of_the_readme_generates_tiny_txt():
    raw = TINY.read_bytes()
    assert raw == join(generate_stories(1, 195_000)).encode("ascii")
    assert len(raw) < 200_000 and raw.endswith(b"\n")
    assert "python -m data.stories --bytes 195000 --seed 1 --out data/tiny.txt" in (
        ROOT / "data" / "README.md"
    ).read_text(encoding="utf-8")


def test_stories_of_another_seed_are_not_in_tiny_txt():
    training = set(split(TINY.read_text(encoding="ascii")))
    assert len(training) > 200 and not training & {
        one.text for one in stories.sample_stories(2, 3000)
    }


def test_the_floor_is_the_ratio_of_nats_and_bytes():
    texts = [one.text for one in stories.sample_stories(5, 50)]
    low = floor(texts)
    nats = [-log_prob(text) for text in texts]
    assert low.nats_per_byte == pytest.approx(sum(nats) / sum(map(len, texts)), rel=1e-12)
    assert low.bits_per_byte == pytest.approx(low.nats_per_byte / math.log(2))
    assert (low.n_stories, low.n_bytes) == (50, sum(map(len, texts)))
    assert low.total_nats == pytest.approx(sum(nats))
    with pytest.raises(ValueError, match="no stories"):
        floor([])
    with pytest.raises(NotAStory):
        floor([texts[0], "The moon."])


def test_the_standard_error_is_the_spread_of_the_floor():
    """The standard deviation of the floor over many samples equals the reported error."""
    pairs = [(len(one.text), -one.log_prob) for one in stories.sample_stories(6, 4000)]
    parts = [floor_of(pairs[start : start + 40]) for start in range(0, 4000, 40)]
    spread = math.sqrt(
        sum((p.nats_per_byte - floor_of(pairs).nats_per_byte) ** 2 for p in parts) / 99
    )
    error = sum(part.standard_error for part in parts) / len(parts)
    assert spread == pytest.approx(error, rel=0.25)


def test_the_expected_floor_of_the_readme_holds():
    readme = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    stated = float(re.search(r"floor of the grammar \| ([\d.]+) nats per byte", readme).group(1))
    low = floor_of([(len(one.text), -one.log_prob) for one in stories.sample_stories(9, 4000)])
    assert abs(low.nats_per_byte - stated) < 5 * low.standard_error


# The command line


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "data.stories", *arguments]
    return subprocess.run(command, capture_output=True, cwd=ROOT, timeout=60)


def test_the_command_writes_stories(tmp_path, capsys):
    out = tmp_path / "stories.txt"
    command.main(["--bytes", "5000", "--seed", "3", "--out", str(out)])
    assert capsys.readouterr().out == ""
    command.main(["--bytes", "5000", "--seed", "3"])
    assert (
        capsys.readouterr().out
        == out.read_text(encoding="utf-8")
        == join(generate_stories(3, 5000))
    )


def test_the_command_prints_floors_checks_and_statistics(tmp_path, capsys):
    texts = list(generate_stories(3, 20_000))
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text(join(texts), encoding="utf-8")
    bad.write_text(join([texts[0], texts[1].replace(".", "!"), texts[2]]), encoding="utf-8")

    def result(*arguments):
        command.main(arguments)
        return json.loads(capsys.readouterr().out)

    assert result("--check", str(good)) == {
        "stories": len(texts),
        "accepted": len(texts),
        "refused": [],
    }
    refused = result("--check", str(bad))
    assert refused["accepted"] == 2 and refused["refused"][0]["story"] == 1
    assert result("--floor", str(good))["nats_per_byte"] == floor(texts).nats_per_byte
    sampled = result("--floor", "--stories", "500", "--seed", "3")
    assert sampled["n_stories"] == 500 and sampled["standard_error"] < 0.01
    figures = result("--stats", str(good), "--stories", "500")
    assert figures["names"] >= 80 and figures["file"]["n_stories"] == len(texts)
    with pytest.raises(UserError, match="bad.txt: text 2 .* byte"):
        command.main(["--floor", str(bad)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["--bytes", "900"], "at least 901"),
        (["--bytes", "many"], "invalid int"),
        (["--bytes", "5000", "--seed", "-1"], "--seed: must be at least 0"),
        (["--bytes", "5000", "--sed", "1"], "did you mean --seed"),
        (["--floor", "--out", "x.txt"], "--out is valid only with --bytes"),
        (["--floor", "--stories", "1"], "--stories: must be at least 2"),
        (["--bytes", str(2**62), "--out", "x.txt"], f"--bytes {2**62}: the disk of x.txt has"),
        (["--check", "no-such-file.txt"], "no-such-file.txt: No such file"),
        (["--check", "data"], "Is a directory"),
        (["--bytes", "5000", "--check", "x.txt"], "not allowed with"),
    ],
)
def test_wrong_arguments_are_user_errors(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        command.main(arguments)


def test_an_empty_file_and_one_that_is_not_utf8_are_user_errors(tmp_path):
    path = tmp_path / "file.txt"
    for raw, message in (
        (b"\n\n", "holds no text"),
        (b"One\xff", "at byte 3 .*; convert the file to UTF-8$"),
    ):
        path.write_bytes(raw)
        with pytest.raises(UserError, match=message):
            command.main(["--check", str(path)])


def test_a_user_error_of_the_program_is_one_line_and_status_2(tmp_path):
    out = tmp_path / "nowhere" / "out.txt"
    done = run("--bytes", "5000", "--out", str(out))
    assert done.returncode == 2 and done.stdout == b"" and not out.parent.exists()
    assert done.stderr.decode().startswith("error: ") and done.stderr.count(b"\n") == 1
