"""Owns: what a sandbox's two processes tell their zygote, and what they are told.
Must not know: the owner's messages (protocol.py).
Invariants: PID 1 says Open or Guarded once and Ended at the end, the command's process Confined and Going,
    and then nothing: the end of its socket is its start; Failed ends the story; Still answers a Freeze.
Source: DESIGN §9.
"""

import socket
from contextlib import suppress

import msgspec

from .layers import LayerError
from .report import Report


class Open(msgspec.Struct, frozen=True, tag="open"):
    """From PID 1: only the workspace is missing. Descriptors: [terminal], [listener]."""


class Guarded(msgspec.Struct, frozen=True, tag="guarded"):
    """From PID 1: all is mounted, its powers are gone. Descriptors as of Open, unless it said that."""


class Confined(msgspec.Struct, frozen=True, tag="confined"):
    """From the command's process: it is locked in; what was achieved."""

    report: Report


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A layer failed; nothing was run."""

    layer: str
    errno: int
    message: str
    remedy: str


class Going(msgspec.Struct, frozen=True, tag="going"):
    """From the command's process: I have all, and begin. Whoever dies without this word has run nothing."""


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """From PID 1: the command ended with this wait status, and nobody but PID 1 is left of its tree.

    `cpu_s` counts all of them, the set-up included; `max_rss_bytes` is that of the largest.
    """

    status: int
    cpu_s: float
    max_rss_bytes: int


class Still(msgspec.Struct, frozen=True, tag="still"):
    """The tree stands still, as it was told to."""


class Attach(msgspec.Struct, frozen=True, tag="attach"):
    """To a PID 1 that is Open: this is the workspace. Descriptors: workspace, [stage]."""

    staged: bool


class Request(msgspec.Struct, frozen=True, tag="request"):
    """To the command's process, once: what to run. Descriptors: those of stdio, unless on a terminal."""

    argv: list[bytes]
    env: dict[str, str]
    cwd: str
    staged: bool
    rows: int
    cols: int
    builtin: str | None


class Freeze(msgspec.Struct, frozen=True, tag="freeze"):
    """From the zygote: let the tree stand still."""


class Thaw(msgspec.Struct, frozen=True, tag="thaw"):
    """From the zygote: let it go on."""


Progress = Open | Guarded | Confined | Going | Failed | Ended | Still
Order = Freeze | Thaw

encode = msgspec.msgpack.Encoder().encode
_orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
_attach: msgspec.msgpack.Decoder[Attach] = msgspec.msgpack.Decoder(Attach)
_request: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_decoder: msgspec.msgpack.Decoder[Progress] = msgspec.msgpack.Decoder(Progress)


def decode(packet: bytes) -> Progress:
    """What a sandbox said; its sender is our own code, so a malformed packet is a bug and raises."""
    return _decoder.decode(packet)


def decode_order(packet: bytes) -> Order:
    """What the zygote said."""
    return _orders.decode(packet)


def decode_attach(packet: bytes) -> Attach:
    """The zygote's first word to a PID 1 that is Open."""
    return _attach.decode(packet)


def decode_request(packet: bytes) -> Request:
    """The zygote's one word to the command's process."""
    return _request.decode(packet)


def tell_failure(channel: socket.socket, failure: LayerError) -> None:
    """Say which layer failed; to nobody, if the zygote has gone: then so do we."""
    message = Failed(failure.layer.value, failure.errno, failure.message, failure.remedy)
    with suppress(BrokenPipeError, ConnectionResetError):
        channel.send(encode(message), socket.MSG_NOSIGNAL)
