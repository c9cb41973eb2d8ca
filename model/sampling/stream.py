"""Streaming: turns the ids of samples into text, in order, each up to its stop string."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from model.sampling.compile import CompileStats
from model.sampling.generate import Step


class StreamDecoder(Protocol):
    """Turns ids into text one by one, for example a tokenizer's stream decoder."""

    def feed(self, token: int) -> str:
        """Return the text that one more id completes."""

    def finish(self) -> str:
        """Return the rest of the text after the last id."""


class StopStrings:
    """Passes text on up to the first stop string; holds back text that may be the start of one.

    The first stop string is the one that is complete first; of two that end together, the longer.
    So the result does not depend on how the text is divided into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops, self._held = stops, ""
        self.matched = False

    def feed(self, piece: str) -> str:
        """Return the text that can be shown now.

        >>> stops = StopStrings(["two"])
        >>> [stops.feed(piece) for piece in ("one t", "w", "o three")], stops.matched
        (['one ', '', ''], True)
        """
        if self.matched:
            return ""
        held = self._held + piece
        found = [(held.find(stop), len(stop)) for stop in self._stops]
        ends = [(start + length, start) for start, length in found if start >= 0]
        if ends:
            self.matched = True
            return held[: min(ends)[1]]
        longest = max(map(len, self._stops), default=0)
        n_held = min(max(longest - 1, 0), len(held))
        while n_held and not any(stop.startswith(held[-n_held:]) for stop in self._stops):
            n_held -= 1
        self._held = held[len(held) - n_held :]
        return held[: len(held) - n_held]

    def finish(self) -> str:
        """Return the text held back, after the last piece."""
        return "" if self.matched else self._held


class Sample:
    """One sample while it is generated: its ids, its text, and why it finished.

    Attributes:
        ids, logprobs: all its tokens, including the stop token; log-probabilities in nats.
        text: whole characters only, without stop token and stop string.
        finish_reason: "" while unfinished; then the flag that ended it: stop-token, stop or steps.
    """

    def __init__(
        self,
        decoder: StreamDecoder,
        prompt: str,
        index: int,
        stop_id: int | None = None,
        stops: Sequence[str] = (),
    ) -> None:
        """Start an empty sample.

        Args:
            decoder: of this sample only.
            index: which sample of the prompt, from 0.
        """
        self.prompt, self.index, self.finish_reason = prompt, index, ""
        self.ids: list[int] = []
        self.logprobs: list[float | None] = []
        self._stop_id, self._stops = stop_id, StopStrings(stops)
        self._decoder = decoder
        self._pieces: list[str] = []
        self._n_drained = 0

    @property
    def text(self) -> str:
        """The text so far, without the prompt."""
        return "".join(self._pieces)

    def feed(self, token: int, logprob: float | None) -> None:
        """Append the next token; not allowed once the sample is finished."""
        assert not self.finish_reason
        self.ids.append(token)
        self.logprobs.append(logprob)
        if token == self._stop_id:
            self.finish("stop-token")
        else:
            self._show(self._decoder.feed(token))

    def finish(self, reason: str) -> None:
        """End the sample. An earlier reason is kept."""
        self._show(self._decoder.finish())
        self._pieces.append(self._stops.finish())
        self.finish_reason = self.finish_reason or reason

    def _show(self, piece: str) -> None:
        self._pieces.append(self._stops.feed(piece))
        if self._stops.matched:
            self.finish_reason = "stop"

    def drain(self) -> str:
        """Return the text added since the last call."""
        new = "".join(self._pieces[self._n_drained :])
        self._n_drained = len(self._pieces)
        return new

    def to_json(self) -> dict[str, Any]:
        """Return the content of a JSON line."""
        return {
            "prompt": self.prompt,
            "sample": self.index,
            "text": self.text,
            "ids": self.ids,
            "logprobs": self.logprobs,
            "ended": self.finish_reason,
        }


def emit_in_order(samples: Sequence[Sample], steps: Iterable[Step]) -> Iterator[tuple[Sample, str]]:
    """Yield (sample, new text): all of one sample before the next, though all grow together.

    Streams sample 0 as it grows. When it finishes, yields what sample 1 has so far, and so on. The
    last text of a sample is yielded after its `finish_reason` is set. Stops once all are finished.
    """
    waiting = list(samples)
    yield waiting[0], ""
    for step in steps:
        for i, (token, logprob) in enumerate(zip(step.ids, step.logprobs, strict=True)):
            if token is not None and not samples[i].finish_reason:
                samples[i].feed(token, logprob)
        while waiting and waiting[0].finish_reason:
            sample = waiting.pop(0)
            yield sample, sample.drain()
        if not waiting:
            return
        if new := waiting[0].drain():
            yield waiting[0], new
    for sample in waiting:
        if not sample.finish_reason:
            sample.finish("steps")
        yield sample, sample.drain()


class ThroughputMeter:
    """Measures tokens per second: only time inside the model, not time spent by the consumer."""

    def __init__(self, compile_stats: CompileStats | None = None) -> None:
        """Start at 0. The compile time in `compile_stats`, the engine's, is counted separately."""
        self.n_tokens, self.model_s = 0, 0.0
        self.first_token_s: float | None = None
        self.compile_stats, self.compiled_s = compile_stats or CompileStats(), 0.0

    def watch(self, steps: Iterable[Step]) -> Iterator[Step]:
        """Pass steps on, and time them."""
        steps = iter(steps)
        while True:
            started, compiled_s = time.perf_counter(), self.compile_stats.seconds
            step = next(steps, None)
            compiled_s = self.compile_stats.seconds - compiled_s
            self.model_s += time.perf_counter() - started - compiled_s
            self.compiled_s += compiled_s
            if step is None:
                return
            if self.first_token_s is None:
                self.first_token_s = self.model_s
            self.n_tokens += sum(token is not None for token in step.ids)
            yield step

    def __str__(self) -> str:
        if self.first_token_s is None:
            return "no tokens"
        noun = "token" if self.n_tokens == 1 else "tokens"
        summary = f"{self.n_tokens:,} {noun} in {self.model_s:.2f} s"
        rate = self.n_tokens / max(self.model_s, 1e-9)
        summary += f": {rate:,.0f} tokens/s, the first after {1000 * self.first_token_s:,.0f} ms"
        return summary + (f"; plus {self.compiled_s:.1f} s of compiling" * bool(self.compiled_s))
