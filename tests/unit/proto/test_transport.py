"""The ZeroMQ shell over real sockets: emptying one, sending to who is gone, waiting without sleeping."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from homeostat.proto import transport
from homeostat.proto.transport import Waiter, drain, send_to

Pair = tuple[zmq.Socket[bytes], zmq.Socket[bytes]]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A DEALER named ``me`` that is connected to a mandatory ROUTER."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    dealer.setsockopt(zmq.IDENTITY, b"me")
    router.bind("inproc://it")
    dealer.connect("inproc://it")
    yield router, dealer
    context.destroy(linger=0)


def test_drain_gives_all_parts_of_all_messages_when_several_wait(pair: Pair) -> None:
    """The sender's identity and every part come as one list, in the order of sending."""
    router, dealer = pair
    dealer.send_multipart((b"", b"one"))
    dealer.send(b"two")
    assert router.poll(10_000)
    assert list(drain(router)) == [[b"me", b"", b"one"], [b"me", b"two"]]


def test_drain_gives_nothing_when_the_socket_is_empty(pair: Pair) -> None:
    """It neither waits nor raises."""
    assert list(drain(pair[0])) == []


def test_drain_leaves_the_rest_when_its_limit_is_reached(pair: Pair) -> None:
    """A flood can't keep the loop in one drain; what is left makes the next wait end at once."""
    router, dealer = pair
    for number in range(5):
        dealer.send(b"%d" % number)
    assert router.poll(10_000)
    assert [parts[-1] for parts in drain(router, 3)] == [b"0", b"1", b"2"]
    poller = zmq.Poller()
    poller.register(router, zmq.POLLIN)
    assert Waiter(poller).poll(10_000) == [(router, zmq.POLLIN)]
    assert [parts[-1] for parts in drain(router)] == [b"3", b"4"]


def test_send_to_raises_when_the_addressee_is_gone(pair: Pair) -> None:
    """Nothing is dropped in silence: the caller learns that nobody has this identity."""
    router, dealer = pair
    dealer.send(b"hello")
    assert router.poll(10_000)
    assert list(drain(router)) == [[b"me", b"hello"]]
    send_to(router, b"me", b"welcome")
    assert dealer.poll(10_000)
    assert list(drain(dealer)) == [[b"welcome"]]
    with pytest.raises(zmq.ZMQError) as caught:
        send_to(router, b"nobody", b"welcome")
    assert caught.value.errno == zmq.EHOSTUNREACH


class SlowPoller(zmq.Poller):
    """Lets a made-up time pass in every look, and notes how long it was asked to wait."""

    def __init__(self, takes_s: float) -> None:
        super().__init__()
        self.takes_s, self.now_s = takes_s, 0.0
        self.asked: list[float | None] = []
        self.answer_at = 0

    def clock(self) -> float:
        """Its own time."""
        return self.now_s

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """Something happens in a wait that may sleep, and in the look with the number ``answer_at``."""
        self.asked.append(timeout)
        self.now_s += self.takes_s
        return [(0, 1)] if timeout != 0 or len(self.asked) == self.answer_at else []


def test_waiter_sleeps_at_once_when_the_last_wait_was_long() -> None:
    """An idle loop never looks: it asks the kernel once, for as long as it may."""
    poller = SlowPoller(transport.BRISK_S)
    waiter = Waiter(poller, poller.clock)
    for _ in range(3):
        waiter.poll(None)
    assert poller.asked == [None, None, None]


def test_waiter_looks_before_it_sleeps_when_the_last_wait_was_short() -> None:
    """It finds what comes meanwhile without having slept."""
    poller = SlowPoller(transport.LOOK_S / 8)
    waiter = Waiter(poller, poller.clock)
    waiter.poll(None)
    poller.answer_at = 4
    assert waiter.poll(None) == [(0, 1)]
    assert poller.asked == [None, 0, 0, 0]


def test_waiter_sleeps_when_it_has_looked_long_enough_and_then_looks_no_more() -> None:
    """Looking is bounded, and ends with the first wait that it did not shorten."""
    poller = SlowPoller(transport.LOOK_S / 2)
    waiter = Waiter(poller, poller.clock)
    waiter.poll(None)
    poller.asked.clear()
    waiter.poll(250)
    assert poller.asked == [0, 0, 250]
    poller.asked.clear()
    waiter.poll(250)
    assert poller.asked == [250]


def test_waiter_only_asks_once_when_it_may_not_wait() -> None:
    """A loop that has more to do is not held back."""
    poller = SlowPoller(transport.LOOK_S / 8)
    waiter = Waiter(poller, poller.clock)
    waiter.poll(None)
    assert waiter.poll(0) == []
    assert poller.asked == [None, 0]
