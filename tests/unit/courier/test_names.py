"""Whose turn it is at the system's resolver."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator

import pytest

from homeostat.proto.ids import Key
from homeostat.workers.courier import names
from homeostat.workers.courier.names import Names


class Resolver:
    """Hangs for every name that begins with ``slow``, until it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.let_go = threading.Event()

    def __call__(self, host: str) -> list[str]:
        """One address for all."""
        self.asked.append(host)
        if host.startswith("slow"):
            assert self.let_go.wait(60)
        return ["192.0.2.1"]


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    """Lets go at the end."""
    made = Resolver()
    yield made
    made.let_go.set()


def deliver_until(one: Names, told: list[str], count: int) -> None:
    """Have so many answers told."""
    while len(told) < count:
        assert select.select([one.fd], [], [], 30.0)[0], told
        one.deliver()


def test_one_call_does_not_hold_up_the_names_of_another(resolver: Resolver) -> None:
    """A hundred that hang take two threads; what another call asks afterwards is answered."""
    one, told = Names(resolver), list[str]()
    for number in range(100):
        one.ask(Key("greedy"), f"slow{number}", lambda _, __: told.append("slow"))
    for number in range(20):
        one.ask(Key("other"), f"quick{number}", lambda _, __: told.append("quick"))
    deliver_until(one, told, 20)
    assert told == ["quick"] * 20
    assert [host for host in resolver.asked if host.startswith("slow")] == ["slow0", "slow1"]
    resolver.let_go.set()
    deliver_until(one, told, 120)


def test_calls_take_turns(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one thread: the second call's only name is asked before the last of the first call."""
    monkeypatch.setattr(names, "THREADS", 1)
    one, told = Names(resolver), list[str]()
    one.ask(Key("first"), "slow", lambda _, __: told.append("a"))
    while not resolver.asked:
        pass
    for host in ("b", "c"):
        one.ask(Key("first"), host, lambda _, __: told.append("b"))
    one.ask(Key("second"), "d", lambda _, __: told.append("d"))
    resolver.let_go.set()
    deliver_until(one, told, 4)
    assert resolver.asked == ["slow", "b", "d", "c"]


def test_what_is_dropped_is_neither_asked_nor_told(resolver: Resolver) -> None:
    """A session that ended leaves nothing in the queue, and takes nobody's room there."""
    one, told = Names(resolver), list[str]()
    asked = [one.ask(Key("k"), f"slow{number}", lambda _, __: told.append("x")) for number in range(256)]
    for each in asked:
        one.drop(each)
    last = one.ask(Key("k"), "last", lambda _, trouble: told.append(trouble or "last"))
    assert not last.dropped
    resolver.let_go.set()
    deliver_until(one, told, 1)
    assert told == ["last"]
    assert len(resolver.asked) <= 3
