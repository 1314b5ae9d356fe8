"""Bytes from one socket to another, both ways.

Owns: the pumping, its bounds, half-closed ends.
Must not know: HTTP, who may reach what, why it ends.
Invariants: what could not be written yet is all that is held, at most a buffer a direction, and while it is
    there nothing more is read; an end of one direction is passed on and leaves the other open.
Source: recv(2), send(2), shutdown(2). splice(2) would need a pipe a direction, six descriptors a connection.
"""

from __future__ import annotations

import socket
from typing import Final

from .bodies import Passage
from .heads import HeadError
from .readiness import IN, LOST, OUT

BUFFER_BYTES: Final = 64 << 10
_READS_A_TURN: Final = 4
_DROPPED_BYTES: Final = 64 << 10
"""So much may follow a body that has ended before the connection is given up."""

Buffer = memoryview


def buffer() -> Buffer:
    """What all relays of a thread read into."""
    return memoryview(bytearray(BUFFER_BYTES))


class Flow:
    """One direction."""

    def __init__(
        self, source: socket.socket, sink: socket.socket, passage: Passage | None, first: bytes
    ) -> None:
        self._source = source
        self._sink = sink
        self._passage = passage
        self._pending = memoryview(first)
        self._dropped = 0
        self.ended = False
        """The source has said its last."""
        self.over = False
        """And the sink was told so."""
        self.moved = 0
        """Bytes that the sink took."""

    @property
    def reads(self) -> bool:
        """Whether it waits for the source."""
        return not self.ended and not self._pending

    @property
    def writes(self) -> bool:
        """Whether it waits for the sink."""
        return bool(self._pending)

    def pump(self, scratch: Buffer) -> None:
        """Move what can be moved now. Raises OSError, HeadError."""
        for _ in range(1 if self._passage is not None else _READS_A_TURN):
            if self._pending:
                self._pending = self._pending[self._send(self._pending) :]
            if self._pending or self.over:
                return
            if not self.ended and not self._read(scratch):
                return
            if self.ended:
                self._finish()
                return

    def _read(self, scratch: Buffer) -> bool:
        """Read once and pass it on; False when there was nothing."""
        try:
            count = self._source.recv_into(scratch)
        except BlockingIOError:
            return False
        if not count:
            self.ended = True
            return True
        data: bytes | Buffer = scratch[:count]
        if self._passage is not None:
            data = self._passage.feed(bytes(data))
            if not data and self._passage.over:
                self._drop(count)
        sent = self._send(data) if data else 0
        if sent < len(data):
            self._pending = memoryview(bytes(data[sent:]))  # The scratch is everybody's.
        return True

    def _drop(self, count: int) -> None:
        """It follows a body that has ended."""
        self._dropped += count
        if self._dropped > _DROPPED_BYTES:
            raise HeadError("more follows than the request's body")

    def _send(self, data: bytes | Buffer) -> int:
        try:
            sent = self._sink.send(data)
        except BlockingIOError:
            return 0
        self.moved += sent
        return sent

    def _finish(self) -> None:
        self.over = True
        self._sink.shutdown(socket.SHUT_WR)


class Relay:
    """Both directions between a command and a host."""

    def __init__(self, up: Flow, down: Flow) -> None:
        self.up = up
        self.down = down

    @property
    def over(self) -> bool:
        """Whether both ends have been told of the other's end."""
        return self.up.over and self.down.over

    def on_command(self, events: int, scratch: Buffer) -> None:
        """The command's socket is ready. Raises OSError, HeadError."""
        self._serve(events, self.up, self.down, scratch)

    def on_host(self, events: int, scratch: Buffer) -> None:
        """The host's socket is ready. Raises OSError, HeadError."""
        self._serve(events, self.down, self.up, scratch)

    @staticmethod
    def _serve(events: int, source_of: Flow, sink_of: Flow, scratch: Buffer) -> None:
        if events & (OUT | LOST) and sink_of.writes:
            sink_of.pump(scratch)
        if events & (IN | LOST) and source_of.reads:
            source_of.pump(scratch)

    def masks(self) -> tuple[int, int]:
        """What to wait for at the command's and at the host's socket."""
        return (
            (IN if self.up.reads else 0) | (OUT if self.down.writes else 0),
            (IN if self.down.reads else 0) | (OUT if self.up.writes else 0),
        )
