"""The ZeroMQ shell: sockets with our options, and draining them.

Owns: socket options and how a socket is emptied.
Must not know: what the frames mean.
Invariant: bounded queues and message sizes, no lingering, fast reconnects; a wake drains to EAGAIN.
Source: zmq_setsockopt(3); the descriptor of a ZeroMQ socket is edge-triggered, so one read a wake loses
    wakes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import zmq

from .codec import LINK_LIMIT_BYTES

QUEUE_MESSAGES = 20_000
DRAIN_FRAMES = 1_024


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
    """Give every waiting multipart message, at most ``limit``."""
    receive = sock.recv_multipart
    for _ in range(limit):
        try:
            yield receive(zmq.NOBLOCK)
        except zmq.Again:
            return


def listening_endpoint(listener: socket.socket) -> str:
    """The ZeroMQ endpoint of a listening socket."""
    if listener.family == socket.AF_UNIX:
        return f"ipc://{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"tcp://{host}:{port}"
