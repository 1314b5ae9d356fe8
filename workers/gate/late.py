"""Answers that found their client's queue full: kept for a while, in order, and sent when there is room.

Owns: how many wait, and for how long. Must not know: what an answer says.
Invariant: an answer overtakes no other of the same client; whoever does not read costs at most LIMIT_BYTES.
Source: zmq_setsockopt(3) ZMQ_SNDHWM: on a busy machine ZeroMQ's own thread may be slower than we are.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

PATIENCE_S = 2.0
AGAIN_S = 0.002
LIMIT = 1_024
LIMIT_BYTES = 16 << 20


@dataclass(frozen=True)
class _Answer:
    client: bytes
    size_bytes: int
    until_s: float
    send: Callable[[], bool]
    lost: Callable[[], None]


class Late:
    """All answers that wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: deque[_Answer] = deque()
        self._clients: dict[bytes, int] = {}
        self._size_bytes = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._answers)

    def waits_for(self, client: bytes) -> bool:
        """Whether something waits for this client already: then the next has to wait too."""
        return client in self._clients

    def keep(
        self, client: bytes, size_bytes: int, send: Callable[[], bool], lost: Callable[[], None]
    ) -> bool:
        """Keep an answer; False when too much waits. ``lost`` is called if ``send`` never succeeds."""
        if len(self._answers) >= LIMIT or self._size_bytes + size_bytes > LIMIT_BYTES:
            return False
        self._answers.append(_Answer(client, size_bytes, self._clock() + PATIENCE_S, send, lost))
        self._clients[client] = self._clients.get(client, 0) + 1
        self._size_bytes += size_bytes
        return True

    def due(self, now_s: float) -> float | None:
        """When to try again."""
        return now_s + AGAIN_S if self._answers else None

    def retry(self) -> None:
        """Send what can be sent, in the order of each client; give up what has waited for long enough."""
        if not self._answers:
            return
        now_s, still = self._clock(), deque[_Answer]()
        full: set[bytes] = set()
        for answer in self._answers:
            if answer.client not in full and answer.send():
                self._forget(answer)
            elif answer.until_s <= now_s:
                self._forget(answer)
                answer.lost()
            else:
                full.add(answer.client)
                still.append(answer)
        self._answers = still

    def _forget(self, answer: _Answer) -> None:
        self._size_bytes -= answer.size_bytes
        self._clients[answer.client] -= 1
        if not self._clients[answer.client]:
            del self._clients[answer.client]
