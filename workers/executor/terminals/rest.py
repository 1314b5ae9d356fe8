"""When a terminal has come to rest, for the call that waits for it.

Owns: what silence and looks mean to a wait.
Must not know: terminals, clocks (the time is an argument).
Invariants: pure; a wait ends at its time at the latest, plus ``GRACE_S`` for what was printed before it; one
            that stands still does not run out.
Source: DESIGN §9; a program that is seen to be busy is waited for, one that can't be seen only while it
        prints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ....proto.ids import Key
from ..quiet import State

QUIET_S: Final = 0.15
GRACE_S: Final = 2.0
AGAIN_S: Final = 0.03
LOOK_AGAIN_S: Final = 0.1


@dataclass
class Wait:
    """One call that waits. ``is_looking``: it wants to see, and does not wait for rest."""

    key: Key
    opened_by: Key
    until: float
    history: int = 0
    is_looking: bool = False
    is_opening: bool = False
    asked_at: float | None = None
    """When a look was asked for whose answer is not there yet."""
    look_at: float = 0.0
    stands_since: float | None = None
    returning: bool = False

    @property
    def again_s(self) -> float:
        """How soon to check again."""
        return AGAIN_S

    def check(
        self, now: float, moved_at: float, *, settled: bool, ended: bool
    ) -> Literal["", "look", "done"]:
        """What is to be done now. ``settled``: all is typed, and all that was printed is on the screen."""
        if ended:
            return "done" if settled or now > self.until + GRACE_S else ""
        if now >= self.until + GRACE_S or (now >= self.until and settled and not self.is_looking):
            return "done"
        quiet = settled and (self.is_looking or now - moved_at >= QUIET_S)
        if quiet and self.asked_at is None and now >= self.look_at:
            self.asked_at = now
            return "look"
        return ""

    def looked(self, state: State, now: float, moved_at: float) -> bool:
        """Take the answer of a look in; true when it has come to rest."""
        if self.asked_at is None:
            return False
        asked_at, self.asked_at = self.asked_at, None
        self.look_at = now + LOOK_AGAIN_S
        if self.is_looking:
            return True
        return state != "busy" and moved_at < asked_at

    def stand(self, now: float, *, still: bool) -> None:
        """The terminal stands still, or goes on: then as much time is left as before."""
        if still:
            self.stands_since, self.asked_at = now, None
        elif self.stands_since is not None:
            self.until += now - self.stands_since
            self.stands_since = None
