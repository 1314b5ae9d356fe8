"""The other process of the message benchmark: a worker's end of our link, and a bare pyzmq DEALER.

Owns: what the far side of each way does; started as a program, it prints its own times as one JSON line.
Must not know: bounds, how often it is run.
Invariant: the loop turns as workers/runtime.py's does: flush, wait, drain, receive, acknowledge.
Source: issue 3 "Speed and memory".
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import zmq

from homeostat.proto import link, messages as m
from homeostat.proto.ids import Key, TaskId, identity
from homeostat.proto.records import Call, Usage
from homeostat.proto.transport import Waiter, dealer, drain

IDENTITY = identity("brain", 0, 1)
BATCH = 64
"""How many messages are posted between two looks at the socket, as a shell posts what one event gave it."""
ARGS = b'{"command": "' + b"x" * 180 + b'"}'
_pack = msgspec.msgpack.Encoder().encode
_unpack: msgspec.msgpack.Decoder[m.Followed] = msgspec.msgpack.Decoder(m.Followed)
"""The bare loop packs and unpacks the same typed message: only the link is what differs."""


def small(number: int) -> m.Followed:
    """The shortest message that a worker really sends."""
    return m.Followed("memory", number)


def large(number: int) -> m.Propose:
    """A step of a model: one call with 200 bytes of arguments."""
    call = Call("shell.run", ARGS, "look whether it is there", "call_1")
    return m.Propose(TaskId("t0123456789abcdef"), 1, number, "", (call,), Usage(1_000, 100))


class End:
    """One end of a link over a socket: the loop around it without a shell."""

    def __init__(
        self, sock: zmq.Socket[bytes], send: Callable[[bytes], object], decode: Callable[[bytes], Any]
    ) -> None:
        self.link: link.Link[Any, Any] = link.Link(1)
        self.link.meet(1, 1)
        self._sock, self._send, self._decode = sock, send, decode
        poller = zmq.Poller()
        poller.register(sock, zmq.POLLIN)
        self._waiter = Waiter(poller)

    def turn(self, timeout_ms: int | None = None) -> list[Any]:
        """Send what is due, wait, give what is new; it counts as handled at once."""
        try:
            for frame in self.link.frames(time.monotonic()):
                self._send(link.encode(frame))
        except zmq.Again:
            pass  # The queue is full: the link's resend timer sends the rest, as in the worker's loop.
        due = self.link.due()
        if timeout_ms is None and due is not None:
            timeout_ms = max(0, int((due - time.monotonic()) * 1000) + 1)
        self._waiter.poll(timeout_ms)
        got: list[Any] = []
        for parts in drain(self._sock):
            got += self.link.receive(self._decode(parts[-1]), time.monotonic())
        self.link.acknowledge(time.monotonic())
        return got


def _one_way(end: End, make: Callable[[int], Any], count: int) -> None:
    posted = 0
    while posted < count or end.link.unacknowledged:
        batch = min(BATCH, count - posted, link.OUTBOX_LIMIT - end.link.unacknowledged)
        for number in range(posted, posted + batch):
            end.link.post(make(number))
        posted += batch
        end.turn(0 if batch else None)


def _round_trips(end: End, count: int) -> list[int]:
    took = []
    for number in range(count):
        began = time.perf_counter_ns()
        end.link.post(small(number))
        while not end.turn():
            pass
        took.append(time.perf_counter_ns() - began)
    return took


def _bare_one_way(sock: zmq.Socket[bytes], count: int) -> None:
    for number in range(count):
        sock.send(_pack(small(number)))
    sock.recv()  # The other side has all.


def _bare_round_trips(sock: zmq.Socket[bytes], count: int) -> list[int]:
    took = []
    for number in range(count):
        began = time.perf_counter_ns()
        sock.send(_pack(small(number)))
        _unpack.decode(sock.recv())
        took.append(time.perf_counter_ns() - began)
    return took


def main(endpoint: str, way: str, count: int) -> None:
    """Do this one thing; say what it took."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sock = dealer(context, endpoint, IDENTITY)
    took: list[int] = []
    if way.startswith("bare"):
        sock.setsockopt(zmq.RCVTIMEO, 60_000)
        sock.send(b"")  # Greets, so that the bare ROUTER knows it.
        sock.recv()
        if way == "bare one-way":
            _bare_one_way(sock, count)
        else:
            took = _bare_round_trips(sock, count)
    else:
        end = End(sock, lambda data: sock.send(data, zmq.NOBLOCK), link.decode_to_worker)
        end.link.post(m.Followed("hello", 0))
        while not any(isinstance(one, m.Forget) and one.key == Key("begin") for one in end.turn()):
            pass
        if way == "round trips":
            took = _round_trips(end, count)
        else:
            _one_way(end, large if way == "large one-way" else small, count)
    print(json.dumps(took), flush=True)
    context.destroy(linger=1_000)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
