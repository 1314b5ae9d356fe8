"""Whether and when a failed provider call is tried again.

Owns: the rule; it is pure.
Must not know: the clock, the random source, which provider failed.
Invariant: a call is tried at most ``attempts`` times, and never before its provider's Retry-After.
Source: AWS Architecture Blog, "Exponential Backoff And Jitter" (full jitter); RFC 9110 §10.2.3.
"""

from __future__ import annotations

from .providers.events import FINAL_KINDS, Failed

BASE_S = 1.0
LONGEST_S = 60.0
WAIT_LIMIT_S = 900.0
"""A provider that asks for a longer pause is given up: the task's owner should hear of it."""


def pause_s(failure: Failed, attempt: int, attempts: int, jitter: float) -> float | None:
    """Seconds until the next attempt, or None to give up.

    ``attempt`` counts from 1; ``jitter`` is in [0, 1).
    """
    if failure.kind in FINAL_KINDS or attempt >= attempts:
        return None
    asked = failure.retry_after_s or 0.0
    if asked > WAIT_LIMIT_S:
        return None
    backoff = min(LONGEST_S, BASE_S * 2.0 ** min(attempt - 1, 16))
    return asked + backoff * jitter
