"""The pure part of live terminals: names, limits, turns, holds, and when one has come to rest."""

from __future__ import annotations

import math

import pytest

from homeostat.proto import messages as m
from homeostat.proto.ids import EffectClass, Key, TaskId
from homeostat.proto.settings import Terminals
from homeostat.workers.executor import calls as c
from homeostat.workers.executor.core import Executor
from homeostat.workers.executor.terminals.rest import GRACE_S, QUIET_S, Wait

TASK = TaskId("t1")
LIMITS = Terminals(per_task=2, most=3, life_s=100.0, idle_s=10.0)


def key(number: int) -> Key:
    """The key of a call."""
    return Key(f"{number:032x}")


def asked(number: int, terminal: c.Terminal, *, task: TaskId = TASK, timeout_s: float = 60.0) -> c.Asked:
    """A terminal call as the shell passes it on."""
    klass: EffectClass = "read" if terminal.act == "screen" else "once"
    execute = m.Execute(
        key(number),
        task,
        f"terminal.{terminal.act}",
        b"{}",
        klass,
        "/ws",
        timeout_s,
        1 << 20,
        stage=klass == "once",
    )
    return c.Asked(execute, math.inf, terminal=terminal)


def opened(core: Executor, number: int, *, task: TaskId = TASK, now: float = 0.0) -> str:
    """Open one; its name, or what is said instead."""
    effects = core.asked(asked(number, c.Terminal("open"), task=task), now)
    launches = [effect for effect in effects if isinstance(effect, c.Launch)]
    if not launches:
        return outcome(effects).text
    core.happened(c.Launched(key(number), "ns7"), now)
    core.happened(c.Rested(key(number), "$ "), now)
    return launches[0].terminal


def outcome(effects: list[c.Effect]) -> m.Ended:
    """The one outcome among the effects."""
    [ended] = [one.message for one in effects if isinstance(one, c.Post) and isinstance(one.message, m.Ended)]
    return ended


def of(effects: list[c.Effect], kind: type[c.Effect]) -> list[c.Effect]:
    """Those of one kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def send(core: Executor, number: int, name: str, now: float = 1.0) -> list[c.Effect]:
    """Ask to type."""
    return core.asked(asked(number, c.Terminal("send", name)), now)


def test_terminal_is_on_the_ledger_before_it_is_launched() -> None:
    """The call, and what the next life must know of the terminal."""
    effects = Executor(terminals=LIMITS).asked(asked(1, c.Terminal("open")), 0.0)
    assert [type(effect).__name__ for effect in effects] == ["Record", "Record", "Launch"]


def test_name_is_never_given_twice() -> None:
    """What is meant for a closed terminal reaches no other."""
    core = Executor(terminals=LIMITS)
    assert opened(core, 1) == "t1"
    core.asked(asked(2, c.Terminal("close", "t1", keep=False)), 1.0)
    core.happened(c.TerminalEnded(key(1), None, 9), 1.0)
    core.happened(c.TerminalClosed(key(2), key(1), "", kept=False), 1.0)
    assert opened(core, 3) == "t2"
    assert "there is no terminal t1" in outcome(send(core, 4, "t1")).text


def test_limits_refuse_with_their_reason() -> None:
    """So many a task, so many in all; one that has ended counts for its task alone."""
    core = Executor(terminals=LIMITS)
    assert [opened(core, number) for number in (1, 2)] == ["t1", "t2"]
    assert "2 terminals (t1, t2)" in opened(core, 3)
    assert opened(core, 4, task=TaskId("t2")) == "t1"
    assert "as many as there may be" in opened(core, 5, task=TaskId("t3"))
    core.happened(c.TerminalEnded(key(1), 0, None), 1.0)
    assert opened(core, 6, task=TaskId("t3")) == "t1"
    assert "2 terminals" in opened(core, 7)


def test_calls_are_at_a_terminal_one_after_the_other() -> None:
    """The second types when the first has come to rest; looking needs no turn."""
    core = Executor(terminals=LIMITS)
    opened(core, 1)
    assert of(send(core, 2, "t1"), c.UseTerminal)
    assert not of(send(core, 3, "t1"), c.UseTerminal)
    assert of(core.asked(asked(4, c.Terminal("screen", "t1")), 1.0), c.UseTerminal)
    effects = core.happened(c.Rested(key(2), "first"), 2.0)
    assert [one.execute.key for one in of(effects, c.UseTerminal)] == [key(3)]  # type: ignore[union-attr]


def test_terminals_take_no_place_among_commands_and_hold_no_workspace() -> None:
    """With one place for commands, and a terminal's call under way, a staged command begins."""
    core = Executor(most_running=1, terminals=LIMITS)
    opened(core, 1)
    send(core, 2, "t1")
    execute = m.Execute(key(3), TASK, "shell.run", b"{}", "staged", "/ws", 60.0, 1 << 20)
    assert of(core.asked(c.Asked(execute, math.inf), 1.0), c.Launch)
    closing = core.asked(asked(4, c.Terminal("close", "t1")), 1.0)
    core.happened(c.Rested(key(2), ""), 1.0)
    assert not of(closing, c.CloseTerminal), "its merge needs the workspace for itself"


