"""Frozen commands of a real executor: they stand still, their time too, and nothing of them is lost."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from homeostat.proto import messages as m
from homeostat.proto.ids import EffectClass, Key
from tests.integration.executor.bench import TASK, Bench

STILL_S = 1.0
DEADLINE_S = 4.0
LOOP = "i=0; until [ -e stop ]; do i=$((i+1)); echo $i >> count; sleep 0.005; done; wc -l < count"


def say(bench: Bench, key: Key, klass: EffectClass, *, halted: bool, timeout_s: float = DEADLINE_S) -> None:
    """As the gate says that a call is frozen or thawed."""
    args = msgspec.json.encode({"command": LOOP})
    where = str(bench.workspace)
    bench.worker.on_message(
        m.Execute(key, TASK, "shell.run", args, klass, where, timeout_s, 1 << 20, True, halted)
    )


def freeze(bench: Bench, key: Key, klass: EffectClass) -> None:
    """Freeze it and wait for the word that it stands still."""
    said = bench.answers(key).count(m.Halted(key))
    say(bench, key, klass, halted=True)
    bench.wait(lambda: bench.answers(key).count(m.Halted(key)) > said)


def ended(bench: Bench, key: Key) -> m.Ended:
    """Wait for its end."""

    def ends() -> list[m.Ended]:
        return [one for one in bench.answers(key) if isinstance(one, m.Ended)]

    bench.wait(ends)
    return ends()[0]


def grown(path: Path, beyond: int) -> bool:
    """Whether the command has written more."""
    return path.exists() and path.stat().st_size > beyond


@pytest.mark.parametrize("pty", [False, True], ids=["pipe", "pty"])
def test_frozen_command_writes_nothing_and_does_not_time_out(own: Bench, pty: bool) -> None:
    """Frozen for longer than its deadline, it stands; thawed, it goes on to its end with no line lost."""
    own.own_workspace()
    count = own.workspace / "count"
    key = own.send("shell.run", "once", command=LOOP, deadline_s=DEADLINE_S, pty=pty)
    own.wait(lambda: grown(count, 20))
    freeze(own, key, "once")
    before = count.stat().st_size
    until = time.monotonic() + DEADLINE_S + 0.5
    own.wait(lambda: time.monotonic() > until)
    assert count.stat().st_size == before
    assert not [one for one in own.answers(key) if isinstance(one, m.Ended)]
    say(own, key, "once", halted=False)
    own.wait(lambda: grown(count, before))
    own.file("stop", "")
    end = ended(own, key)
    lines = count.read_text().split()
    assert end.status == "ok", end
    assert lines == [str(number) for number in range(1, len(lines) + 1)]
    assert end.text.split() == [str(len(lines))]
    assert end.duration_s <= DEADLINE_S, "the time that it stood is none of its own"


def test_frozen_command_is_killed_at_the_rest_of_its_deadline(own: Bench) -> None:
    """The deadline was put off, not lifted."""
    own.own_workspace()
    count = own.workspace / "count"
    key = own.send("shell.run", "once", command=LOOP, deadline_s=DEADLINE_S)
    own.wait(lambda: grown(count, 5))
    freeze(own, key, "once")
    say(own, key, "once", halted=False)
    assert ended(own, key).status == "timeout"


def test_cancelled_frozen_command_is_killed(own: Bench) -> None:
    """SIGKILL reaches what is stopped."""
    own.own_workspace()
    key = own.send("shell.run", "once", command=LOOP)
    own.wait(lambda: grown(own.workspace / "count", 5))
    freeze(own, key, "once")
    own.worker.on_message(m.Abort(key, "cancelled"))
    assert ended(own, key).status == "cancelled"


def test_frozen_call_does_not_begin_before_it_is_let_go(own: Bench) -> None:
    """As a restarted executor is asked to hold it."""
    own.file("stop", "")
    key = own.new_key()
    say(own, key, "staged", halted=True)
    own.wait(lambda: m.Halted(key) in own.answers(key))
    until = time.monotonic() + STILL_S
    own.wait(lambda: time.monotonic() > until)
    assert own.answers(key) == [m.Halted(key)]
    say(own, key, "staged", halted=False)
    own.wait(lambda: len(own.answers(key)) > 1)
    assert isinstance(own.answers(key)[-1], m.Ended | m.StagedDiff)


def test_stop_of_an_executor_does_not_wait_for_what_stands_still(own: Bench) -> None:
    """Nobody would see it end; its sandbox dies with the executor, and its class decides after the thaw."""
    own.own_workspace()
    key = own.send("shell.run", "staged", command="sleep 1000")
    say(own, key, "staged", halted=True)
    own.wait(lambda: m.Halted(key) in own.answers(key))
    own.worker.on_stop(1_000.0)
    own.wait(lambda: own.loop.finished)
