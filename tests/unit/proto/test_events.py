"""A model's arguments as clients see them: an object where every message can carry it, else the text."""

from __future__ import annotations

import json

import msgspec
import pytest

from homeostat.proto import codec, wire
from homeostat.proto.events import DEPTH_LIMIT, arguments


def nested(levels: int) -> bytes:
    """An object with so many levels of arrays and objects, its own counted."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize("raw", [
    b'{"n":100000000000000000000000}',
    b'{"n":-9223372036854775809}',
    b'{"n":1e999}',
    b'{"n":NaN}',
    b'{"t":"\\ud800"}',
    b'{"\\udc00":1}',
    b'{"t":"\xff"}',
    b"[1]",
    b"{",
    b"",
    nested(DEPTH_LIMIT + 1),
    nested(900),
    nested(100_000),
])  # fmt: skip
def test_arguments_stay_text_when_no_message_can_carry_them(raw: bytes) -> None:
    """As they were written, and sayable."""
    shown = arguments(raw)
    assert shown == raw.decode(errors="replace")
    event = wire.Event(position=1, task="t", kind="proposed", at_ns=1, data={"args": shown})
    events = wire.Events(cursor=1, events=[event])
    assert codec.decode_reply(codec.encode(events)) == events


@pytest.mark.parametrize("raw", [
    b'{"n":18446744073709551615,"m":-9223372036854775808,"f":1.5,"t":"\\ud83d\\ude00","z":null,"b":true}',
    nested(DEPTH_LIMIT),
])  # fmt: skip
def test_arguments_are_an_object_up_to_the_bounds(raw: bytes) -> None:
    """And come out as they went in."""
    assert msgspec.msgpack.decode(codec.encode(arguments(raw))) == json.loads(raw)
