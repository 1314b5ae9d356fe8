"""A journal record as the ``data`` of a client's event.

Owns: the names of the fields that watchers see.
Must not know: who asks, how records are stored.
Invariant: every record gives plain values that msgpack and JSON both carry; names are only ever added.
Source: DESIGN §13; docs/PROTOCOL.md lists the fields, tests/contract/test_protocol_doc.py holds it to them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .codec import UnsayableError, encode
from .records import Call, DiffSummary, Record

_RENAMED = {"klass": "class"}
_HIDDEN = frozenset({"at_ns", "raw"})
"""``at_ns`` is the event's own; ``raw`` is the provider's message, which only the brain can read."""
DEPTH_LIMIT = 32
"""What is nested deeper is never admitted, and is more than some readers of MessagePack and JSON take."""


def kind_of(record: Record) -> str:
    """The event's kind: the record's tag."""
    return str(record.__struct_config__.tag)


def data_of(record: Record) -> dict[str, Any]:
    """The record's fields by name."""
    return _fields(record)


def diff_data(diff: DiffSummary) -> dict[str, Any]:
    """A diff as clients see it, in events and in answers alike."""
    return _fields(diff)


def arguments(raw: bytes) -> dict[str, Any] | str:
    """The arguments as an object; as text where the model wrote none that a message can carry."""
    try:
        value = msgspec.json.decode(raw)
        if isinstance(value, dict) and not _is_deeper(value, DEPTH_LIMIT):
            encode(value)
            return value
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, UnsayableError):
        pass  # No JSON, or numbers and texts beyond MessagePack's: shown as they were written.
    return raw.decode(errors="replace")


def call_parts(call: Call) -> tuple[dict[str, Any] | str, str]:
    """A call's arguments without the thought, and the thought, wherever the model wrote it."""
    args, thought = arguments(call.args), call.thought
    if isinstance(args, dict) and "thought" in args:
        inside = args.pop("thought")
        thought = thought or str(inside)
    return args, thought


def _is_deeper(value: Any, limit: int) -> bool:
    """Whether objects and arrays are nested in more than ``limit`` levels."""
    if not isinstance(value, dict | list):
        return False
    items = value.values() if isinstance(value, dict) else value
    return limit == 0 or any(_is_deeper(item, limit - 1) for item in items)


def _fields(struct: msgspec.Struct) -> dict[str, Any]:
    return {
        _RENAMED.get(name, name): _plain(getattr(struct, name))
        for name in struct.__struct_fields__
        if name not in _HIDDEN
    }


def _plain(value: Any) -> Any:
    match value:
        case Call():
            args, thought = call_parts(value)
            return {**_fields(value), "args": args, "thought": thought}
        case msgspec.Struct():
            return _fields(value)
        case tuple() | list():
            return [_plain(item) for item in value]
        case bytes():
            return value.decode(errors="replace")
        case _:
            return value
