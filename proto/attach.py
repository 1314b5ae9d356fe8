"""What a person's terminal and an executor say to each other while a live terminal is lent.

Owns: the packets on run/terminal.<index>.sock, their bytes and their limits.
Must not know: how a terminal is driven, who may ask for one (the gate decides, and mints the token).
Invariant: one msgpack map a packet, the first a Hello; what is too long or unknown ends the connection.
Source: docs/PROTOCOL.md "Live terminals"; unix(7), SOCK_SEQPACKET.
"""

from __future__ import annotations

import socket
from typing import Final

import msgspec

from .errors import ProtocolError

MAX_PACKET_BYTES: Final = 64 << 10
OUTPUT_BYTES: Final = 32 << 10
"""So much output goes into one packet."""
INPUT_BYTES: Final = 4 << 10


class _Packet(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """Common form."""


class Hello(_Packet, frozen=True, tag="hello"):
    """A person's first packet: the token of Attached, and the size of their own terminal."""

    token: str
    rows: int
    cols: int


class Input(_Packet, frozen=True, tag="input"):
    """What the person types."""

    data: bytes


class Resize(_Packet, frozen=True, tag="resize"):
    """The person's terminal has another size now."""

    rows: int
    cols: int


class Output(_Packet, frozen=True, tag="output"):
    """What the program prints; at first, what draws its screen as it is."""

    data: bytes


class Bye(_Packet, frozen=True, tag="bye"):
    """The end: why, in words for the person. From a person: the terminal is handed back."""

    reason: str = ""


FromPerson = Hello | Input | Resize | Bye
ToPerson = Output | Bye

encode = msgspec.msgpack.Encoder().encode
_from_person: msgspec.msgpack.Decoder[FromPerson] = msgspec.msgpack.Decoder(FromPerson)
_to_person: msgspec.msgpack.Decoder[ToPerson] = msgspec.msgpack.Decoder(ToPerson)


def decode_from_person(packet: bytes) -> FromPerson:
    """What a person's side said. Raises ProtocolError."""
    try:
        return _from_person.decode(packet)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"malformed packet: {error}") from error


def decode_to_person(packet: bytes) -> ToPerson:
    """What an executor said. Raises ProtocolError."""
    try:
        return _to_person.decode(packet)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"malformed packet: {error}") from error


def connect(path: str, hello: Hello) -> socket.socket:
    """Connect to an executor and say the first word; the socket then blocks. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
        sock.send(encode(hello))
    except OSError:
        sock.close()
        raise
    return sock
