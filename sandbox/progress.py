"""Owns: what a sandbox tells its zygote while it is made and when it ends, and what it is told.
Must not know: the owner's messages (protocol.py).
Invariants: at most one of each in the order Confined, Started, Ended; Failed ends the story; Still answers a
    Freeze.
Source: DESIGN §9.
"""

import socket

import msgspec

from .layers import LayerError
from .report import Report


class Confined(msgspec.Struct, frozen=True, tag="confined"):
    """The command's process is locked in; what was achieved."""

    report: Report


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A layer failed; nothing was run."""

    layer: str
    errno: int
    message: str
    remedy: str


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The command's first instruction ran. The terminal's master comes with it, if there is one."""


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The command ended with this wait status."""

    status: int


class Still(msgspec.Struct, frozen=True, tag="still"):
    """The tree stands still, as it was told to."""


class Freeze(msgspec.Struct, frozen=True, tag="freeze"):
    """From the zygote: let the tree stand still."""


class Thaw(msgspec.Struct, frozen=True, tag="thaw"):
    """From the zygote: let it go on."""


Progress = Confined | Failed | Started | Ended | Still
Order = Freeze | Thaw

encode = msgspec.msgpack.Encoder().encode
_orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
_decoder: msgspec.msgpack.Decoder[Progress] = msgspec.msgpack.Decoder(Progress)


def decode(packet: bytes) -> Progress:
    """What a sandbox said; its sender is our own code, so a malformed packet is a bug and raises."""
    return _decoder.decode(packet)


def decode_order(packet: bytes) -> Order:
    """What the zygote said."""
    return _orders.decode(packet)


def tell_failure(status: socket.socket, failure: LayerError) -> None:
    """Say which layer failed."""
    message = Failed(failure.layer.value, failure.errno, failure.message, failure.remedy)
    status.send(encode(message))
