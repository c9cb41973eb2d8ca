"""Ids as they are sampled -> texts as they appear, in order, each up to where it stops."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from model.sampling.compile import CompileStats
from model.sampling.generate import Step


class StreamDecoder(Protocol):
    """Turns ids into text one by one, such as the stream decoder of a tokenizer."""

    def feed(self, token: int) -> str:
        """The text that one more id completes."""

    def finish(self) -> str:
        """What is left when no more ids come."""


class StopStrings:
    """Passes text on up to the first stop text, and holds back what may be the beginning of one.

    First is the one that is complete first; of two that end together, the longer. So it makes no
    difference how the text comes in pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops, self._held = stops, ""
        self.met = False

    def feed(self, piece: str) -> str:
        """What may be shown now.

        >>> stops = StopStrings(["two"])
        >>> [stops.feed(piece) for piece in ("one t", "w", "o three")], stops.met
        (['one ', '', ''], True)
        """
        if self.met:
            return ""
        held = self._held + piece
        places = [(held.find(stop), len(stop)) for stop in self._stops]
        ends = [(start + length, start) for start, length in places if start >= 0]
        if ends:
            self.met = True
            return held[: min(ends)[1]]
        longest = max(map(len, self._stops), default=0)
        keep = min(max(longest - 1, 0), len(held))
        while keep and not any(stop.startswith(held[-keep:]) for stop in self._stops):
            keep -= 1
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def finish(self) -> str:
        """What was held back, as no more comes."""
        return "" if self.met else self._held


class Sample:
    """One sample as it grows: its ids, what they say, and in the end why there are no more.

    Attributes:
        ids, logprobs: all that were drawn for it, the stop token too; nats.
        text: what they say, whole characters only, without stop token and stop text.
        ended: "" until it has; then the flag that ended it: stop-token, stop or steps.
    """

    def __init__(
        self,
        decoder: StreamDecoder,
        prompt: str,
        number: int,
        stop_id: int | None = None,
        stops: Sequence[str] = (),
    ) -> None:
        """`decoder`: of this sample alone; `number`: which sample of the prompt, from 0."""
        self.prompt, self.number, self.ended = prompt, number, ""
        self.ids: list[int] = []
        self.logprobs: list[float | None] = []
        self._stop_id, self._stops = stop_id, StopStrings(stops)
        self._decoder = decoder
        self._parts: list[str] = []
        self._taken = 0

    @property
    def text(self) -> str:
        """The text so far, without the prompt."""
        return "".join(self._parts)

    def feed(self, token: int, logprob: float | None) -> None:
        """The next token; none may come once it has ended."""
        assert not self.ended
        self.ids.append(token)
        self.logprobs.append(logprob)
        if token == self._stop_id:
            self.end("stop-token")
        else:
            self._show(self._decoder.feed(token))

    def end(self, reason: str) -> None:
        """No more tokens come."""
        self._show(self._decoder.finish())
        self._parts.append(self._stops.finish())
        self.ended = self.ended or reason

    def _show(self, piece: str) -> None:
        self._parts.append(self._stops.feed(piece))
        if self._stops.met:
            self.ended = "stop"

    def take(self) -> str:
        """The text that came since the last call."""
        fresh = "".join(self._parts[self._taken :])
        self._taken = len(self._parts)
        return fresh

    def record(self) -> dict[str, Any]:
        """All of it by name, for a line of JSON."""
        return {
            "prompt": self.prompt,
            "sample": self.number,
            "text": self.text,
            "ids": self.ids,
            "logprobs": self.logprobs,
            "ended": self.ended,
        }


def has_ended(samples: Sequence[Sample], number: int) -> bool:
    """Whether a sample needs no more tokens; for `generate(is_finished=)`."""
    return bool(samples[number].ended)


def emit_in_order(samples: Sequence[Sample], steps: Iterable[Step]) -> Iterator[tuple[Sample, str]]:
    """(sample, new text), all of one sample before the next one, though all grow together.

    The first sample is streamed as it grows; when it has ended, what the second has so far, and so
    on. The last text of each comes with its `ended` set. Stops when all have ended.
    """
    waiting = list(samples)
    yield waiting[0], ""
    for step in steps:
        for i, (token, logprob) in enumerate(zip(step.ids, step.logprobs, strict=True)):
            if token is not None and not samples[i].ended:
                samples[i].feed(token, logprob)
        while waiting and waiting[0].ended:
            sample = waiting.pop(0)
            yield sample, sample.take()
        if not waiting:
            return
        if fresh := waiting[0].take():
            yield waiting[0], fresh
    for sample in waiting:
        if not sample.ended:
            sample.end("steps")
        yield sample, sample.take()


class ThroughputMeter:
    """How fast tokens come: the time inside the model, not that of whoever reads the text."""

    def __init__(self, compile_stats: CompileStats | None = None) -> None:
        """`compile_stats`: of the engine; its seconds are counted separately."""
        self.tokens, self.spent_s = 0, 0.0
        self.first_s: float | None = None
        self.compile_stats, self.compiled_s = compile_stats or CompileStats(), 0.0

    def watch(self, steps: Iterable[Step]) -> Iterator[Step]:
        """Passes steps on and takes their time."""
        steps = iter(steps)
        while True:
            begun, compiled_s = time.perf_counter(), self.compile_stats.seconds
            step = next(steps, None)
            compiled_s = self.compile_stats.seconds - compiled_s
            self.spent_s += time.perf_counter() - begun - compiled_s
            self.compiled_s += compiled_s
            if step is None:
                return
            if self.first_s is None:
                self.first_s = self.spent_s
            self.tokens += sum(token is not None for token in step.ids)
            yield step

    def __str__(self) -> str:
        if self.first_s is None:
            return "no tokens"
        words = f"{self.tokens:,} token{'s'[: self.tokens != 1]} in {self.spent_s:.2f} s"
        rate = self.tokens / max(self.spent_s, 1e-9)
        words += f": {rate:,.0f} tokens/s, the first after {1000 * self.first_s:,.0f} ms"
        return f"{words}; {self.compiled_s:.1f} s of compiling apart" if self.compiled_s else words
