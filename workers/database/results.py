"""Rows as a table of text, bounded in every direction.

Owns: how rows are read and shown.
Must not know: which database they come from, what was asked.
Invariant: one row is held at a time, and never more text than a model is shown; the rest is left where it is.
Source: DESIGN §2 law 5; issue 4, Build 8.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

LONGEST_TEXT = 16_000
LONGEST_CELL = 2_000
WIDEST_PADDING = 40
"""A column is no wider than this; a longer cell sticks out, and does not widen the others."""
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


class Cursor(Protocol):
    """What a driver gives."""

    def fetchone(self) -> Any:
        """The next row, or None."""


@dataclass
class Table:
    """What was read of a result."""

    names: list[str]
    rows: list[list[str]]
    more: str = ""
    """Why it is not all; empty when it is."""
    count: int = 0
    """How many rows there were, as far as they were read."""

    def text(self) -> str:
        """The table with its footer."""
        count = len(self.rows)
        footer = f"[{self.more}]" if self.more else f"[{count} {'row' if count == 1 else 'rows'}]"
        return "\n".join([*_aligned(self.names, self.rows), footer]) + "\n"


def read(cursor: Cursor, names: Sequence[str], limit_rows: int, limit_chars: int) -> Table:
    """Read so many rows and so much text at most; stop there."""
    table = Table([shown(name) for name in names], [])
    room = min(LONGEST_TEXT, limit_chars) - _length(table.names) * 2
    while (row := cursor.fetchone()) is not None:
        if len(table.rows) == limit_rows:
            table.more = f"the first {limit_rows} rows; there are more: ask with LIMIT and OFFSET"
            return table
        cells = [cell(value) for value in row]
        room -= _length(cells)
        if room < 0 and table.rows:
            table.more = (
                f"{len(table.rows)} rows, and more that are not shown or kept: ask for fewer columns or rows"
            )
            return table
        if room < 0:
            cells = _cut(cells, max(0, room + _length(cells)))
            table.more = "a part of the first row, which is too long: ask for fewer columns"
        table.rows.append(cells)
        table.count += 1
        if table.more:
            return table
    return table


def drain(cursor: Cursor, table: Table) -> Table:
    """Read to the end, for what a statement does it may do row by row; only count what isn't shown."""
    if table.more:
        table.count = len(table.rows) + 1
        while cursor.fetchone() is not None:
            table.count += 1
        table.more = f"{len(table.rows)} of {table.count} rows are shown; the others are not kept"
    return table


def cell(value: Any) -> str:
    """One value on one line; NULL is bare, a text that reads NULL is in quotes."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes | memoryview):
        return _bytes(bytes(value[: LONGEST_CELL // 2]), len(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    short = shown(text[:LONGEST_CELL])
    if len(text) > LONGEST_CELL:
        return f"{short}…[{len(text):,} characters in all]"
    return "'NULL'" if short == "NULL" else short


def _bytes(head: bytes, size: int) -> str:
    more = f"…[{size:,} bytes in all]" if size > len(head) else ""
    return f"x'{head.hex()}'{more}"


def shown(text: str) -> str:
    """A text on one line: what would break the line or hide itself is written out."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return repr(character)[1:-1]


def _length(cells: list[str]) -> int:
    """What a line of these takes, padding included."""
    return sum(max(len(each), WIDEST_PADDING // 2) + 3 for each in cells)


def _cut(cells: list[str], room: int) -> list[str]:
    """As many cells as there is room for; the others are an ellipsis each, and beyond that nothing."""
    kept: list[str] = []
    for each in cells:
        room -= max(len(each), WIDEST_PADDING // 2) + 3
        if room < 0:
            return [*kept, "…"]
        kept.append(each)
    return kept


def _aligned(names: list[str], rows: list[list[str]]) -> list[str]:
    columns = max([len(names), *map(len, rows)])
    widths, right = [0] * columns, [True] * columns
    for line in (names, *rows):
        for index, each in enumerate(line):
            widths[index] = max(widths[index], min(len(each), WIDEST_PADDING))
    for line in rows:
        for index, each in enumerate(line):
            right[index] = right[index] and (each == "NULL" or _NUMBER.fullmatch(each) is not None)
    rule = "-+-".join("-" * width for width in widths)
    return [_line(names, widths, right), rule, *(_line(line, widths, right) for line in rows)]


def _line(cells: list[str], widths: list[int], right: list[bool]) -> str:
    padded = (
        each.rjust(width) if is_right else each.ljust(width)
        for each, width, is_right in zip(cells, widths, right, strict=False)
    )
    return " | ".join(padded).rstrip()
