"""What is typed: text and keys by name, as the bytes that a terminal sends.

Owns: the table of keys.
Must not know: terminals, screens, who types.
Invariant: pure; a name that is not in the table is refused with the names that are, and nothing is typed.
Source: xterm's ctlseqs ("PC-Style Function Keys", DECCKM); terminfo's xterm entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ....proto.errors import RefusedError

_PLAIN: Final[dict[str, bytes]] = {
    "Enter": b"\r",
    "Escape": b"\x1b",
    "Tab": b"\t",
    "Backspace": b"\x7f",
    "Space": b" ",
    "Insert": b"\x1b[2~",
    "Delete": b"\x1b[3~",
    "PageUp": b"\x1b[5~",
    "PageDown": b"\x1b[6~",
    "F1": b"\x1bOP",
    "F2": b"\x1bOQ",
    "F3": b"\x1bOR",
    "F4": b"\x1bOS",
    "F5": b"\x1b[15~",
    "F6": b"\x1b[17~",
    "F7": b"\x1b[18~",
    "F8": b"\x1b[19~",
    "F9": b"\x1b[20~",
    "F10": b"\x1b[21~",
    "F11": b"\x1b[23~",
    "F12": b"\x1b[24~",
}
_MOVES: Final[dict[str, bytes]] = {
    "Up": b"A", "Down": b"B", "Right": b"C", "Left": b"D", "Home": b"H", "End": b"F",
}  # fmt: skip
"""These are sent in two forms: as the program has set its terminal (DECCKM)."""
_CONTROL: Final = {chr(letter): bytes([letter & 0x1F]) for letter in range(ord("@"), ord("_") + 1)}


class KeyNameError(RefusedError):
    """A key that no keyboard has."""

    code = "tool"


def typed(text: str, names: Sequence[str], *, application: bool) -> bytes:
    r"""The bytes of a text, its ``\n`` as Enter, and of keys after it. Raises KeyNameError."""
    keys = b"".join(key(name, application=application) for name in names)
    return text.replace("\r\n", "\r").replace("\n", "\r").encode() + keys


def key(name: str, *, application: bool) -> bytes:
    """The bytes of one key. Raises KeyNameError."""
    if (plain := _PLAIN.get(name)) is not None:
        return plain
    if (move := _MOVES.get(name)) is not None:
        return (b"\x1bO" if application else b"\x1b[") + move
    held, dash, letter = name.partition("-")
    if held == "C" and dash and (control := _CONTROL.get(letter.upper())) is not None:
        return control
    known = ", ".join([*_PLAIN, *_MOVES])
    raise KeyNameError(f"keys: {name!r} is no key; known are {known}, and C- with a letter")
