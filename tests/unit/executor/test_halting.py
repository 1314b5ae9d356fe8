"""A frozen call in the executor's core: not begun, stopped where it runs, its deadline standing still."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from homeostat.proto import messages as m
from homeostat.proto.ids import EffectClass
from homeostat.workers.executor import calls as c
from homeostat.workers.executor.core import Executor
from tests.unit.executor.test_core import DIFF, OUTPUT, asked, ended, entry, key, posted


def halted(event: c.Asked, *, on: bool = True) -> c.Asked:
    """The same call, to stand still (or to go on)."""
    return replace(event, execute=msgspec.structs.replace(event.execute, resumed=True, halted=on))


def kinds(effects: list[c.Effect]) -> list[str]:
    """The effects by name, words to the gate by theirs."""
    return [type(one.message if isinstance(one, c.Post) else one).__name__ for one in effects]


def running(executor: Executor, **fields: Any) -> c.Asked:
    """A call whose command runs since time 0."""
    event = asked(**fields)
    executor.asked(event, 0.0)
    executor.happened(c.Launched(event.execute.key, ""), 0.0)
    return event


@pytest.mark.parametrize("klass", ["staged", "once", "read"])
def test_halted_call_is_not_begun_and_begins_when_it_is_let_go(klass: EffectClass) -> None:
    """A restarted executor is asked to hold it: nothing is written down of a call that has not begun."""
    executor = Executor()
    event = halted(asked(klass=klass))
    assert kinds(executor.asked(event, 0.0)) == ["Halted"]
    assert kinds(executor.asked(event, 1.0)) == ["Halted"], "said again, it is answered again"
    begun = executor.asked(halted(event, on=False), 2.0)
    assert "Launch" in kinds(begun)


def test_running_call_stands_still_when_its_sandbox_says_so() -> None:
    """Freeze, then Halted at the sandbox's word; Thaw lets it go on; both once."""
    executor = Executor()
    event = running(executor)
    assert kinds(executor.asked(halted(event), 1.0)) == ["Freeze"]
    assert executor.asked(halted(event), 1.0) == []
    assert kinds(executor.happened(c.Stopped(key()), 2.0)) == ["Halted"]
    assert kinds(executor.asked(halted(event), 3.0)) == ["Halted"]
    assert kinds(executor.asked(halted(event, on=False), 4.0)) == ["Thaw"]
    assert executor.asked(halted(event, on=False), 5.0) == []
    assert executor.happened(c.Stopped(key()), 6.0) == [], "an answer that comes too late"


def test_halted_call_does_not_time_out_and_keeps_what_was_left() -> None:
    """Neither the call's deadline nor the command's own limit comes nearer; nor does its duration grow."""
    executor = Executor()
    event = running(executor, timeout_s=60.0, limit_s=10.0)
    executor.asked(halted(event), 4.0)
    assert executor.next_deadline() is None
    assert executor.expire(1_000.0) == []
    executor.asked(halted(event, on=False), 1_004.0)
    assert executor.next_deadline() == pytest.approx(1_010.0)
    executor.happened(c.Exited(key(), 0, None), 1_006.0)
    executor.happened(c.Closed(key(), OUTPUT), 1_006.0)
    last = executor.happened(c.DiffRead(key(), replace_total(0)), 1_006.0)
    assert ended(last).duration_s == pytest.approx(6.0)


def replace_total(total: int) -> Any:
    """A diff with so many changes."""
    return msgspec.structs.replace(DIFF, total=total)


def test_halted_call_is_timed_out_after_it_was_let_go() -> None:
    """The deadline is only put off."""
    executor = Executor()
    event = running(executor, timeout_s=5.0)
    executor.asked(halted(event), 4.0)
    executor.asked(halted(event, on=False), 100.0)
    assert executor.expire(100.5) == []
    assert kinds(executor.expire(101.5)) == ["Kill"]


def test_halted_call_is_killed_by_an_abort() -> None:
    """A cancel does not wait for the thaw."""
    executor = Executor()
    running(executor)
    executor.asked(halted(asked()), 1.0)
    assert kinds(executor.abort(m.Abort(key(), "cancelled"), None, 2.0)) == ["Kill"]
    executor.happened(c.Exited(key(), None, 9), 2.0)
    assert ended(executor.happened(c.Closed(key(), OUTPUT), 2.0)).status == "cancelled"
    executor.asked(halted(asked(2)), 3.0)
    assert ended(executor.abort(m.Abort(key(2), "cancelled"), None, 4.0)).status == "cancelled"


def test_halted_calls_take_no_ones_place() -> None:
    """However many stand still, others run; one that holds its workspace still does."""
    executor = Executor(most_running=1)
    running(executor, workspace="/a")
    assert kinds(executor.asked(asked(2, workspace="/b"), 0.0)) == []
    launched = kinds(executor.asked(halted(asked(workspace="/a")), 1.0) + executor.asked(asked(3), 1.0))
    assert launched.count("Launch") == 1
    assert "Launch" not in kinds(executor.asked(asked(4, workspace="/a"), 1.0))


def test_diff_that_is_read_while_halted_is_shown_again_when_it_is_let_go() -> None:
    """What has ended is put away; the gate hears that nothing moves, and decides after the thaw."""
    executor = Executor()
    event = running(executor)
    executor.happened(c.Exited(key(), 0, None), 1.0)
    assert executor.asked(halted(event), 1.0) == []
    executor.happened(c.Closed(key(), OUTPUT), 1.0)
    assert kinds(executor.happened(c.DiffRead(key(), DIFF), 1.0)) == ["Record", "StagedDiff", "Halted"]
    again = executor.asked(halted(event, on=False), 2.0)
    assert posted(again) == [m.StagedDiff(key(), DIFF)]


def test_halted_merge_with_its_commit_record_is_completed() -> None:
    """Found after a restart while frozen: half a merge is no state to stand still in."""
    executor = Executor()
    event = halted(asked(stage="committed", entry=entry("merging", "staged")))
    assert kinds(executor.asked(event, 0.0)) == ["RollForward"]
    assert isinstance(posted(executor.happened(c.MergeEnded(key()), 1.0))[-1], m.Ended)


def test_halted_once_call_that_was_begun_is_in_doubt_at_once() -> None:
    """Its sandbox died with the executor; nothing will make it known, thaw or not."""
    executor = Executor()
    event = halted(asked(klass="once", entry=entry("started", "once")))
    assert ended(executor.asked(event, 0.0)).status == "in_doubt"


def test_executor_with_stopped_sandboxes_alone_may_leave() -> None:
    """Nobody would see them end."""
    executor = Executor()
    event = running(executor)
    assert not executor.idle()
    executor.asked(halted(event), 1.0)
    assert executor.idle()
