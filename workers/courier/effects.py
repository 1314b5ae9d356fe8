"""What the courier's core hears, and what it wants done.

Owns: the types that core.py and shell.py exchange.
Must not know: how anything is decided or done.
Invariant: frozen; a report names the key or number of the effect that it answers.
Source: DESIGN §9 "Network"; STYLE "Layout".
"""

from __future__ import annotations

from dataclasses import dataclass

from ...proto import messages as m
from ...proto.ids import Key, TaskId
from .answers import Failure, Response
from .requests import Hop


# -- reports -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Offered:
    """An executor offers the listener of a call's sandbox."""

    number: int
    key: Key
    task: TaskId


@dataclass(frozen=True)
class Gone:
    """The sandbox of this offer has ended, or its executor."""

    number: int


@dataclass(frozen=True)
class Over:
    """A connection of a command has ended."""

    key: Key
    task: TaskId
    connection: m.Connection


@dataclass(frozen=True)
class Resolved:
    """The name of a request's host has these addresses; with trouble, none."""

    key: Key
    addresses: tuple[str, ...]
    trouble: str = ""


@dataclass(frozen=True)
class Exchanged:
    """A request was answered, or was not."""

    key: Key
    result: Response | Failure
    duration_s: float


@dataclass(frozen=True)
class Due:
    """It is time to look at the clock."""


Report = Offered | Gone | Over | Resolved | Exchanged | Due


# -- effects -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Post:
    """Tell the gate."""

    message: m.Ended | m.Connections


@dataclass(frozen=True)
class Serve:
    """Accept from this offer's listener, for this call."""

    number: int
    key: Key
    task: TaskId
    agent: str


@dataclass(frozen=True)
class Shut:
    """Serve it no more: what came by it ends, its listener is closed."""

    number: int
    reason: str


@dataclass(frozen=True)
class Resolve:
    """Find the addresses of a request's host; then Resolved."""

    key: Key
    host: str


@dataclass(frozen=True)
class Exchange:
    """Make one request at one of these addresses, in a thread; then Exchanged."""

    key: Key
    hop: Hop
    addresses: tuple[str, ...]
    within_s: float
    limit_bytes: int


@dataclass(frozen=True)
class Cut:
    """End the exchange of this key; Exchanged still comes."""

    key: Key


Effect = Post | Serve | Shut | Resolve | Exchange | Cut
