"""The nouns between the core and the desk of live terminals: what is asked, what happens, what is done.

Owns: the types that rules.py and desk.py exchange through core.py and shell.py; calls.py gives them all.
Must not know: how one follows from another (rules.py), how anything is done (desk.py).
Invariant: frozen; ``opened_by`` is the key of the call that opened a terminal, which is the terminal's own.
Source: DESIGN §9 "Streams"; STYLE "Layout".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ....proto import messages as m
from ....proto.ids import Key


@dataclass(frozen=True)
class Terminal:
    """What a call wants of a live terminal: ``trouble`` says why it can't be meant."""

    act: Literal["", "open", "send", "screen", "close"]
    name: str = ""
    keep: bool = True
    trouble: str = ""


# -- events ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Rested:
    """The terminal that a call is at has come to rest, or its time was up; this is what it shows."""

    key: Key
    text: str


@dataclass(frozen=True)
class TerminalEnded:
    """The program on the terminal that this call opened has ended, and all that it started."""

    key: Key
    exit_code: int | None
    signal: int | None


@dataclass(frozen=True)
class TerminalClosed:
    """The terminal is dead; with ``kept`` its stage bears the key of this call now."""

    key: Key
    opened_by: Key
    text: str
    kept: bool


@dataclass(frozen=True)
class Taken:
    """A person has taken over the terminal that this call opened, or handed it back (``by`` empty).

    Said again of who has it already: it is in use, its program prints.
    """

    key: Key
    by: str


# -- effects -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class UseTerminal:
    """Type at the terminal that was opened by that call, or look at it."""

    execute: m.Execute
    opened_by: Key


@dataclass(frozen=True)
class CloseTerminal:
    """End all that runs on it; with ``keep`` let its stage go on under this call's key."""

    key: Key
    opened_by: Key
    keep: bool


@dataclass(frozen=True)
class HoldTerminal:
    """Let it stand still, or go on."""

    opened_by: Key
    on: bool


@dataclass(frozen=True)
class LendTerminal:
    """Let the person who brings this token take it over."""

    token: str
    opened_by: Key
    name: str
    by: str


@dataclass(frozen=True)
class DropTerminal:
    """Forget what it showed."""

    opened_by: Key


OfTerminal = UseTerminal | CloseTerminal | HoldTerminal | LendTerminal | DropTerminal
"""What the core has done about terminals."""
