"""The progress line: on a terminal only, and ended before other output."""

import io
import sys

from tok.encoding.progress import ProgressLine
from tok.tokenizer import BPETokenizer


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_nothing_is_shown_without_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    line = ProgressLine("merges", 2, enabled=True)
    line(2)
    line.close()
    BPETokenizer.train("aab", vocab_size=258, progress=True)
    assert sys.stderr.getvalue() == ""


def test_the_last_state_ends_with_one_newline(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    BPETokenizer.train("the fox the fox", vocab_size=260, progress=True)
    shown = sys.stderr.getvalue()
    assert shown.startswith("\rmerges ") and "3/3" in shown
    assert shown.count("\n") == 1 and shown.endswith("\n")


def test_an_unfinished_line_is_closed(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("tok.encoding.progress.INTERVAL_S", 0.0)
    line = ProgressLine("merges", 1000, enabled=True)
    line(10)
    assert sys.stderr.getvalue().startswith("\rmerges 10/1,000")
    line.close()
    line.close()
    assert sys.stderr.getvalue().count("\n") == 1
    ProgressLine("quiet", 10, enabled=False)(10)
    assert "quiet" not in sys.stderr.getvalue()
