"""What outlives its call: live terminals under a freeze, leaves of the courier, connections."""

from __future__ import annotations

import pytest

from homeostat.proto import messages as m, records as r
from homeostat.proto.config import Agent, Egress
from homeostat.proto.ids import Key
from homeostat.workers.gate.state import Task
from tests.unit.gate.core_stand import CHAT, SHELL, Stand, call, started

OUT = Agent(name="default", provider="chat", egress=(Egress("api.example.org"),))
OPEN = call("terminal.open", '{"network": true}')
CURL = call("shell.run", '{"command": "curl", "network": true}')
CLOSE = call("terminal.close", '{"terminal": "a"}')


def opened() -> tuple[Stand, Task, Key]:
    """A task with a live terminal that has a way out."""
    stand, task = started(OUT)
    stand.propose(task, OPEN)
    stand.commit()
    key = stand.open_call(task).key
    stand.ended(key)
    stand.commit()
    return stand, task, key


def test_courier_is_told_before_the_command_that_may_connect() -> None:
    """After the intent is on disk, and taken back when the call has ended."""
    stand, task = started(OUT)
    stand.propose(task, CURL)
    assert not stand.said(m.Permit)
    stand.commit()
    key = stand.open_call(task).key
    kinds = [type(message) for _, message in stand.sent if isinstance(message, m.Permit | m.Execute)]
    assert kinds == [m.Permit, m.Execute]
    (execute,) = stand.said(m.Execute)
    assert (execute.klass, execute.stage, execute.egress) == ("once", True, True)
    stand.staged(key)
    stand.ended(key)
    stand.commit()
    assert ("courier", m.Forget(key)) in stand.sent


def test_leaves_are_given_again_when_the_courier_was_restarted() -> None:
    """For an open call and for a live terminal; after the task's end for neither."""
    stand, task, terminal = opened()
    stand.propose(task, CURL)
    stand.commit()
    curl = stand.open_call(task).key
    stand.restart()
    stand.sent.clear()
    stand.up("courier")
    stand.commit()
    assert {permit.key for permit in stand.said(m.Permit)} == {terminal, curl}
    stand.up()
    stand.ended(curl)
    stand.finish(stand.task(task))
    stand.commit()
    assert ("courier", m.Forget(terminal)) in stand.sent
    stand.sent.clear()
    stand.up("courier")
    stand.commit()
    assert not stand.said(m.Permit)


@pytest.mark.parametrize(("scope", "name"), [("all", ""), ("agent", "default"), ("tool", "terminal.open")])
def test_live_terminals_stand_still_while_a_freeze_covers_them(scope: str, name: str) -> None:
    """Once told, also by a gate that was restarted meanwhile; then told to go on."""
    stand, _, _ = opened()
    stand.core.freeze(scope, name, "local", "", stand.now_ns)
    stand.commit()
    assert [hold.on for hold in stand.said(m.HoldTask)] == [True]
    frozen = stand.core.freezes.encode()
    stand.restart()
    stand.core.restore_freezes(frozen)
    stand.up()
    stand.core.thaw(scope, name, "local", "", stand.now_ns)
    stand.commit()
    assert [hold.on for hold in stand.said(m.HoldTask)] == [True, False]


def test_task_without_terminals_is_told_nothing_when_frozen() -> None:
    """Nobody is woken for nothing."""
    stand, _ = started()
    stand.core.freeze("all", "", "local", "", stand.now_ns)
    stand.commit()
    assert not stand.said(m.HoldTask)


def test_connections_are_recorded_with_their_call_or_with_the_home() -> None:
    """While the call is open, soon after it, and after its task."""
    stand, task = started(OUT)
    stand.propose(task, CURL)
    stand.commit()
    key = stand.open_call(task).key
    one = m.Connection("api.example.org", 443, "192.0.2.1", "CONNECT", "open", "", 3, 4, 0.5)
    stand.core.on_connections(m.Connections(key, task.id, (one,)), stand.now_ns)
    stand.ended(key)
    stand.core.on_connections(m.Connections(key, task.id, (one,), more=7), stand.now_ns)
    stand.finish(stand.task(task))
    stand.commit()
    noted = [x for x in stand.history(task) if isinstance(x, r.Connected)]
    assert [(x.step, x.index, x.verdict) for x in noted] == [
        (0, 0, "open"),
        (0, 0, "open"),
        (0, 0, "more"),
    ]
    stand.core.on_connections(m.Connections(key, task.id, (one,)), stand.now_ns)
    stand.commit()
    last = r.decode_record(stand.records[0][-1])
    assert isinstance(last, r.Connected)
    assert (last.key, last.host) == (key, "api.example.org")


def test_workspace_that_cant_be_staged_makes_calls_once_visibly() -> None:
    """The class falls back, and the outcome says what is missing."""
    stand, task = started(CHAT)
    assert not stand.core.on_unstageable(m.Unstageable("/nobody/works/here", "no overlay"), 0)
    assert stand.core.on_unstageable(m.Unstageable(task.workspace, "no overlay"), 0)
    stand.propose(task, SHELL)
    stand.commit()
    (execute,) = stand.said(m.Execute)
    assert (execute.klass, execute.stage) == ("once", False)
    stand.ended(execute.key, protection="ns7")
    stand.commit()
    (outcome,) = [x for x in stand.history(task) if isinstance(x, r.Outcome)]
    assert outcome.protection == "ns7-overlay"


def test_terminal_that_was_taken_over_is_recorded() -> None:
    """Who had it, from when to when."""
    stand, task, _ = opened()
    for on in (True, False):
        assert not stand.core.on_terminal_taken(m.TerminalTaken(task.id, "a", "local", on), 7, stand.now_ns)
        assert stand.core.on_terminal_taken(m.TerminalTaken(task.id, "a", "local", on), 0, stand.now_ns)
    stand.commit()
    assert [x.on for x in stand.history(task) if isinstance(x, r.TerminalTaken)] == [True, False]


def test_closing_a_terminal_is_decided_on_what_it_changed() -> None:
    """Its stage goes through the second decision, as a command's does."""
    stand, task, _ = opened()
    stand.propose(task, CLOSE)
    stand.commit()
    key = stand.open_call(task).key
    stand.staged(key, r.DiffSummary((), 1_001, 0, 1_001, 0, "gone"))
    stand.commit()
    (discard,) = stand.said(m.Discard)
    assert "mass-deletion" in discard.reason


def test_call_that_was_never_handed_out_is_not_taken_for_begun() -> None:
    """Its courier was away: the next one may carry it out, though it is of class once."""
    stand, task = started(OUT)
    stand.propose(task, call("http.request", '{"url": "https://api.example.org/", "method": "POST"}'))
    stand.commit()
    (execute,) = stand.said(m.Execute)
    assert (execute.klass, execute.resumed) == ("once", False)
    stand.core.unsent(execute)
    stand.sent.clear()
    stand.up("courier")
    stand.commit()
    stand.up("courier")
    stand.commit()
    assert [one.resumed for one in stand.said(m.Execute)] == [False, True]
