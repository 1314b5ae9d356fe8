"""What the gate counts, gathered in memory and written to the metrics' files now and then.

Owns: which of the core's observations become which metric. Must not know: how metrics are served.
Invariant: the hot path only adds to a dictionary; what is pending is written before the loop sleeps.
Source: workers/metrics.py names the metrics.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from ...proto.records import Usage
from ..metrics import Metrics

EVERY_S = 0.1
TOTALS = ("steps", "effects", "verdicts", "denied", "tokens", "commits", "records", "requests", "refused")


class Counting:
    """Counters and histograms that wait to be written."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.totals: Counter[str] = Counter(dict.fromkeys(TOTALS, 0))
        """Since this gate's start, for whoever asks for the status."""
        self._pending: Counter[tuple[str, ...]] = Counter()
        self._commits: list[float] = []
        self._calls: list[tuple[str, float]] = []
        self._written_s = 0.0

    def observed(self, name: str, value: Any) -> None:
        """Take an observation of the core."""
        match name:
            case "task":
                self._pending[(name, value)] += 1
            case "verdict":
                self._pending[(name, *value)] += 1
                self.totals["verdicts"] += 1
                self.totals["denied"] += value[-1] == "deny"
            case "outcome":
                klass, status, duration_s = value
                self.totals["effects"] += 1
                self._pending[("effect", klass, status)] += 1
                self._calls.append((klass, duration_s))
            case "tokens":
                self._tokens(value)
            case "step" | "system_event":
                self.totals["steps"] += name == "step"
                self._pending[(name,)] += 1
            case "frozen":
                for scope, count in value.items():
                    self._metrics.frozen.labels(scope).set(count)
            case "connection":
                self._pending[(name, str(value))] += 1
            case "model_trouble":
                self._pending[("provider", str(value))] += 1
            case _:
                raise AssertionError(f"nobody counts {name}")

    def _tokens(self, usage: Usage) -> None:
        if usage.input_tokens or usage.output_tokens:
            self.totals["tokens"] += usage.input_tokens + usage.output_tokens
            self._pending[("tokens", "input")] += usage.input_tokens
            self._pending[("tokens", "output")] += usage.output_tokens

    def request(self, kind: str, code: str) -> None:
        """A client was answered."""
        self.totals["requests"] += 1
        self.totals["refused"] += code != "ok"
        self._pending[("request", kind, code)] += 1

    def letter(self, reason: str) -> None:
        """Something was dropped."""
        self._pending[("letter", reason)] += 1

    def committed(self, seconds: float, records: int) -> None:
        """A round is on disk."""
        self.totals["commits"] += 1
        self.totals["records"] += records
        self._commits.append(seconds)
        self._pending[("records",)] += records

    def write(self, *, idle: bool) -> None:
        """Write what is pending: before a sleep, and ten times a second under load."""
        now_s = time.monotonic()
        if not self._pending or (not idle and now_s - self._written_s < EVERY_S):
            return
        self._written_s = now_s
        for (name, *labels), count in self._pending.items():
            self._metric(name, labels).inc(count)
        self._pending.clear()
        for seconds in self._commits:
            self._metrics.commit_seconds.observe(seconds)
        for klass, seconds in self._calls:
            self._metrics.call_seconds.labels(klass).observe(seconds)
        self._commits.clear()
        self._calls.clear()

    def _metric(self, name: str, labels: list[str]) -> Any:
        metrics = self._metrics
        counter = {
            "task": metrics.tasks,
            "verdict": metrics.verdicts,
            "effect": metrics.effects,
            "tokens": metrics.tokens,
            "step": metrics.steps,
            "system_event": metrics.system_events,
            "request": metrics.requests,
            "records": metrics.records,
            "provider": metrics.provider_failures,
            "letter": metrics.dead_letters,
            "connection": metrics.connections,
        }[name]
        return counter.labels(*labels) if labels else counter
