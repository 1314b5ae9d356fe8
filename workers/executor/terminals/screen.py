"""What a terminal shows: cells, cursor, title, and the lines that have scrolled off.

Owns: the emulator (pyte), what it lacks, and the screen as text for a model and as bytes for a person.
Must not know: descriptors, calls, time.
Invariants: the text has no control characters and no more cells than the screen; whatever is fed, nothing is
            raised and memory is bounded by the size and the history; skim() leaves the screen as if all had
            been fed.
Source: pyte 0.8's Screen and Stream (adr/0019); ECMA-48; xterm's ctlseqs for modes 1, 47, 1047, 1049, for
        SU, SD and REP.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import deque
from typing import Any, Final

import pyte
from pyte.screens import Char
from wcwidth import wcwidth

HISTORY_LINES: Final = 1_000
_ALTERNATE: Final = frozenset({47, 1047, 1049})
_CURSOR_KEYS: Final = 1 << 5  # pyte keeps private modes shifted by 5
_ORDINARY: Final = re.compile(r"[ -~]+\Z")
_UNSEEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_COLOUR_OR_TITLE: Final = re.compile(rb"\x1b(?:\[[0-9;:]*m|\][02];[^\x07\x1b]*(?:\x07|\x1b\\))")
_TITLE_CHARS: Final = 80
_MOST_PENS: Final = 256
_COLOURS: Final = ("black", "red", "green", "brown", "blue", "magenta", "cyan", "white")
_BLANK: Final = Char(" ")


class _Cells(pyte.Screen):
    """pyte's screen with what it lacks: history, the alternate screen, SU, SD, REP, and speed for text."""

    def __init__(self, columns: int, lines: int) -> None:
        self.history: deque[Any] = deque(maxlen=HISTORY_LINES)
        self.replies = bytearray()
        self._main: tuple[Any, Any] | None = None
        self._chars: dict[Char, dict[str, Char]] = {}
        self._last = ""
        super().__init__(columns, lines)

    # -- faster ---------------------------------------------------------------------------------------
    def draw(self, data: str) -> None:
        """As pyte does, but nothing of the text is lost behind what has no width; plain runs at once."""
        if not data.isascii():
            data = "".join(letter for letter in data if letter.isascii() or _has_place(letter))
        self._last = data[-1:] or self._last
        if not _ORDINARY.match(data) or pyte.modes.IRM in self.mode:
            super().draw(data)
            return
        while data:
            piece, data = data[: self.columns - self.cursor.x], data[self.columns - self.cursor.x :]
            self._put(piece)
            if data:  # pyte wraps the line, if the program wants that
                super().draw(data[0])
                data = data[1:]

    def _put(self, piece: str) -> None:
        attributes = self.cursor.attrs
        chars = self._chars.get(attributes)
        if chars is None:
            if len(self._chars) >= _MOST_PENS:
                self._chars.clear()
            chars = {chr(n): attributes._replace(data=chr(n)) for n in range(32, 127)}
            self._chars[attributes] = chars
        line = self.buffer[self.cursor.y]
        for column, letter in enumerate(piece, self.cursor.x):
            line[column] = chars[letter]
        self.cursor.x += len(piece)

    # -- history ----------------------------------------------------------------------------------------
    def index(self) -> None:
        """Scroll at the bottom; what leaves the top of the main screen is kept."""
        top, bottom = self.margins or (0, self.lines - 1)
        if self.cursor.y == bottom and top == 0 and self._main is None:
            self.history.append(self.buffer[0])
        super().index()

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        """As xterm does: rows below the cursor go first, then those at the top, into the history."""
        lines = lines or self.lines
        if lines < self.lines:
            above = max(0, self.cursor.y + 1 - lines)
            rows = [self.buffer[row] for row in range(self.lines)]
            if self._main is None:
                self.history.extend(rows[:above])
            self.buffer.clear()
            self.buffer.update(enumerate(rows[above : above + lines]))
            self.cursor.y -= above
            self.lines, self.margins = lines, None
        super().resize(lines=lines, columns=columns)

    def scroll_up(self, count: int | None = None) -> None:
        """SU: the text moves up."""
        self._scroll(min(count or 1, self.lines), super().index, at_top=False)

    def scroll_down(self, count: int | None = None) -> None:
        """SD: the text moves down."""
        self._scroll(min(count or 1, self.lines), self.reverse_index, at_top=True)

    def _scroll(self, count: int, step: Any, *, at_top: bool) -> None:
        top, bottom = self.margins or (0, self.lines - 1)
        row, self.cursor.y = self.cursor.y, top if at_top else bottom
        for _ in range(count):
            step()
        self.cursor.y = row

    def repeat(self, count: int | None = None) -> None:
        """REP: the last character once more, so many times; no more than a screen has cells."""
        if self._last:
            self.draw(self._last * min(count or 1, self.columns * self.lines))

    def keep_cursor(self, _: int = 0) -> None:
        """SCOSC."""
        self.save_cursor()

    def bring_cursor_back(self, _: int = 0) -> None:
        """SCORC."""
        self.restore_cursor()

    # -- the alternate screen -------------------------------------------------------------------------
    def set_mode(self, *modes: int, **kwargs: Any) -> None:
        """Keep the main screen while the alternate is shown; a width of 132 (DECCOLM) is not obeyed."""
        if kwargs.get("private"):
            if _ALTERNATE.intersection(modes) and self._main is None:
                kept = {row: self._copy(line) for row, line in self.buffer.items()}
                self._main = (kept, (self.cursor.x, self.cursor.y))
                self.erase_in_display(2)
            modes = tuple(mode for mode in modes if mode not in _ALTERNATE and mode != 3)
        super().set_mode(*modes, **kwargs)

    def reset_mode(self, *modes: int, **kwargs: Any) -> None:
        """Show the main screen again."""
        if kwargs.get("private"):
            if _ALTERNATE.intersection(modes) and self._main is not None:
                kept, (x, y) = self._main
                self._main = None
                self.erase_in_display(2)
                for row, line in kept.items():
                    if row < self.lines:
                        self.buffer[row].update(
                            {column: char for column, char in line.items() if column < self.columns}
                        )
                self.cursor.x, self.cursor.y = min(x, self.columns - 1), min(y, self.lines - 1)
            modes = tuple(mode for mode in modes if mode not in _ALTERNATE and mode != 3)
        super().reset_mode(*modes, **kwargs)

    @property
    def is_alternate(self) -> bool:
        """Whether the alternate screen is shown."""
        return self._main is not None

    @staticmethod
    def _copy(line: Any) -> dict[int, Char]:
        return dict(line)

    def reset(self) -> None:
        """RIS: the main screen, blank."""
        self._main = None
        super().reset()

    # -- answers --------------------------------------------------------------------------------------
    def write_process_input(self, data: str) -> None:
        """What a terminal answers when it is asked where its cursor is, or what it is."""
        if len(self.replies) < 4_096:
            self.replies += data.encode()


