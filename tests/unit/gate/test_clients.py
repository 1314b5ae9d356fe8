"""An answer's way to a client, over real sockets: sent, refused in its place, or nobody there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from homeostat.proto import wire
from homeostat.proto.codec import decode_reply
from homeostat.workers.gate.clients import Delivery, Sender

Socket = zmq.Socket[bytes]


@pytest.fixture
def pair() -> Iterator[tuple[Socket, Socket]]:
    """A ROUTER that says who is unreachable, and a client."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.SNDHWM, 2)
        router.bind("inproc://clients")
        dealer.setsockopt(zmq.IDENTITY, b"me")
        dealer.setsockopt(zmq.RCVHWM, 2)
        dealer.connect("inproc://clients")
        yield router, dealer


def test_sender_refuses_what_no_message_can_carry(pair: tuple[Socket, Socket]) -> None:
    """The client hears of it by its request's id, and nothing follows; the gate lives on."""
    router, dealer = pair
    event = wire.Event(position=1, task="t", kind="proposed", at_ns=1, data={"n": 10**24})
    unsayable = wire.Events(rid="w", cursor=1, events=[event])
    assert Sender(router, b"me", False, "local").answer(unsayable) is Delivery.LOST
    refused = decode_reply(dealer.recv())
    assert isinstance(refused, wire.Refused)
    assert (refused.rid, refused.code) == ("w", "unsayable")


def test_sender_tells_a_full_client_from_one_that_is_gone(pair: tuple[Socket, Socket]) -> None:
    """Only the first may be tried again."""
    router, dealer = pair
    sender = Sender(router, b"me", False, "local")
    reply = wire.Cancelled(task="t", status="cancelled")
    assert [sender.answer(reply) for _ in range(5)] == [Delivery.SENT] * 4 + [Delivery.FULL]
    for _ in range(4):
        dealer.recv()
    assert sender.answer(reply) is Delivery.SENT
    assert Sender(router, b"nobody", False, "local").answer(reply) is Delivery.LOST
