"""Cells of a terminal: widths, and what may not reach it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, strategies as st

from homeostat.supervisor.cli.cells import MARKS_LIMIT, clip, fit, safe, width


@pytest.mark.parametrize(
    ("text", "cells"), [("", 0), ("abc", 3), ("日本", 4), ("e\u0301", 1), ("\uff46", 2), ("…", 1)]
)
def test_width_counts_cells_when_letters_are_wide_or_marks(text: str, cells: int) -> None:
    """Wide letters take two cells, marks none."""
    assert width(text) == cells


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\x9bb", "a\\x9bb"),
        ("a\r\n\tb", "a b"),
        ("a\u202eb", "a\\x202eb"),
        ("a\u200bb", "a\\u200bb"),
        ("\u0301a", "a"),
    ],
)
def test_safe_writes_out_what_steers(text: str, shown: str) -> None:
    """Controls, overrides and what nobody sees are written out; a mark needs a letter."""
    assert safe(text) == shown


def test_safe_limits_the_marks_of_a_letter() -> None:
    """A letter with a thousand marks would paint over other lines."""
    assert safe("a" + "\u0301" * 1_000) == "a" + "\u0301" * MARKS_LIMIT


@pytest.mark.parametrize(
    ("text", "cells", "shown"),
    [("abcdef", 4, "abc…"), ("abcd", 4, "abcd"), ("日本語", 4, "日…"), ("日本", 1, "…"), ("a", 0, "")],
)
def test_clip_cuts_at_the_cell_when_text_is_longer(text: str, cells: int, shown: str) -> None:
    """A wide letter that would be halved is left out."""
    assert clip(text, cells) == shown


def test_fit_pads_on_the_side_that_is_asked_for() -> None:
    """Names to the left, numbers to the right; wide ones too."""
    assert (fit("ab", 4), fit("12", 4, right=True), fit("日本語", 4)) == ("ab  ", "  12", "日… ")


@given(st.text(), st.integers(0, 40))
def test_fit_takes_exactly_its_cells_whatever_the_text(text: str, cells: int) -> None:
    """No text moves the next column, and none steers."""
    shown = fit(safe(text), cells)
    assert width(shown) == cells
    assert not any(unicodedata.category(letter) in ("Cc", "Cf", "Cs") for letter in shown)
