"""Streaming: the pieces joined are the whole text, in order, up to the first stop string."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config import ModelConfig
from model.gpt import TinyGPT
from model.sampling.compile import CompileStats
from model.sampling.generate import InferenceEngine, Step, generate
from model.sampling.stream import Sample, StopStrings, ThroughputMeter, emit_in_order
from tok.tokenizer import BPETokenizer

BYTES = BPETokenizer([])  # byte b is id b; 256 is end-of-text
END = BYTES.eot_id


def steps_of(*rows: bytes | list[int]) -> list[Step]:
    """Return the steps of samples with these ids; a shorter sample ends earlier."""
    return [
        Step(list(ids), [None if token is None else -float(token) for token in ids])
        for ids in itertools.zip_longest(*rows)
    ]


def watched(steps: list[Step], samples: list[Sample], finished: list[list[int]]) -> Iterator[Step]:
    """Yield the steps; after each one, append the samples that are finished by then."""
    for step in steps:
        yield step
        finished.append([i for i, sample in enumerate(samples) if sample.finish_reason])


def naive_stop(text: str, stops: list[str]) -> str:
    """Return the text before the stop string that is complete first, by checking every prefix."""
    for end in range(1, len(text) + 1):
        matches = [stop for stop in stops if text[:end].endswith(stop)]
        if matches:
            return text[: end - max(map(len, matches))]
    return text


@pytest.mark.parametrize(
    "stops", [[], ["b"], ["ab"], ["aab"], ["abab"], ["xyz"], ["aba", "b"], ["bxa", "abx", "x"]]
)
def test_stop_strings_are_found_for_every_division_into_pieces(stops):
    whole = "aababaabxa"
    for cuts in itertools.product([True, False], repeat=len(whole) - 1):
        pieces, piece = [], whole[0]
        for char, cut in zip(whole[1:], cuts):
            pieces, piece = ([*pieces, piece], char) if cut else (pieces, piece + char)
        finder = StopStrings(stops)
        shown = "".join(finder.feed(part) for part in [*pieces, piece]) + finder.finish()
        assert shown == naive_stop(whole, stops)
        assert finder.matched == (shown != whole)


@given(st.text("ab🙂", max_size=12), st.lists(st.text("ab🙂", min_size=1, max_size=4), max_size=3))
def test_stop_strings_as_the_naive_search_finds_them(text, stops):
    finder = StopStrings(stops)
    shown = []
    for character in text:
        shown.append(finder.feed(character))
        # Text once shown is part of the result.
        assert naive_stop(text, stops).startswith("".join(shown))
    assert "".join(shown) + finder.finish() == naive_stop(text, stops)


@given(st.binary(max_size=20) | st.text(max_size=8).map(str.encode))
def test_the_pieces_of_a_sample_join_to_its_decoded_ids(raw):
    sample, pieces = Sample(BYTES.stream_decoder(), "", 0, END), []
    for token in raw:
        sample.feed(token, -1.0)
        pieces.append(sample.drain())
    sample.finish("steps")
    pieces.append(sample.drain())
    assert "".join(pieces) == sample.text == BYTES.decode(raw)
    assert sample.ids == list(raw) and sample.finish_reason == "steps"


def test_no_piece_holds_half_a_character():
    sample, pieces = Sample(BYTES.stream_decoder(), "", 0), []
    for token in "a世🙂é".encode():
        sample.feed(token, None)
        pieces.append(sample.drain())
    assert [piece for piece in pieces if piece] == ["a", "世", "🙂", "é"]


def test_the_finish_reason_of_a_sample():
    stopped_by_text = Sample(BYTES.stream_decoder(), "p", 3, END, ["lo"])
    for token in b"hello":
        stopped_by_text.feed(token, -0.5)
    assert stopped_by_text.to_json() == {
        "prompt": "p",
        "sample": 3,
        "text": "hel",
        "ids": list(b"hello"),
        "logprobs": [-0.5] * 5,
        "ended": "stop",
    }
    stopped_by_token = Sample(BYTES.stream_decoder(), "", 0, END, ["xy"])
    for token in [*b"ax", *"🙂".encode()[:2], END]:
        stopped_by_token.feed(token, -0.5)
    assert (stopped_by_token.text, stopped_by_token.finish_reason) == ("ax\ufffd", "stop-token")
    with pytest.raises(AssertionError):
        stopped_by_token.feed(97, -0.5)
    other_token = Sample(BYTES.stream_decoder(), "", 0, stop_id=97)
    for token in (END, 98, 97):
        other_token.feed(token, -0.5)
    assert (other_token.text, other_token.finish_reason) == ("<|endoftext|>b", "stop-token")
    held = Sample(BYTES.stream_decoder(), "", 0, END, ["xy"])
    held.feed(ord("x"), -0.5)
    assert held.drain() == ""
    held.finish("steps")
    assert (held.drain(), held.finish_reason) == ("x", "steps")


def test_samples_are_emitted_in_order_and_as_early_as_possible():
    samples = [Sample(BYTES.stream_decoder(), "", i, END) for i in range(3)]
    rows = [[*b"abc", END], [*b"d", END], [*b"efghij"]]
    steps, finished = steps_of(*rows), []
    seen = [
        (s.index, text, s.finish_reason)
        for s, text in emit_in_order(samples, watched(steps, samples, finished))
    ]
    assert seen == [
        (0, "", ""),
        (0, "a", ""),
        (0, "b", ""),
        (0, "c", ""),
        (0, "", "stop-token"),
        (1, "d", "stop-token"),
        (2, "efgh", ""),
        (2, "i", ""),
        (2, "j", ""),
        (2, "", "steps"),
    ]
    # The answers that `is_finished` would give `generate` after each step.
    assert finished == [[], [1], [1], [0, 1], [0, 1], [0, 1]]
    assert [sample.logprobs[0] for sample in samples] == [-97.0, -100.0, -101.0]


def test_no_step_is_requested_once_all_are_finished():
    samples = [Sample(BYTES.stream_decoder(), "", i, END, ["b"]) for i in range(2)]
    steps = iter(steps_of(b"xxb" + b"y" * 50, b"b" + b"z" * 50))
    assert [text for _, text in emit_in_order(samples, steps) if text] == ["x", "x"]
    assert len(list(steps)) == 50 and samples[1].text == "" and samples[1].ids == [98]


def test_the_batch_is_kept_although_no_further_step_is_requested(monkeypatch):
    monkeypatch.setattr("model.sampling.generate.supports_cuda_graphs", lambda device: True)
    shape = {"vocab_size": 11, "block_size": 8, "n_layer": 1, "n_head": 1, "n_embd": 4}
    engine = InferenceEngine(TinyGPT(ModelConfig(**shape)))
    settings = {"seeds": [1, 2], "max_new_tokens": 9, "engine": engine}
    batches = []
    for _ in range(2):
        samples = [
            Sample(BYTES.stream_decoder(), "", i, END, list(map(chr, range(11)))) for i in range(2)
        ]
        list(emit_in_order(samples, generate(engine.weights.model, [[1]] * 2, **settings)))
        assert [sample.finish_reason for sample in samples] == ["stop", "stop"]
        batches.append(engine.cached_batch)
    assert batches[0] is not None and batches[0] is batches[1]


def test_the_meter_counts_tokens_and_not_the_consumers_time(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def slow_steps() -> object:
        for i, step in enumerate(steps_of(b"abc", b"d")):
            clock[0] += 0.25 if i else 0.5
            yield step

    meter = ThroughputMeter()
    assert str(meter) == "no tokens"
    for _ in meter.watch(slow_steps()):
        clock[0] += 100
    assert str(meter) == "4 tokens in 1.00 s: 4 tokens/s, the first after 500 ms"


def test_the_meter_reports_compiling_separately(monkeypatch):
    clock, stats = [0.0], CompileStats(seconds=3.0)  # three seconds before the meter started
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def slow_steps() -> object:
        for i, step in enumerate(steps_of(b"abc", b"d")):
            clock[0] += 0.25
            if i == 1:
                clock[0], stats.seconds = clock[0] + 9, stats.seconds + 9
            yield step

    meter = ThroughputMeter(stats)
    list(meter.watch(slow_steps()))
    assert str(meter) == (
        "4 tokens in 0.75 s: 5 tokens/s, the first after 250 ms; plus 9.0 s of compiling"
    )
