"""Pure decisions about restarts: whom, when, how often, after how long.

Owns: the three strategies, the three kinds of children, restart intensity, backoff, and when another restart
    is pointless.
Must not know: processes, the clock, the random source (both are arguments).
Invariant: more than ``intensity`` failures escalate, within ``period_s`` or in a row, however far apart the
    backoff has put them; the first restart waits for nothing.
Source: Erlang/OTP supervisor(3); "Exponential Backoff And Jitter" (full jitter), AWS Architecture Blog 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, assert_never

from .specs import Restart, Strategy

T = TypeVar("T")
FAILED_STARTS = 3
"""What has failed so often in a row before it ever served has a cause that lasts."""


def affected(strategy: Strategy, members: Sequence[T], failed: T) -> tuple[T, ...]:
    """Give the members to restart when one has failed, in start order."""
    at = members.index(failed)
    match strategy:
        case Strategy.ONE_FOR_ONE:
            return (failed,)
        case Strategy.ONE_FOR_ALL:
            return tuple(members)
        case Strategy.REST_FOR_ONE:
            return tuple(members[at:])
        case _:
            assert_never(strategy)


def again(restart: Restart, code: int | None) -> bool:
    """Whether a child that ended by itself is started again; ``code`` is None where a signal ended it."""
    match restart:
        case Restart.PERMANENT:
            return True
        case Restart.TRANSIENT:
            return code != 0
        case Restart.TEMPORARY:
            return False
        case _:
            assert_never(restart)


@dataclass(frozen=True)
class Intensity:
    """Failures within a sliding period."""

    limit: int
    period_s: float
    failures_s: tuple[float, ...] = ()

    def failed(self, now_s: float) -> Intensity:
        """Count one more failure."""
        recent = tuple(at for at in self.failures_s if now_s - at < self.period_s)
        return Intensity(self.limit, self.period_s, (*recent, now_s))

    @property
    def exceeded(self) -> bool:
        """Whether restarting again would be pointless: the tree must come down."""
        return len(self.failures_s) > self.limit


@dataclass(frozen=True)
class Backoff:
    """How long to wait before the next restart."""

    base_s: float
    max_s: float
    healthy_s: float
    attempts: int = 0

    def failed(self, healthy_for_s: float | None) -> Backoff:
        """Count a failure; a child that had served for ``healthy_s`` begins anew (None: it never served)."""
        healthy = healthy_for_s is not None and healthy_for_s >= self.healthy_s
        return Backoff(self.base_s, self.max_s, self.healthy_s, 1 if healthy else self.attempts + 1)

    def delay_s(self, random: float) -> float:
        """Give the delay for a random value in [0, 1): none at first, then jitter below a doubling cap."""
        if self.attempts <= 1:
            return 0.0
        exponent = min(self.attempts - 2, 62)  # Beyond it a float cap is max_s anyway.
        return random * min(self.max_s, self.base_s * 2.0**exponent)


def pointless(intensity: Intensity, backoff: Backoff, failed_starts: int) -> str:
    """Say why to give up instead of restarting again; empty while a restart may help."""
    if failed_starts >= FAILED_STARTS:
        return f"{failed_starts} starts in a row failed and none has succeeded"
    if intensity.exceeded:
        return f"{len(intensity.failures_s)} crashes of its group in {intensity.period_s:g} s"
    if backoff.attempts > intensity.limit:
        return f"{backoff.attempts} crashes of its group, none after {backoff.healthy_s:g} s of service"
    return ""
