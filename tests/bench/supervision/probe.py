"""Watching a restart as a client does: by the answers of the gate.

Owns: one DEALER to the client port, and what an answer proves.
Must not know: who was killed, bounds.
Invariants: every answer taken is one to a question asked after the kill; asked again every half millisecond
    at most, which costs the gate 0.1 ms each and bounds how much too long a figure is.
Source: docs/PROTOCOL.md, `status`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq

from homeostat.proto import wire
from homeostat.proto.client import knock
from homeostat.proto.codec import decode_reply, encode
from homeostat.proto.errors import RefusedError

EVERY_MS = 0.5
PATIENCE_S = 30.0
SETTLE_S = 0.2
"""Longest wait for an answer that a gate may have taken with it."""


class Probe:
    """Asks the gate how it is, again and again."""

    def __init__(self, home: Path) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 1)
        self._socket.connect(knock(home))
        self._last = self._heard = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.destroy(linger=0)

    def until(self, holds: Callable[[wire.StatusReply], bool]) -> wire.StatusReply:
        """Ask until an answer satisfies; only answers to questions of this call count."""
        first = self._last + 1
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            asked_s = time.perf_counter()
            self.poke()  # One that a dying gate took with it is lost, so each turn asks anew.
            reply = self._answer(first)
            if reply is not None and holds(reply):
                return reply
            time.sleep(max(0.0, EVERY_MS / 1e3 - (time.perf_counter() - asked_s)))
        raise TimeoutError(f"what was waited for did not come within {PATIENCE_S:g} s")

    def poke(self) -> None:
        """Ask, and don't wait for the answer."""
        self._last += 1
        self._socket.send(encode(wire.Status(rid=str(self._last))))

    def settle(self) -> None:
        """Wait until nothing is asked any more: what is at hand at a kill is held against it."""
        until_s = time.monotonic() + SETTLE_S
        while self._heard < self._last and time.monotonic() < until_s:
            self._answer(self._last)

    def _answer(self, first: int) -> wire.StatusReply | None:
        """The newest answer, if there is one within a millisecond."""
        newest = None
        while self._socket.poll(0 if newest is not None else 1):
            reply = decode_reply(self._socket.recv())
            if isinstance(reply, wire.Refused):
                raise RefusedError(f"the gate does not say how it is ({reply.code}): {reply.message}")
            self._heard = max(self._heard, int(reply.rid))
            if isinstance(reply, wire.StatusReply) and int(reply.rid) >= first:
                newest = reply
        return newest


def epoch_in(reply: wire.StatusReply, role: str, index: int = 0) -> int:
    """The epoch of a worker that the gate has welcomed; 0 while it has not."""
    for name in reply.workers:
        found, number, epoch = name.split(".")
        if (found, number) == (role, str(index)):
            return int(epoch)
    return 0
