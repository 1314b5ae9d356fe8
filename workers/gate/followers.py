"""Followers of the journal: named cursors that get records as they come, with credit.

Owns: how far each follower was sent and has confirmed. Must not know: what followers do with records.
Invariant: at most WINDOW records are under way to a follower; one that is away costs nothing.
Source: DESIGN §5 ``Follow(position)``.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_RECORDS = 2_048
BATCH_RECORDS = 512
BATCH_BYTES = 1 << 20


@dataclass(slots=True)
class Follower:
    """One follower and the worker that speaks for it."""

    role: str
    index: int
    sent: int
    confirmed: int


class Followers:
    """All followers by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, Follower] = {}

    def follow(self, name: str, role: str, index: int, after: int) -> None:
        """Begin, or begin again, after a position."""
        self.by_name[name] = Follower(role, index, after, after)

    def confirm(self, name: str, position: int) -> None:
        """The follower made everything up to here its own."""
        follower = self.by_name.get(name)
        if follower is not None:
            follower.confirmed = max(follower.confirmed, min(position, follower.sent))

    def gone(self, role: str, index: int) -> None:
        """A worker of a new epoch will say where to begin."""
        for name in [name for name, f in self.by_name.items() if (f.role, f.index) == (role, index)]:
            del self.by_name[name]

    def hungry(self, last_position: int) -> list[Follower]:
        """Who can take more."""
        return [
            f
            for f in self.by_name.values()
            if f.sent < last_position and f.sent - f.confirmed < WINDOW_RECORDS
        ]
