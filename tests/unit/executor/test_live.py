"""A live terminal by itself: a real pseudo-terminal, and a program that reads or doesn't."""

from __future__ import annotations

import os
import tty
from collections.abc import Iterator

import pytest

from homeostat.workers.executor.terminals import live as live_module
from homeostat.workers.executor.terminals.live import Live
from tests.fakes.clocked_loop import ClockedLoop

QUESTION = b"\x1b[6n"


class Stand:
    """The terminal, its loop, and the program's end."""

    def __init__(self) -> None:
        self.loop = ClockedLoop()
        self.live = Live(self.loop, 24, 80)
        master, self.program = os.openpty()
        tty.setraw(self.program)
        for fd in (master, self.program):
            os.set_blocking(fd, False)
        self.live.opened(master)

    def print(self, data: bytes) -> None:
        """What the program prints, all of it."""
        while data:
            try:
                data = data[os.write(self.program, data) :]
            except BlockingIOError:
                self.loop._turn(0.01)

    def settle(self) -> None:
        """Until all is on the screen."""
        self.loop._turn(0.01)
        self.loop.run_until(lambda: not self.live._pending)


@pytest.fixture
def stand() -> Iterator[Stand]:
    """One."""
    stand = Stand()
    yield stand
    stand.live.close()
    os.close(stand.program)


def test_answers_to_a_program_that_does_not_read_take_no_memory(stand: Stand) -> None:
    """It asks on and on; what it has not taken is not answered again."""
    for _ in range(60):
        stand.print(QUESTION * 1_000)
        stand.settle()
    assert stand.live._untyped, "its queue is full"
    assert len(stand.live._untyped) <= 4_200


def test_program_that_reads_is_answered(stand: Stand) -> None:
    """As often as it asks."""
    for _ in range(3):
        stand.print(QUESTION)
        stand.settle()
        assert os.read(stand.program, 100) == b"\x1b[1;1R"


def test_person_may_type_until_much_is_untyped(stand: Stand) -> None:
    """And again when the program has read."""
    while stand.live.takes_more:
        stand.live.type(b"x" * 4_096)
    assert len(stand.live._untyped) < 80_000

    def is_read() -> bool:
        try:
            os.read(stand.program, 65_536)
        except BlockingIOError:
            return False
        return stand.live.takes_more

    stand.loop.run_until(is_read)


def test_that_it_prints_is_told_now_and_then(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of every piece."""
    told: list[int] = []
    stand.live.on_print = lambda: told.append(1)
    monkeypatch.setattr(live_module, "_PRINTED_S", 1_000.0)
    for _ in range(5):
        stand.print(b"line\r\n")
        stand.settle()
    assert len(told) == 1
    monkeypatch.setattr(live_module, "_PRINTED_S", 0.0)
    stand.print(b"line\r\n")
    stand.settle()
    assert len(told) >= 2
