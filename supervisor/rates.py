"""Token buckets by name, with a count of what they held back.

Owns: who has had enough for now, and how much was left out.
Must not know: what is counted, what time it is.
Invariant: every refusal is counted and told once, with what is next let through or by `settled`.
Source: the token bucket of RFC 2697 (one rate, one burst).
"""

from __future__ import annotations

from dataclasses import dataclass

NAMES_LIMIT = 1_024
"""Names are few (events, workers); should they not be, those that held nothing back are forgotten."""


@dataclass
class _Bucket:
    tokens: float
    at_s: float
    left_out: int = 0


class Rates:
    """One bucket a name: ``at_once`` together, ``a_minute`` after that."""

    def __init__(self, at_once: int, a_minute: int) -> None:
        self._at_once = at_once
        self._a_second = a_minute / 60
        self._buckets: dict[str, _Bucket] = {}

    def take(self, name: str, now_s: float) -> int | None:
        """Let one through and give how many were left out since the last; None to leave this one out too."""
        bucket = self._filled(name, now_s)
        if bucket.tokens < 1:
            bucket.left_out += 1
            return None
        bucket.tokens -= 1
        left_out, bucket.left_out = bucket.left_out, 0
        return left_out

    def settled(self, now_s: float | None) -> dict[str, int]:
        """Give what was left out of names that have room again, or of all without a time; once."""
        found: dict[str, int] = {}
        for name, bucket in self._buckets.items():
            if bucket.left_out and (now_s is None or self._filled(name, now_s).tokens >= 1):
                found[name], bucket.left_out = bucket.left_out, 0
        return found

    def _filled(self, name: str, now_s: float) -> _Bucket:
        """The bucket of a name as it is now."""
        if len(self._buckets) >= NAMES_LIMIT and name not in self._buckets:
            self._buckets = {known: bucket for known, bucket in self._buckets.items() if bucket.left_out}
        bucket = self._buckets.setdefault(name, _Bucket(self._at_once, now_s))
        bucket.tokens = min(self._at_once, bucket.tokens + (now_s - bucket.at_s) * self._a_second)
        bucket.at_s = now_s
        return bucket
