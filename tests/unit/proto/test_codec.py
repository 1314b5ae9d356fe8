"""Bytes that are not what they should be: always a typed refusal, never anything else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from homeostat.proto import codec, messages as m, wire
from homeostat.proto.codec import BadRequestError, decode_reply, decode_request, encode
from homeostat.proto.errors import MessageTooLargeError, ProtocolError
from homeostat.proto.ids import TaskId

pack = msgspec.msgpack.encode


def refusal(data: bytes) -> wire.Refused:
    """The refusal with which these bytes are answered."""
    with pytest.raises(BadRequestError) as caught:
        decode_request(data)
    return caught.value.refusal


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"hello", b"\x00", b"\xff" * 64, pack([1, 2]), pack({}), pack({"v": 1}), pack({1: 2})],
)
def test_request_is_refused_as_malformed_when_it_is_no_map_with_a_type(data: bytes) -> None:
    """Garbage gets a refusal that says what was expected."""
    refused = refusal(data)
    assert (refused.code, refused.rid) == ("malformed", "")
    assert "map" in refused.expected


@pytest.mark.parametrize("size", range(len(pack(wire.Get(task="t1", rid="7")))))
def test_request_is_refused_when_truncated(size: int) -> None:
    """No prefix of a request is a request."""
    assert refusal(pack(wire.Get(task="t1", rid="7"))[:size]).code == "malformed"


def test_request_is_refused_when_nested_too_deeply() -> None:
    """Ten thousand arrays in each other are refused like any other garbage."""
    deep = b"\x91" * 10_000 + b"\xc0"
    data = b"\x84" + pack("type") + pack("submit") + pack("v") + pack(1) + pack("rid") + pack("r")
    assert refusal(data + pack("objective") + deep).code in ("malformed", "bad_field")


def test_request_is_refused_with_its_size_when_too_large() -> None:
    """One byte over the limit is too much; the limit itself is not looked at as a size."""
    refused = refusal(b"\x00" * (wire.REQUEST_LIMIT_BYTES + 1))
    assert refused.code == "too_large"
    assert str(wire.REQUEST_LIMIT_BYTES) in refused.expected
    assert refusal(b"\x00" * wire.REQUEST_LIMIT_BYTES).code == "malformed"


@pytest.mark.parametrize("version", [0, 2, -1, "1", None, True, 1.5, [1], 1 << 40])
def test_request_is_refused_by_version_when_it_is_not_1(version: Any) -> None:
    """A future version is named in the refusal, which carries the request's id."""
    refused = refusal(pack({"type": "status", "v": version, "rid": "abc"}))
    assert (refused.code, refused.field, refused.rid, refused.expected) == ("version", "v", "abc", "1")


def test_request_is_refused_by_type_when_unknown() -> None:
    """The refusal lists the types there are."""
    refused = refusal(pack({"type": "explode", "v": 1, "rid": "abc"}))
    assert (refused.code, refused.field, refused.rid) == ("unknown_type", "type", "abc")
    assert "submit" in refused.expected


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"task": 7}, "task"),
        ({"limit": "many"}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"from_step": None}, "from_step"),
        ({"rid": 7}, "rid"),
        ({"rid": None}, "rid"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_request_is_refused_by_field_when_one_is_wrong_or_unknown(change: dict[str, Any], field: str) -> None:
    """The refusal names the very field, be it of a wrong type or one that doesn't exist."""
    refused = refusal(pack({"type": "get", "v": 1, "rid": "abc", "task": "t1", **change}))
    assert refused.code == "bad_field"
    assert field in (refused.field, *refused.message.split("`"))
    assert refused.field == field


def test_request_is_refused_by_field_when_one_is_missing() -> None:
    """So is a missing one."""
    refused = refusal(pack({"type": "get", "v": 1, "rid": "abc"}))
    assert (refused.code, refused.field, refused.rid) == ("bad_field", "task", "abc")


def test_request_refusal_names_a_field_within_a_plan() -> None:
    """The path leads into nested values."""
    plan = {"step": [{"thought": "t", "tool": 5}]}
    refused = refusal(pack({"type": "submit", "v": 1, "rid": "r", "objective": "o", "plan": plan}))
    assert (refused.code, refused.field) == ("bad_field", "plan.step[0].tool")


def test_request_refusal_leaves_out_an_id_that_is_too_long() -> None:
    """A refusal isn't an echo for whatever was sent."""
    assert refusal(pack({"type": "nope", "v": 1, "rid": "x" * 257})).rid == ""


def test_request_types_are_those_of_the_wire() -> None:
    """The list in the refusal can't fall behind the union."""
    tags = {str(one.__struct_config__.tag) for one in wire.Request.__args__}
    assert set(codec.REQUEST_TYPES) == tags


REQUESTS = [
    wire.Submit(objective="o", key="k", rid="1"),
    wire.Get(task="t1"),
    wire.List(status="done"),
    wire.Watch(task="t1", follow=True),
    wire.Cancel(task="t1", reason="r"),
    wire.Resolve(task="t1", key="k", answer="fail"),
    wire.Status(),
]


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_codecs_give_a_message_or_a_protocol_error_when_fed_any_bytes(data: bytes) -> None:
    """Nothing else ever comes out of a decoder."""
    for decode in (
        decode_request,
        decode_reply,
        codec.TO_WORKER.decode,
        codec.FROM_WORKER.decode,
        codec.FROM_SUPERVISOR.decode,
        codec.TO_SUPERVISOR.decode,
        codec.TO_NURSERY.decode,
        codec.FROM_NURSERY.decode,
    ):
        try:
            result = decode(data)
        except ProtocolError:
            continue
        assert isinstance(result, msgspec.Struct)


@given(st.sampled_from(REQUESTS), st.data())
@settings(max_examples=300, deadline=None)
def test_request_gives_a_message_or_a_refusal_when_mutated(
    request: wire.Request, data: st.DataObject
) -> None:
    """Flipped, inserted and cut bytes of valid requests are never silent and never a crash."""
    raw = bytearray(encode(request))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1)) if raw else 0
        what = data.draw(st.sampled_from(["set", "insert", "delete"]))
        byte = data.draw(st.integers(0, 255))
        if what == "set" and raw:
            raw[place] = byte
        elif what == "insert":
            raw.insert(place, byte)
        elif raw:
            del raw[place]
    refused = None
    try:
        decode_request(bytes(raw))
    except BadRequestError as error:
        refused = error.refusal
    if refused is not None:
        assert refused.code in ("malformed", "version", "unknown_type", "bad_field")
        assert decode_reply(encode(refused)) == refused


def test_codec_refuses_a_message_above_its_limit() -> None:
    """Control messages are small; a large one is refused unread."""
    with pytest.raises(MessageTooLargeError):
        codec.TO_SUPERVISOR.decode(b"\x00" * (codec.CONTROL_LIMIT_BYTES + 1))


def test_codec_refuses_words_that_are_not_its_sides() -> None:
    """A brain's word doesn't come out of the decoder for the gate's."""
    drop = encode(m.Drop(TaskId("t")))
    assert codec.TO_WORKER.decode(drop) == m.Drop(TaskId("t"))
    with pytest.raises(ProtocolError):
        codec.FROM_WORKER.decode(drop)
