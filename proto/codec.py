"""Bytes ↔ messages, with limits.

Owns: decoders, size and version checks, and the words with which bad bytes are refused.
Must not know: sockets, who sent what.
Invariant: every byte string gives a message or a ProtocolError, every message bytes or one; nothing else is
    raised.
Source: DESIGN §13 (wire), §4 (links).
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from . import messages as m, wire
from .errors import MessageTooLargeError, ProtocolError, VersionError

LINK_LIMIT_BYTES = 16 << 20
CONTROL_LIMIT_BYTES = 192 << 10

_encode = msgspec.msgpack.Encoder().encode
T = TypeVar("T")


class Codec:
    """Decoder of one union of messages with a size limit."""

    def __init__(self, union: Any, limit_bytes: int) -> None:
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(union)
        self._limit_bytes = limit_bytes

    def decode(self, data: bytes | memoryview) -> Any:
        """Give the message; raise ProtocolError."""
        if len(data) > self._limit_bytes:
            raise MessageTooLargeError(
                f"message of {len(data)} bytes", expected=f"at most {self._limit_bytes} bytes"
            )
        try:
            return self._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"not a message of this protocol: {error}") from error


class UnsayableError(ProtocolError):
    """The message holds a value that MessagePack can't carry."""

    code = "unsayable"
    exit_code = 2


def encode(message: Any) -> bytes:
    """Give the bytes; raise UnsayableError (an integer beyond 64 bits, half a surrogate pair, depth)."""
    try:
        return _encode(message)
    except UnicodeEncodeError as error:
        raise UnsayableError(f"{error.object[:80]!r} is not UTF-8", expected="text") from error
    except (msgspec.MsgspecError, ArithmeticError, ValueError, TypeError, RecursionError) as error:
        raise UnsayableError(f"a value that no message can carry: {error}") from error


TO_WORKER = Codec(m.ToWorker, LINK_LIMIT_BYTES)
FROM_WORKER = Codec(m.FromWorker, LINK_LIMIT_BYTES)
FROM_SUPERVISOR = Codec(m.FromSupervisor, CONTROL_LIMIT_BYTES)
TO_SUPERVISOR = Codec(m.ToSupervisor, CONTROL_LIMIT_BYTES)
TO_NURSERY = Codec(m.ToNursery, CONTROL_LIMIT_BYTES)
FROM_NURSERY = Codec(m.FromNursery, CONTROL_LIMIT_BYTES)
TO_PARKED = Codec(m.WorkerStart, CONTROL_LIMIT_BYTES)
FROM_PARKED = Codec(m.FromParked, CONTROL_LIMIT_BYTES)
_REPLY = Codec(wire.Reply, LINK_LIMIT_BYTES)
_REQUEST: msgspec.msgpack.Decoder[wire.Request] = msgspec.msgpack.Decoder(wire.Request)


class _Envelope(msgspec.Struct, frozen=True):
    """What every request has; read first, so that a refusal can name the request."""

    type: str
    v: Any = wire.VERSION
    rid: Any = ""


_ENVELOPE: msgspec.msgpack.Decoder[_Envelope] = msgspec.msgpack.Decoder(_Envelope)
_NAMED_FIELD = re.compile(r"(?:unknown|required) field `([^`]*)`")
REQUEST_TYPES = (
    "submit", "get", "list", "watch", "cancel", "resolve", "status", "letters", "freeze", "thaw",
    "attach", "diff", "rewind",
)  # fmt: skip


class BadRequestError(ProtocolError):
    """A request that can't be carried out; carries the refusal to send back."""

    def __init__(self, refusal: wire.Refused) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def decode_request(data: bytes) -> wire.Request:
    """Give the request; raise BadRequestError with the refusal to answer with."""
    if len(data) > wire.REQUEST_LIMIT_BYTES:
        raise BadRequestError(
            _refusal(
                MessageTooLargeError.code,
                f"request of {len(data)} bytes",
                "",
                f"at most {wire.REQUEST_LIMIT_BYTES} bytes",
            )
        )
    try:
        envelope = _ENVELOPE.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(
            _refusal(
                ProtocolError.code, f"not a request: {error}", "", "one msgpack map with type, v and rid"
            )
        ) from error
    rid = envelope.rid if isinstance(envelope.rid, str) and len(envelope.rid) <= 256 else ""
    if envelope.v != wire.VERSION or isinstance(envelope.v, bool):
        raise BadRequestError(
            _refusal(
                VersionError.code,
                f"wire version {envelope.v!r} is not spoken here",
                "v",
                str(wire.VERSION),
                rid,
            )
        )
    if envelope.type not in REQUEST_TYPES:
        raise BadRequestError(
            _refusal(
                "unknown_type",
                f"unknown request type {envelope.type[:80]!r}",
                "type",
                ", ".join(REQUEST_TYPES),
                rid,
            )
        )
    try:
        return _REQUEST.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        text, field = _where(str(error))
        raise BadRequestError(_refusal("bad_field", text, field, "", rid)) from error


def _where(words: str) -> tuple[str, str]:
    """What msgspec found wrong, and the dotted name of the field: also of one that is unknown or missing."""
    text, _, path = words.partition(" - at `$")
    named = _NAMED_FIELD.search(text)
    return text, ".".join(part for part in (path.strip("`."), named[1] if named else "") if part)


def decode_reply(data: bytes) -> wire.Reply:
    """Give the answer; raise ProtocolError."""
    reply: wire.Reply = _REPLY.decode(data)
    return reply


def _refusal(code: str, message: str, field: str, expected: str, rid: str = "") -> wire.Refused:
    return wire.Refused(
        rid=rid,
        code=code,
        message=message,
        field=field,
        expected=expected,
        remedy="See docs/PROTOCOL.md for the messages of version 1.",
    )


def json_schema() -> dict[str, Any]:
    """Export the JSON Schema of every client message (requests and answers)."""
    schemas, components = msgspec.json.schema_components([wire.Request, wire.Reply])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "homeostat wire protocol, version 1",
        "oneOf": [{"title": "request", **schemas[0]}, {"title": "reply", **schemas[1]}],
        "$defs": dict(components),
    }
