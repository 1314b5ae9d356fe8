"""Text in cells of a terminal: how wide it is, cut and padded to a width.

Owns: widths, and what of a text a single line may show.
Must not know: what is shown.
Invariant: nothing that comes out of `safe` can steer a terminal or change where the next cell begins.
Source: Unicode TR11 (East Asian Width), TR36 §3.2; ECMA-48.
"""

from __future__ import annotations

import unicodedata

from .text import printable

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories that show nothing, or that steer: they are written out."""
_ABOVE = frozenset({"Mn", "Me"})
"""Marks that stand on the letter before them."""
MARKS_LIMIT = 4
"""So many marks one letter may carry; a thousand would paint over the neighbouring lines."""


def safe(text: str) -> str:
    """One line that only shows what it says."""
    if text.isascii() and text.isprintable():
        return text
    kept: list[str] = []
    marks = 0
    for letter in printable(" ".join(text.split())):
        category = unicodedata.category(letter)
        marks = marks + 1 if category in _ABOVE else 0
        if category in _HIDDEN:
            kept.append(f"\\u{ord(letter):04x}")
        elif marks <= MARKS_LIMIT and (kept or not marks):
            kept.append(letter)
    return "".join(kept)


def width(text: str) -> int:
    """How many cells a safe text takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(letter: str) -> int:
    if unicodedata.category(letter) in _ABOVE:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1


def clip(text: str, cells: int) -> str:
    """At most so many cells of a safe text; ``…`` says that there is more."""
    if width(text) <= cells:
        return text
    if cells <= 0:
        return ""
    kept, taken = [], 0
    for letter in text:
        taken += _cells(letter)
        if taken > cells - 1:
            break
        kept.append(letter)
    return "".join(kept) + "…"


def fit(text: str, cells: int, *, right: bool = False) -> str:
    """Exactly so many cells: cut, or padded at its end (``right``: at its beginning)."""
    text = clip(text, cells)
    blank = " " * (cells - width(text))
    return blank + text if right else text + blank
