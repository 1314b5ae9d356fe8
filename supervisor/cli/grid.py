"""Tables of exactly so many cells and lines, and lines made of styled spans.

Owns: which columns stay where room is short, how a line is told to a terminal or to plain text.
Must not know: what the columns hold.
Invariant: no line is wider than it was asked to be, no table higher, whatever the cells hold.
Source: ECMA-48 SGR; no-color.org.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from .cells import clip, fit, safe, width

R = TypeVar("R")
GAP = 2
SGR = {
    "title": "1",
    "head": "1",
    "focus": "7",
    "dim": "2",
    "key": "1",
    "good": "32",
    "warn": "33",
    "bad": "1;31",
    "busy": "36",
}
WITHOUT_COLOURS = {"good": "", "warn": "", "bad": "1", "busy": ""}


class Span(NamedTuple):
    """A piece of a line; ``style`` is one of SGR, or empty."""

    text: str
    style: str = ""


Line = tuple[Span, ...]


def plain(line: Line) -> str:
    """The line without its styles."""
    return "".join(span.text for span in line).rstrip()


def ansi(line: Line, *, colours: bool) -> str:
    """The line for a terminal."""
    return "".join(_styled(span, SGR if colours else {**SGR, **WITHOUT_COLOURS}) for span in line)


def _styled(span: Span, codes: dict[str, str]) -> str:
    code = codes.get(span.style, "")
    return f"\x1b[{code}m{span.text}\x1b[0m" if code else span.text


def dimmed(line: Line) -> Line:
    """The line as something that may no longer be so."""
    return tuple(Span(span.text, "dim") for span in line)


def cut(line: Line, cells: int) -> Line:
    """At most so many cells of a line."""
    kept: list[Span] = []
    for span in line:
        if cells <= 0:
            break
        text = clip(span.text, cells)
        kept.append(Span(text, span.style))
        cells -= width(text)
    return tuple(kept)


def flow(groups: Sequence[Sequence[Line]], cells: int, lines: int) -> list[Line]:
    """Items in lines, each group from a line's beginning; what fits in no line any more is left out."""
    found: list[Line] = []
    for group in groups:
        line: Line = ()
        for item in group:
            joined = (*line, Span(" " * GAP), *item) if line else item
            if line and width(plain(joined)) > cells:
                found.append(line)
                joined = item
            line = joined
        if line:
            found.append(line)
    return [cut(line, cells) for line in found[:lines]]


@dataclass(frozen=True)
class Column(Generic[R]):
    """One column; where room is short the one with the greatest ``gives_way`` goes first, 0 never."""

    title: str
    cell: Callable[[R], str]
    gives_way: int
    right: bool = False
    style: Callable[[R], str] = lambda _row: ""
    widest: int = 40


def grid(
    columns: Sequence[Column[R]], rows: Sequence[R], cells: int, lines: int, first: int, *, focused: bool
) -> list[Line]:
    """A heading and as many rows from ``first`` on as there is room for."""
    if lines <= 0:
        return []
    shown = rows[first : first + lines - 1]
    hidden = f" {first + 1}-{first + len(shown)}/{len(rows)}" if len(shown) < len(rows) and shown else ""
    titles = [columns[0].title + hidden, *(column.title for column in columns[1:])]
    # Every row counts for the widths, so that columns stand still while one scrolls.
    widths = [
        min(column.widest, max([width(title), *(width(safe(column.cell(row))) for row in rows)]))
        for column, title in zip(columns, titles, strict=True)
    ]
    kept = _kept(columns, widths, cells)
    head = (" " * GAP).join(fit(titles[place], widths[place], right=columns[place].right) for place in kept)
    heading = (Span(fit(head, cells), "focus" if focused else "head"),)
    return [
        heading,
        *(cut(_row([columns[place] for place in kept], kept, widths, row), cells) for row in shown),
    ]


def _row(columns: Sequence[Column[R]], kept: Sequence[int], widths: Sequence[int], row: R) -> Line:
    spans: list[Span] = []
    for place, column in zip(kept, columns, strict=True):
        spans.append(Span(fit(safe(column.cell(row)), widths[place], right=column.right), column.style(row)))
        spans.append(Span(" " * GAP))
    return tuple(spans[:-1])


def _kept(columns: Sequence[Column[R]], widths: list[int], cells: int) -> list[int]:
    """Places of the columns that stay. The last one that is there may be cut to what is left."""
    kept = list(range(len(columns)))
    while len(kept) > 1 and sum(widths[place] + GAP for place in kept) - GAP > cells:
        going = max(kept, key=lambda place: columns[place].gives_way)
        rest = cells - sum(widths[place] + GAP for place in kept if place != going)
        if rest >= max(width(columns[going].title), LEAST):
            widths[going] = rest
            break
        kept.remove(going)
    return kept


LEAST = 12
"""A column that is cut keeps at least so many cells, or goes."""
