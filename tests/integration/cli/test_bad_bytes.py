"""What docs/PROTOCOL.md promises of bytes that are no good, said to a real gate: never silence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from msgspec import msgpack

GOOD = {"type": "status", "v": 1, "rid": "r"}


@pytest.fixture(params=[zmq.DEALER, zmq.REQ], ids=["dealer", "req"])
def socket(request: pytest.FixtureRequest, home: Path) -> Iterator[zmq.Socket[bytes]]:
    """A bare socket of each kind that is served."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(request.param)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, 20_000)
    socket.connect(f"ipc://{home}/run/client.sock")
    yield socket
    socket.close()
    context.term()


def ask(socket: zmq.Socket[bytes], data: bytes) -> dict[str, Any]:
    """One answer."""
    socket.send(data)
    answer: dict[str, Any] = msgpack.decode(socket.recv())
    return answer


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        (b"", "malformed", ""),
        (b"\xc1garbage", "malformed", ""),
        (msgpack.encode([1, 2]), "malformed", ""),
        (b"\x91" * 200_000, "malformed", ""),
        (msgpack.encode({**GOOD, "v": 2}), "version", "v"),
        (msgpack.encode({**GOOD, "v": True}), "version", "v"),
        (msgpack.encode({**GOOD, "type": "destroy"}), "unknown_type", "type"),
        (msgpack.encode({**GOOD, "colour": "green"}), "bad_field", ""),
        (msgpack.encode({**GOOD, "type": "get", "task": 7}), "bad_field", "task"),
        (msgpack.encode({**GOOD, "type": "get", "task": "t", "limit": 0}), "", ""),
        (msgpack.encode({**GOOD, "type": "watch", "limit": 1_001}), "bad_field", "limit"),
        (msgpack.encode({**GOOD, "type": "watch", "cursor": -1}), "bad_field", "cursor"),
        (msgpack.encode({**GOOD, "type": "submit", "objective": " "}), "bad_field", "objective"),
    ],
)
def test_gate_refuses_what_is_wrong(socket: zmq.Socket[bytes], data: bytes, code: str, field: str) -> None:
    """Code and field as on the page, and the next request is served."""
    answer = ask(socket, data)
    assert answer["type"] == "refused"
    assert code in ("", answer["code"])
    assert field in ("", answer["field"])
    assert ask(socket, msgpack.encode(GOOD))["type"] == "status_reply"


def test_gate_refuses_100_megabytes_in_words(socket: zmq.Socket[bytes]) -> None:
    """Far beyond the limit there is still an answer."""
    answer = ask(socket, msgpack.encode({**GOOD, "type": "submit", "objective": "x" * (100 << 20)}))
    assert answer["code"] == "too_large"
    assert ask(socket, msgpack.encode(GOOD))["type"] == "status_reply"
