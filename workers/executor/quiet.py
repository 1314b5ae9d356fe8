"""A command that is silent: whether it waits for input, or has been silent for too long.

Owns: when to look at it, and what two looks together mean.
Must not know: sandboxes, clocks (the time is an argument), who looks.
Invariants: pure; ``maybe`` alone ends nothing; two looks with output between them prove nothing; what stands
            still is neither looked at nor silent.
Source: DESIGN §9 "Streams"; sandbox/waiting.py says what a look sees.
"""

from __future__ import annotations

from typing import Final, Literal

State = Literal["waiting", "maybe", "busy", "unseen"]
QUIET_S: Final = 0.2
"""So long it must have printed nothing before anybody looks."""
AGAIN_S: Final = 0.15
SELDOM_S: Final = 0.4
_NEVER: Final = float("inf")


class Quiet:
    """One command's silence."""

    def __init__(self, now: float, idle_s: float, *, looks: bool) -> None:
        """``idle_s``: it may be silent for so long, 0 for ever; ``looks``: it has a terminal to wait at."""
        self._printed_at = now
        self._idle_s = idle_s or _NEVER
        self._look_at = now + QUIET_S if looks else _NEVER
        self._looks = looks
        self._sure_of = -1.0
        self._stands_still = False
        self.is_unseen = False
        """The kernel did not permit to look."""

    def printed(self, now: float) -> None:
        """It has printed something."""
        self._printed_at = now

    def stand(self, now: float, *, still: bool) -> None:
        """It stands still, or goes on: its silence begins anew."""
        self._stands_still, self._printed_at = still, now

    def next_at(self) -> float:
        """When to check."""
        if self._stands_still:
            return _NEVER
        look_at = max(self._look_at, self._printed_at + QUIET_S) if self._looks else _NEVER
        return min(look_at, self._printed_at + self._idle_s)

    def check(self, now: float) -> Literal["", "look", "silent"]:
        """What is to be done now."""
        if self._stands_still:
            return ""
        if now >= self._printed_at + self._idle_s:
            return "silent"
        if self._looks and now >= max(self._look_at, self._printed_at + QUIET_S):
            self._look_at = _NEVER  # until the answer is there
            return "look"
        return ""

    def looked(self, state: State, now: float) -> bool:
        """Take a look's answer in; true when it waits for input, for certain."""
        if state == "unseen":
            self.is_unseen, self._looks = True, False
            return False
        if state != "waiting" or self._stands_still:
            self._sure_of, self._look_at = -1.0, now + SELDOM_S
            return False
        if self._sure_of == self._printed_at:
            return True
        self._sure_of, self._look_at = self._printed_at, now + AGAIN_S
        return False
