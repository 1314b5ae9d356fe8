"""Text and keys as a terminal sends them."""

from __future__ import annotations

import pytest

from homeostat.workers.executor.terminals.keys import KeyNameError, key, typed


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("Enter", b"\r"), ("Escape", b"\x1b"), ("Tab", b"\t"), ("Backspace", b"\x7f"), ("Delete", b"\x1b[3~"),
        ("Up", b"\x1b[A"), ("End", b"\x1b[F"), ("F1", b"\x1bOP"), ("F12", b"\x1b[24~"),
        ("C-c", b"\x03"), ("C-C", b"\x03"), ("C-z", b"\x1a"), ("C-]", b"\x1d"), ("C-[", b"\x1b"),
    ],
)  # fmt: skip
def test_key_is_sent_as_xterm_does(name: str, data: bytes) -> None:
    """By its name."""
    assert key(name, application=False) == data


def test_arrows_follow_the_mode_of_the_program() -> None:
    """DECCKM gives the other form, and only to these."""
    assert key("Up", application=True) == b"\x1bOA"
    assert key("Delete", application=True) == b"\x1b[3~"


@pytest.mark.parametrize("name", ["", "Return", "C-", "C-cc", "C-1", "enter", "C-é", "M-x"])
def test_unknown_key_is_refused_with_the_names(name: str) -> None:
    """A misspelt key types nothing."""
    with pytest.raises(KeyNameError, match="PageUp"):
        typed("text", ["Enter", name], application=False)


def test_text_ends_its_lines_as_enter_does() -> None:
    r"""``\n`` and ``\r\n`` are one Enter."""
    assert typed("a\nb\r\n", ["C-d"], application=False) == b"a\rb\r\x04"