def test_life_and_idleness_end_the_program_and_a_hold_puts_them_off() -> None:
    """Time that it stood still is none of its own."""
    core = Executor(terminals=LIMITS)
    opened(core, 1)
    assert core.next_deadline() == 10.0
    core.hold_task(m.HoldTask(TASK, on=True), 4.0)
    assert core.next_deadline() is None
    core.hold_task(m.HoldTask(TASK, on=False), 1_000.0)
    assert core.next_deadline() == 1_006.0
    assert core.expire(1_005.0) == []
    assert core.expire(1_006.0) == [c.Kill(key(1))]
    core.happened(c.TerminalEnded(key(1), None, 9), 1_006.0)
    assert "left alone for 10 s (terminals.idle_s)" in outcome(send(core, 2, "t1", 1_007.0)).text


def test_terminal_that_prints_is_not_left_alone() -> None:
    """Whoever has it; nobody is told of it, and printing does not prolong a time that stands still."""
    core = Executor(terminals=LIMITS)
    opened(core, 1)
    assert core.happened(c.Taken(key(1), ""), 9.0) == []
    assert core.next_deadline() == 19.0
    core.hold_task(m.HoldTask(TASK, on=True), 10.0)
    core.happened(c.Taken(key(1), ""), 500.0)
    core.hold_task(m.HoldTask(TASK, on=False), 1_000.0)
    assert core.next_deadline() == 1_010.0
    core.happened(c.Taken(key(1), "alice"), 1_001.0)
    assert core.happened(c.Taken(key(1), "alice"), 1_002.0) == []
    assert of(core.happened(c.Taken(key(1), ""), 1_003.0), c.Post)


def test_held_terminal_takes_no_call_until_it_is_let_go() -> None:
    """Neither typing nor looking."""
    core = Executor(terminals=LIMITS)
    opened(core, 1)
    assert of(core.hold_task(m.HoldTask(TASK, on=True), 1.0), c.HoldTerminal)
    assert core.hold_task(m.HoldTask(TASK, on=True), 1.5) == [], "said again, it changes nothing"
    assert not of(send(core, 2, "t1"), c.UseTerminal)
    assert not of(core.asked(asked(3, c.Terminal("screen", "t1")), 1.0), c.UseTerminal)
    assert len(of(core.hold_task(m.HoldTask(TASK, on=False), 2.0), c.UseTerminal)) == 2


def test_lent_terminal_takes_no_call_of_the_agent_until_it_is_handed_back() -> None:
    """Both are told to the gate; the deadline of a waiting call names who had it."""
    core = Executor(terminals=LIMITS)
    opened(core, 1)
    assert of(core.terminals.lend(m.Lend("token", TASK, "", "alice"), ""), c.LendTerminal)
    [post] = core.happened(c.Taken(key(1), "alice"), 1.0)
    assert post == c.Post(m.TerminalTaken(TASK, "t1", "alice", on=True))
    core.asked(asked(2, c.Terminal("send", "t1"), timeout_s=5.0), 1.0)
    assert not of(send(core, 3, "t1"), c.UseTerminal)
    ended = outcome(core.expire(6.0))
    assert (ended.status, "alice had taken terminal t1 over" in ended.text) == ("timeout", True)
    effects = core.happened(c.Taken(key(1), ""), 7.0)
    assert effects[0] == c.Post(m.TerminalTaken(TASK, "t1", "alice", on=False))
    assert of(effects, c.UseTerminal)


