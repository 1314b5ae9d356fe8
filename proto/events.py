"""A journal record as the ``data`` of a client's event.

Owns: the names of the fields that watchers see.
Must not know: who asks, how records are stored.
Invariant: every record gives plain values that msgpack and JSON both carry; names are only ever added.
Source: DESIGN §13; docs/PROTOCOL.md lists the fields, tests/contract/test_protocol_doc.py holds it to them.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from .records import Call, DiffSummary, Record

_RENAMED = {"klass": "class"}
_HIDDEN = frozenset({"at_ns", "raw"})
"""``at_ns`` is the event's own; ``raw`` is the provider's message, which only the brain can read."""


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
    """The arguments as an object; as text where the model wrote no JSON object."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else raw.decode(errors="replace")


def _fields(struct: msgspec.Struct) -> dict[str, Any]:
    return {
        _RENAMED.get(name, name): _plain(getattr(struct, name))
        for name in struct.__struct_fields__
        if name not in _HIDDEN
    }


def _plain(value: Any) -> Any:
    match value:
        case Call():
            return {**_fields(value), "args": arguments(value.args)}
        case msgspec.Struct():
            return _fields(value)
        case tuple() | list():
            return [_plain(item) for item in value]
        case bytes():
            return value.decode(errors="replace")
        case _:
            return value
