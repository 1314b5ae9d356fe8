"""A watch that waits for events or goes on.

Owns: how far one watch has come, and how long its client is waited for.
Must not know: sockets (a Sender answers), where events come from.
Invariant: a client that does not read is waited for in growing pauses, and not for ever.
Source: DESIGN §13.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...proto import wire
from .clients import Sender

STALLED_S = 0.05
STALLED_LIMIT_S = 15.0
"""A following watch whose client does not read is tried again after pauses that double, up to this one."""


@dataclass(slots=True)
class Watching:
    """A watch that waits for events or goes on."""

    sender: Sender
    request: wire.Watch
    cursor: int
    until_s: float | None
    seq: int | None = None
    """Next record of the watched task, once known: spares looking the cursor up each time."""
    again_s: float | None = None
    """When to go on even without news: more is there than was sent at once, or than the client has read."""
    pause_s: float = 0.0
    """How long its client is being waited for."""

    def stall(self, now_s: float) -> bool:
        """The client does not read: try the same batch later; true when it was waited for long enough."""
        self.pause_s = max(STALLED_S, 2 * self.pause_s)
        self.again_s, self.seq = now_s + self.pause_s, None
        return self.pause_s > STALLED_LIMIT_S
