"""Text for terminals: safe, short, in columns.

Owns: what stdout and stderr are given.
Must not know: tasks, gates, homes.
Invariant: control characters, C1 and direction overrides never reach a terminal, whoever wrote them.
Source: ECMA-48; Unicode TR36 §3.2 (bidirectional spoofing).
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class ReaderGoneError(Exception):
    """Nobody reads stdout any more (``| head``). Our own, because click would turn EPIPE into exit 1."""


def printable(text: str) -> str:
    """The text with everything that could steer a terminal written out."""
    return _UNSAFE.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def brief(text: str, width: int = 100) -> str:
    """One line of at most ``width`` characters."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 1] + "…"


def say(line: str) -> None:
    """A line for the person or program that reads stdout, at once. Raises ReaderGoneError."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError as error:
        # The interpreter's own flush at exit must not complain about what couldn't be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ReaderGoneError from error


def say_json(value: Any, *, compact: bool = False) -> None:
    """JSON, ASCII only; ``compact`` puts it on one line."""
    say(json.dumps(value, indent=None if compact else 2, separators=(",", ":") if compact else None))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn on a terminal, aligned plain text elsewhere."""
    clean = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, clean)
        return
    widths = [max(len(row[place]) for row in [columns, *clean]) for place in range(len(columns))]
    for row in [list(columns), *clean]:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box  # noqa: PLC0415  rich is for terminals, and slow to import
    from rich.console import Console  # noqa: PLC0415  same
    from rich.table import Table  # noqa: PLC0415  same
    from rich.text import Text  # noqa: PLC0415  same

    drawn = Table(*columns, box=box.SIMPLE_HEAD)
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))  # Text, not markup: a cell may hold a model's words
    Console().print(drawn)


def duration(seconds: float) -> str:
    """Seconds in the unit that is read best."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.1f} min"
