"""The terminal in memory that reads what `homeostat top` draws."""

from __future__ import annotations

import pytest

from ops.vt import Pen, Screen


def test_screen_puts_text_where_the_cursor_is() -> None:
    """Moved, wide, marked, and over what was there."""
    screen = Screen(10, 3)
    screen.feed("\x1b[2;3Hab\x1b[2;4Hc\x1b[3;1H日e\u0301!")
    assert screen.text() == ["", "  ac", "日e\u0301!"]


def test_screen_takes_a_sequence_in_pieces() -> None:
    """A read ends anywhere."""
    screen = Screen(10, 2)
    for piece in ("a\x1b", "[1", ";32", "mb\x1b[?2", "5l"):
        screen.feed(piece)
    assert screen.cells[0][:2] == [("a", Pen()), ("b", Pen(colour=2, bold=True))]
    assert screen.modes["shows_cursor"] is False


def test_screen_keeps_the_main_screen_while_the_other_is_shown() -> None:
    """What stood there before is there again."""
    screen = Screen(10, 2)
    screen.feed("before\x1b[?1049h\x1b[2J\x1b[1;1Hother\x1b[?1049l")
    assert screen.text() == ["before", ""]


def test_screen_wraps_and_scrolls_as_long_as_it_is_told_to() -> None:
    """With wrapping off, a line that is too long is the program's mistake."""
    screen = Screen(4, 2)
    screen.feed("abcdefghij")
    assert screen.text() == ["efgh", "ij"]
    screen.feed("\x1b[?7l\x1b[1;1H")
    with pytest.raises(ValueError, match="wider"):
        screen.feed("abcde")


@pytest.mark.parametrize(
    "data", ["\x1b[5X", "\x1b]0;title\x07", "\x1b[?2004h", "\x1b[38m", "\x07", "\x1b[1K"]
)
def test_screen_refuses_what_it_does_not_know(data: str) -> None:
    """A picture that skipped it would not be what a terminal shows."""
    with pytest.raises(ValueError, match=r"unknown|control"):
        Screen(10, 2).feed(data)