def test_end_of_the_task_kills_and_then_forgets() -> None:
    """Stage and memory go when the program is dead."""
    core = Executor(terminals=LIMITS)
    opened(core, 1)
    assert c.Kill(key(1)) in core.end_task(m.EndTask(TASK), 1.0)
    effects = core.happened(c.TerminalEnded(key(1), None, 9), 2.0)
    assert [type(effect).__name__ for effect in effects] == ["DropTerminal", "Erase", "DiscardStage"]


def test_rewind_ends_the_terminals_and_their_names_begin_anew() -> None:
    """What was opened since never was: the same steps find the same names, though one is still dying."""
    core = Executor(terminals=LIMITS)
    assert [opened(core, 1), opened(core, 2)] == ["t1", "t2"]
    effects = core.undo(m.Undo("token", TASK, "/ws", ()), "/ws", 1.0)
    assert len(of(effects, c.Kill)) == 2
    assert opened(core, 3) == "t1"
    (typed,) = of(send(core, 4, "t1"), c.UseTerminal)
    assert isinstance(typed, c.UseTerminal)
    assert typed.opened_by == key(3)


def test_close_that_is_cut_off_throws_its_stage_away() -> None:
    """Under the key that it has by then."""
    core = Executor(terminals=LIMITS)
    opened(core, 1)
    core.asked(asked(2, c.Terminal("close", "t1")), 1.0)
    core.abort(m.Abort(key(2), "cancelled"), None, 1.5)
    core.happened(c.TerminalEnded(key(1), None, 9), 2.0)
    effects = core.happened(c.TerminalClosed(key(2), key(1), "", kept=True), 2.0)
    assert outcome(effects).status == "cancelled"
    assert of(effects, c.DiscardStage) == [c.DiscardStage(key(2))]


# -- rest -------------------------------------------------------------------------------------------------
def wait(until: float = 2.0, *, is_looking: bool = False) -> Wait:
    """A call that waits from 0 on."""
    return Wait(key(2), key(1), until, is_looking=is_looking)


def test_rest_is_silence_and_no_sign_of_work() -> None:
    """One that is busy is waited for; one that can't be seen is not."""
    for state, rests in (("waiting", True), ("maybe", True), ("unseen", True), ("busy", False)):
        one = wait()
        assert one.check(QUIET_S / 2, 0.0, settled=True, ended=False) == ""
        assert one.check(QUIET_S, 0.0, settled=True, ended=False) == "look"
        assert one.check(QUIET_S, 0.0, settled=True, ended=False) == "", "one look at a time"
        assert one.looked(state, 0.2, 0.0) is rests  # type: ignore[arg-type]


def test_rest_is_not_seen_in_a_look_that_output_overtook() -> None:
    """What was printed since is to be seen too."""
    one = wait()
    one.check(0.2, 0.0, settled=True, ended=False)
    assert one.looked("waiting", 0.3, 0.25) is False


def test_wait_ends_at_its_time_or_when_the_screen_is_drawn() -> None:
    """And a flood can put it off for so long only."""
    one = wait()
    assert one.check(2.0, 1.99, settled=True, ended=False) == "done"
    assert one.check(2.5, 2.49, settled=False, ended=False) == ""
    assert one.check(2.0 + GRACE_S, 2.0, settled=False, ended=False) == "done"


@pytest.mark.parametrize("settled", [True, False])
def test_wait_ends_with_the_program(settled: bool) -> None:
    """As soon as its last words are on the screen."""
    assert (wait().check(0.1, 0.1, settled=settled, ended=True) == "done") is settled


def test_wait_of_what_stands_still_does_not_run_out() -> None:
    """As much is left as before."""
    one = wait()
    one.stand(1.0, still=True)
    one.stand(101.0, still=False)
    assert one.until == 102.0