class _Parser(pyte.ByteStream):
    def __init__(self, screen: pyte.Screen) -> None:
        self.csi = {
            **pyte.ByteStream.csi,
            "S": "scroll_up",
            "T": "scroll_down",
            "b": "repeat",
            "s": "keep_cursor",
            "u": "bring_cursor_back",
        }
        super().__init__(screen)


def _has_place(letter: str) -> bool:
    width = wcwidth(letter)
    return width > 0 or (width == 0 and unicodedata.combining(letter) > 0)


class Screen:
    """One terminal's screen. What it is fed has gone through a Sifter."""

    def __init__(self, rows: int, cols: int) -> None:
        self._cells = _Cells(cols, rows)
        self._parser = _Parser(self._cells)
        self.failures = 0
        """How often a sequence that the sifter lets pass was too much for pyte."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._cells.lines, self._cells.columns

    @property
    def cursor(self) -> tuple[int, int]:
        """Row and column of the cursor, from 1."""
        cells = self._cells
        return cells.cursor.y + 1, min(cells.cursor.x, cells.columns - 1) + 1

    @property
    def title(self) -> str:
        """What the program calls its window, in plain characters."""
        return _UNSEEN.sub("", self._cells.title)[:_TITLE_CHARS]

    @property
    def wants_application_keys(self) -> bool:
        """Whether the program has asked for the other form of the arrow keys (DECCKM)."""
        return _CURSOR_KEYS in self._cells.mode

    def feed(self, data: bytes) -> None:
        """Let the terminal obey. Costs about a second a megabyte."""
        try:
            self._parser.feed(data)
        except Exception as error:  # noqa: BLE001  pyte's own, on bytes made to raise it: it starts afresh
            self.failures += 1
            print(f"terminal: {type(error).__name__} in pyte: {error}", file=sys.stderr, flush=True)

    def take_replies(self) -> bytes:
        """What the terminal has to say to its program."""
        replies = bytes(self._cells.replies)
        self._cells.replies.clear()
        return replies

    def resize(self, rows: int, cols: int) -> None:
        """Another size."""
        self._cells.resize(rows, cols)
        self._cells.cursor.x = min(self._cells.cursor.x, cols - 1)
        self._cells.cursor.y = min(self._cells.cursor.y, rows - 1)

    def skim(self, data: bytes) -> bytes:
        """The shortest end of this that leaves the same screen and history when it is fed.

        Of lines that scroll through, only the last are ever seen; but only where nothing but colours, titles
        and whole lines is in them, on the main screen, without margins.
        """
        cells = self._cells
        if cells.is_alternate or cells.margins is not None or b"\r\n" not in data:
            return data
        plain = _COLOUR_OR_TITLE.sub(b"", data)
        if b"\x1b" in plain or b"\x9b" in plain or b"\x0b" in plain or b"\x0c" in plain:
            return data
        at = len(data)
        for _ in range(HISTORY_LINES + 2 * cells.lines):
            at = data.rfind(b"\r\n", 0, at)
            if at < 0:
                return data
        skipped = b"".join(_COLOUR_OR_TITLE.findall(data[:at]))
        return skipped + data[at:]

    # -- for a model ----------------------------------------------------------------------------------
    def text(self, history: int = 0) -> str:
        """The rows, their ends and the last blank ones trimmed; before them so many that scrolled off."""
        cells = self._cells
        past = list(cells.history)[-history:] if history else []
        rows = [self._row(line) for line in past]
        if rows:
            rows.append(f"[above: {len(rows)} lines that have scrolled off]")
        shown = [self._row(cells.buffer[row]) for row in range(cells.lines)]
        while shown and not shown[-1]:
            shown.pop()
        return "\n".join([*rows, *shown])

    def _row(self, line: Any) -> str:
        letters: list[str] = []
        skip = False
        for column in range(self._cells.columns):
            if skip:
                skip = False
                continue
            data = line[column].data if column in line else " "
            skip = bool(data) and wcwidth(data[0]) == 2
            letters.append(data)
        return _UNSEEN.sub("", "".join(letters)).rstrip()

    # -- for a person ---------------------------------------------------------------------------------
    def repaint(self) -> bytes:
        """What draws this screen on a terminal, whatever that shows."""
        cells = self._cells
        parts = ["\x1b[0m\x1b[?1049h\x1b[?7l\x1b[H\x1b[2J"]
        parts += [f"\x1b[{row + 1};1H{self._painted(cells.buffer[row])}" for row in range(cells.lines)]
        row, column = self.cursor
        hidden = "l" if cells.cursor.hidden else "h"
        keys = "h" if self.wants_application_keys else "l"
        parts.append(f"\x1b[0m\x1b[?7h\x1b[?1{keys}\x1b[{row};{column}H\x1b[?25{hidden}")
        return "".join(parts).encode()

    def _painted(self, line: Any) -> str:
        parts: list[str] = []
        pen, skip = "", False
        for column in range(self._cells.columns):
            if skip:
                skip = False
                continue
            char = line.get(column, _BLANK)
            wanted = _rendition(char)
            if wanted != pen:
                parts.append(f"\x1b[0{wanted}m")
                pen = wanted
            parts.append(_UNSEEN.sub("", char.data))
            skip = bool(char.data) and wcwidth(char.data[0]) == 2
        return "".join(parts)


def _rendition(char: Char) -> str:
    """The numbers of SGR for a cell, each after a semicolon."""
    marks = ((char.bold, "1"), (char.italics, "3"), (char.underscore, "4"), (char.blink, "5"),
             (char.reverse, "7"), (char.strikethrough, "9"))  # fmt: skip
    numbers = [number for on, number in marks if on]
    for colour, base in ((char.fg, 30), (char.bg, 40)):
        name = colour.removeprefix("bright")
        if name in _COLOURS:
            numbers.append(str(base + _COLOURS.index(name) + (60 if colour.startswith("bright") else 0)))
        elif len(colour) == 6:
            red, green, blue = (int(colour[at : at + 2], 16) for at in (0, 2, 4))
            numbers.append(f"{base + 8};2;{red};{green};{blue}")
    return "".join(f";{number}" for number in numbers)
