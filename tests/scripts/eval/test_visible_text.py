"""Visible text: every character is visible, and none controls a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.eval.visible_text import Cell, cells, columns, visible


@pytest.mark.parametrize(
    "text, shown",
    [
        ("one two", "one·two"),
        ("a\n\tb\r\n", "a↵→b␍↵"),
        ("\x1b[2J\x07\x7f", r"\x1b[2J\x07\x7f"),
        ("\x9b\u200b\u202e\ufeff\u2028\xa0", r"\u009b\u200b\u202e\ufeff\u2028\u00a0"),
        ("\U000e0001\ue000", r"\U000e0001\ue000"),
        ("世界 🙂", "世界·🙂"),
        ("\u0301", "◌\u0301"),
        ("e\u0301", "e\u0301"),
        ("", ""),
    ],
)
def test_invisible_characters_are_replaced(text, shown):
    assert visible(text) == shown


@settings(max_examples=50)
@given(st.text(max_size=20))
def test_visible_text_has_no_control_characters(text):
    shown = visible(text)
    assert shown.isprintable() and " " not in shown and len(shown) >= len(text)
    assert columns(shown) >= sum(unicodedata.category(c) not in ("Mn", "Me") for c in text)


def test_tokens_become_cells_of_whole_characters():
    smile = "🙂".encode()
    tokens = [(b"a", 1.0), (b" " + smile[:2], 2.0), (smile[2:3], 0.5), (smile[3:] + b"!", 0.25)]
    tokens += [(b"\n", 4.0), (b"\xff", 3.0), (smile[:3], 1.5)]
    found = list(cells((raw, nats, False) for raw, nats in tokens))
    assert found == [
        Cell("a", 1.0),
        Cell("·🙂!", 2.75),
        Cell("↵", 4.0, ends_line=True),
        Cell(r"\xff", 3.0),
        Cell(r"\xf0\x9f\x99", 1.5),
    ]


def test_a_special_token_cuts_an_unfinished_character_and_ends_a_line():
    found = list(cells([(b"\xe4", 1.0, False), (b"<|end|>", 2.0, True), (b"b", 3.0, False)]))
    assert found == [Cell(r"\xe4", 1.0), Cell("<|end|>", 2.0, True), Cell("b", 3.0)]


@settings(max_examples=50)
@given(st.text(max_size=20), st.data())
def test_cells_contain_the_whole_text_for_any_tokens(text, data):
    raw = text.encode("utf-8", "surrogatepass")
    places = sorted(data.draw(st.sets(st.integers(0, len(raw)))) | {0, len(raw)})
    tokens = [(raw[a:b], 1.0, False) for a, b in zip(places, places[1:])]
    found = list(cells(tokens))
    assert sum(cell.nats for cell in found) == len(tokens)
    if text.isprintable() and not any(unicodedata.combining(c) for c in text):
        shown = "".join(cell.text for cell in found)
        assert shown.replace("◌", "") == visible(text).replace("◌", "")
