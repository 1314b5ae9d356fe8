"""What a model is shown of a terminal.

Owns: the words around a screen.
Must not know: descriptors, calls, when anything is shown.
Invariant: the last line, in brackets, is ours; nothing in it comes from the program but its title, in plain
           characters and cut.
Source: DESIGN §9 (4,096 bytes to the model by default; a screen of 200 x 400 needs more).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..quiet import State
from ..streams import Excerpt
from .live import Live

TEXT_LIMIT_BYTES: Final = 16_384
_WORDS: Final[dict[State, str]] = {
    "waiting": "waits for input",
    "maybe": "may wait for input",
    "busy": "runs",
    "unseen": "runs or waits: the kernel does not permit to see which",
}


@dataclass
class View:
    """One terminal's name and state, in words."""

    name: str
    program: str
    state: State = "busy"
    ended: str = ""
    was_closed: bool = False

    def text(self, live: Live, history: int = 0, *, opened: bool = False, untyped: int = 0) -> str:
        """The screen and a line on it. ``untyped``: so many bytes the program did not take."""
        excerpt = Excerpt(TEXT_LIMIT_BYTES)
        shown = live.screen.text(history)
        excerpt.add(f"{shown}\n".encode() if shown else b"")
        lines = [f"[terminal {self.name} is open]"] if opened else []
        if untyped:
            lines.append(f"[the program does not read: the last {untyped} bytes were not typed]")
        return excerpt.text("") + "\n".join([*lines, f"[{self.line(live)}]"])

    def line(self, live: Live) -> str:
        """Name, program, title, size, cursor, and what it is at."""
        rows, cols = live.screen.size
        row, column = live.screen.cursor
        title = live.screen.title
        state = "closed" if self.was_closed else self.ended or _WORDS[self.state]
        parts = [self.name, self.program, f"{rows}x{cols}", f"cursor {row},{column}", state]
        if title:
            parts.insert(2, f'"{title}"')
        return " · ".join(parts)
