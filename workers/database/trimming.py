"""SQLite's trim(), ltrim() and rtrim() with characters of one's own, in bounded time.

Owns: these three functions with two arguments.
Must not know: connections, statements.
Invariant: the time grows with the text alone: the library's own compares each character at an end with each
    that is to go, without looking whether it is to stop.
Source: sqlite.org/lang_corefunc.html#trim; src/func.c (trimFunc).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Final

MOST_CHARACTERS: Final = 1_000
"""That are to go; more is an error, as a text that is too long."""

Value = str | int | float | bytes | None


def settle(raw: sqlite3.Connection) -> None:
    """Put them in the place of the library's."""
    for name, strip in (("trim", str.strip), ("ltrim", str.lstrip), ("rtrim", str.rstrip)):
        raw.create_function(name, 2, partial(_trimmed, strip), deterministic=True)


def _trimmed(strip: Callable[[str, str], str], value: Value, characters: Value) -> str | None:
    """Raises OverflowError, which the library tells as a text that is too big."""
    if value is None or characters is None:
        return None
    gone = _text(characters)
    if len(gone) > MOST_CHARACTERS:
        raise OverflowError(f"more than {MOST_CHARACTERS} characters to trim")
    return strip(_text(value), gone) if gone else _text(value)


def _text(value: str | float | bytes) -> str:
    """As the library writes it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, float):
        return str(value)
    mantissa, e, exponent = f"{value:.15g}".partition("e")
    if mantissa.lstrip("-").isdigit():
        mantissa += ".0"
    return (mantissa + e + exponent).replace("inf", "Inf")
