"""The ZeroMQ shell: sockets with our options, and draining them.

Owns: socket options, how a socket is emptied, how one waits for it.
Must not know: what the frames mean.
Invariant: bounded queues and message sizes, no lingering, fast reconnects; a wake drains to EAGAIN.
Source: zmq_setsockopt(3); the descriptor of a ZeroMQ socket is edge-triggered, so one read a wake loses
    wakes.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import zmq

from .codec import LINK_LIMIT_BYTES

QUEUE_MESSAGES = 20_000
DRAIN_FRAMES = 1_024
LOOK_S = 100e-6
"""How long to look before sleeping: a round trip between two processes (haltpoll's idea, on its scale)."""
BRISK_S = 1.5 * LOOK_S

# As ints: `&` and `|` of pyzmq's enums make a new member each time, 0.6 us on a path of 30.
_NOBLOCK = int(zmq.NOBLOCK)
_NOBLOCK_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS = int(zmq.EVENTS)
_READABLE = int(zmq.POLLIN)
_MORE_FOLLOWS = int(zmq.RCVMORE)


def _common(sock: zmq.Socket[bytes], max_bytes: int) -> None:
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.SNDHWM, QUEUE_MESSAGES)
    sock.setsockopt(zmq.RCVHWM, QUEUE_MESSAGES)
    sock.setsockopt(zmq.MAXMSGSIZE, max_bytes)


def dealer(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, identity: bytes) -> zmq.Socket[bytes]:
    """A worker's or local client's end; reconnects within 1 ms."""
    sock = context.socket(zmq.DEALER)
    _common(sock, LINK_LIMIT_BYTES)
    if identity:
        sock.setsockopt(zmq.IDENTITY, identity)
    sock.setsockopt(zmq.RECONNECT_IVL, 1)
    sock.setsockopt(zmq.RECONNECT_IVL_MAX, 20)
    sock.connect(endpoint)
    return sock


def router(
    context: zmq.Context[zmq.Socket[bytes]],
    listener_fd: int,
    max_bytes: int,
    curve_secret: bytes | None = None,
    *,
    waiting_messages: int = QUEUE_MESSAGES,
    handover: bool = True,
) -> zmq.Socket[bytes]:
    """The gate's end on a listening descriptor that it inherited (ZMQ_USE_FD); with a secret key, CURVE.

    ``waiting_messages`` bounds what waits of and for one connection: beyond it ZeroMQ stops reading from
    there, and sending there is EAGAIN. ``handover`` lets a new one take its identity.
    """
    sock = context.socket(zmq.ROUTER)
    _common(sock, max_bytes)
    sock.setsockopt(zmq.SNDHWM, waiting_messages)
    sock.setsockopt(zmq.RCVHWM, waiting_messages)
    sock.setsockopt(zmq.ROUTER_MANDATORY, 1)
    sock.setsockopt(zmq.ROUTER_HANDOVER, int(handover))
    if curve_secret is not None:
        sock.setsockopt(zmq.CURVE_SERVER, 1)
        sock.setsockopt(zmq.CURVE_SECRETKEY, curve_secret)
        sock.setsockopt(zmq.ZAP_DOMAIN, b"homeostat")
    sock.setsockopt(zmq.USE_FD, listener_fd)
    with socket.socket(fileno=os.dup(listener_fd)) as listener:
        sock.bind(listening_endpoint(listener))
    return sock


def drain(sock: zmq.Socket[bytes], limit: int = DRAIN_FRAMES) -> Iterator[list[bytes]]:
    """Give every waiting multipart message, at most ``limit``.

    Asked for its events, never tried in vain: an exception at every end costs 3 us, the question half that.
    """
    look, receive = sock.getsockopt, sock.recv
    for _ in range(limit):
        if not int(look(_EVENTS)) & _READABLE:
            return
        parts = [receive(_NOBLOCK)]
        while look(_MORE_FOLLOWS):
            parts.append(receive(_NOBLOCK))
        yield parts


def send_to(sock: zmq.Socket[bytes], identity: bytes, data: bytes) -> None:
    """Send on a ROUTER. Raises ZMQError: EHOSTUNREACH (gone), EAGAIN (its queue is full)."""
    sock.send(identity, _NOBLOCK_MORE)
    sock.send(data, _NOBLOCK)


class Waiter:
    """Waits like its poller; while answers come quickly it looks for them a moment before it sleeps.

    To put a thread to sleep and wake it on another core costs more than the work of a whole hop: half of a
    round trip's time is that. So while a wait ends within ``BRISK_S``, the next one looks first, giving way
    to whoever else can use this core. The first longer wait ends that: an idle loop never looks, nor does one
    that waits for disks or models.
    """

    def __init__(self, poller: zmq.Poller, clock: Callable[[], float] = time.perf_counter) -> None:
        self._poller = poller
        self._clock = clock
        self._brisk = False

    def poll(self, timeout_ms: int | None) -> list[tuple[Any, int]]:
        """As zmq.Poller.poll."""
        if timeout_ms == 0:
            return self._poller.poll(0)
        began_s = now_s = self._clock()
        events: list[tuple[Any, int]] = []
        while self._brisk and not events and now_s - began_s < LOOK_S:
            events = self._poller.poll(0)
            if not events:
                os.sched_yield()
            now_s = self._clock()
        if not events:
            events = self._poller.poll(timeout_ms)
            now_s = self._clock()
        self._brisk = now_s - began_s < BRISK_S
        return events


def listening_endpoint(listener: socket.socket) -> str:
    """The ZeroMQ endpoint of a listening socket."""
    if listener.family == socket.AF_UNIX:
        return f"ipc://{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"tcp://{host}:{port}"
