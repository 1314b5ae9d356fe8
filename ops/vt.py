"""A terminal's screen in memory: what a program that draws on a terminal has drawn.

Owns: the few control sequences that `homeostat top` uses, and what they do to a screen.
Must not know: who draws.
Invariant: a sequence that it does not know is an error, never skipped.
Source: ECMA-48; xterm's control sequences for the private modes.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field, replace

_SEQUENCE = re.compile(r"\x1b\[(\??)([0-9;]*)([@-~])")
_MODES = {"7": "wraps", "25": "shows_cursor", "1049": "alternate"}


@dataclass(frozen=True)
class Pen:
    """How a cell is drawn."""

    colour: int | None = None
    """0 to 7, as SGR 30 to 37 number them."""
    bold: bool = False
    dim: bool = False
    reverse: bool = False


@dataclass
class Screen:
    """Rows of cells; a wide character takes two, the second of which is empty."""

    columns: int
    lines: int
    row: int = 0
    column: int = 0
    pen: Pen = Pen()
    modes: dict[str, bool] = field(
        default_factory=lambda: {"wraps": True, "shows_cursor": True, "alternate": False}
    )
    cells: list[list[tuple[str, Pen]]] = field(default_factory=list)
    other: list[list[tuple[str, Pen]]] = field(default_factory=list)
    """The screen that is not shown: the main one while the alternate is, and the other way round."""
    rest: str = ""
    """The beginning of a sequence whose end has not come yet."""
    lenient: bool = False
    """What is wider than a row is cut instead of refused."""

    def __post_init__(self) -> None:
        self._wipe()

    def resize(self, columns: int, lines: int) -> None:
        """Another size, and nothing on it, as the program is about to draw anew."""
        self.columns, self.lines, self.other = columns, lines, []
        self.row, self.column = min(self.row, lines - 1), min(self.column, columns)
        self._wipe()

    def text(self) -> list[str]:
        """The rows as plain text."""
        return ["".join(letter for letter, _ in row).rstrip() for row in self.cells]

    def feed(self, data: str) -> None:
        """Take in what the program wrote. Raises ValueError for what is not known here."""
        data, self.rest = self.rest + data, ""
        place = 0
        while place < len(data):
            letter = data[place]
            if letter != "\x1b":
                self._put(letter)
                place += 1
                continue
            found = _SEQUENCE.match(data, place)
            if found is None:
                if re.fullmatch(r"\x1b(\[\??[0-9;]*)?", data[place:]):
                    self.rest = data[place:]
                    return
                raise ValueError(f"unknown sequence {data[place : place + 12]!r}")
            self._obey(*found.groups())
            place = found.end()

    def _obey(self, private: str, numbers: str, final: str) -> None:
        if private:
            if final not in "hl" or numbers not in _MODES:
                raise ValueError(f"unknown mode ?{numbers}{final}")
            self._switch(_MODES[numbers], final == "h")
        elif final == "H":
            row, _, column = numbers.partition(";")
            self.row, self.column = int(row or 1) - 1, int(column or 1) - 1
        elif final == "J" and numbers == "2":
            self._wipe()
        elif final == "K" and numbers == "2":
            self.cells[self.row] = self._blank_row()
        elif final == "m":
            for number in numbers.split(";"):
                self._dip(int(number or 0))
        else:
            raise ValueError(f"unknown sequence {numbers}{final}")

    def _switch(self, mode: str, on: bool) -> None:
        if mode == "alternate" and on != self.modes[mode]:
            self.cells, self.other = self.other or self._blank(), self.cells
        self.modes[mode] = on

    def _dip(self, number: int) -> None:
        marks = {1: "bold", 2: "dim", 7: "reverse"}
        if number == 0:
            self.pen = Pen()
        elif number in marks:
            self.pen = replace(self.pen, **{marks[number]: True})
        elif 30 <= number <= 37:
            self.pen = replace(self.pen, colour=number - 30)
        else:
            raise ValueError(f"unknown rendition {number}")

    def _put(self, letter: str) -> None:
        if letter == "\r":
            self.column = 0
            return
        if letter == "\n":
            self._feed_line()
            return
        if unicodedata.category(letter).startswith("C"):
            raise ValueError(f"a control character reached the terminal: {letter!r}")
        if unicodedata.category(letter) in ("Mn", "Me"):
            before, pen = self.cells[self.row][self.column - 1]
            self.cells[self.row][self.column - 1] = (before + letter, pen)
            return
        taken = 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1
        if self.column + taken > self.columns:
            if self.lenient:
                return
            if not self.modes["wraps"]:
                raise ValueError(f"row {self.row} is wider than {self.columns} cells")
            self.column = 0
            self._feed_line()
        self.cells[self.row][self.column] = (letter, self.pen)
        if taken == 2:
            self.cells[self.row][self.column + 1] = ("", self.pen)
        self.column += taken

    def _feed_line(self) -> None:
        self.row += 1
        if self.row == self.lines:
            self.row -= 1
            self.cells = [*self.cells[1:], self._blank_row()]

    def _wipe(self) -> None:
        self.cells = self._blank()

    def _blank(self) -> list[list[tuple[str, Pen]]]:
        return [self._blank_row() for _ in range(self.lines)]

    def _blank_row(self) -> list[tuple[str, Pen]]:
        return [(" ", Pen()) for _ in range(self.columns)]
