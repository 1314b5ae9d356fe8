"""What an executor says to the courier: here is a command's own way out.

Owns: the one packet of ``run/courier.sock``, its bytes, and what a command is told of its proxy.
Must not know: who may reach what, sockets.
Invariant: the packet is frozen, closed and small; with it comes exactly one descriptor, the listener.
Source: DESIGN §9 "Network"; unix(7), SCM_RIGHTS.

The connection on which the packet came stands for the sandbox: its end is the end of the way out.
"""

from __future__ import annotations

from typing import Final

import msgspec

from .errors import ProtocolError
from .form import Message
from .ids import Key, TaskId

SOCKET: Final = "run/courier.sock"
"""Beneath the home."""
OFFER_LIMIT_BYTES: Final = 1_024


class Offer(Message, frozen=True, tag="offer"):
    """Serve the listener that comes with this, for the call with this key."""

    key: Key
    task: TaskId


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Offer)


def encode(offer: Offer) -> bytes:
    """Give the packet."""
    return _encode(offer)


def decode(packet: bytes) -> Offer:
    """Take the packet. Raises ProtocolError."""
    if len(packet) > OFFER_LIMIT_BYTES:
        raise ProtocolError(f"an offer of {len(packet)} bytes", expected=f"at most {OFFER_LIMIT_BYTES}")
    try:
        return _decoder.decode(packet)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProtocolError(f"not an offer: {error}") from error


def environment(port: int) -> dict[str, str]:
    """What tells the programs of a command about the proxy on its own loopback."""
    proxy = f"http://127.0.0.1:{port}"
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return dict.fromkeys(names, proxy) | {"no_proxy": "localhost,127.0.0.1,::1"}
