from __future__ import annotations

from typing import Any

import msgspec
import pytest

from homeostat.proto.config import Connection
from homeostat.proto.ids import Key, TaskId
from homeostat.proto.messages import Abort, Ended, Execute, Forget
from homeostat.workers.database import calls as c, core
from homeostat.workers.database.core import Core

LITE = Connection("lite", "sqlite:////srv/a.db", write=True, statement_s=7, rows=50)
SERVER = Connection("server", "postgresql://u@h/d", write=True)
READ_ONLY = Connection("ro", "postgresql://u@h/d")


def ask(key: str, tool: str = "db.query", on: str = "server", **more: Any) -> Execute:
    """A call."""
    execute = Execute(
        Key(key),
        TaskId("t1"),
        tool,
        msgspec.json.encode({"connection": on, "sql": "select 1"} | more.pop("args", {})),
        "witnessed" if tool == "db.execute" else "read",
        "/w",
        more.pop("timeout_s", 20.0),
        1_000,
    )
    return msgspec.structs.replace(execute, **more)


@pytest.fixture
def made() -> Core:
    """A core with three connections."""
    return Core((LITE, SERVER, READ_ONLY))


def runs(effects: list[c.Effect]) -> list[c.Job]:
    """The jobs that are begun."""
    return [effect.job for effect in effects if isinstance(effect, c.Run)]


def said(effects: list[c.Effect]) -> list[tuple[str, str]]:
    """The outcomes that are told: key and status."""
    return [(effect.message.key, effect.message.status) for effect in effects if isinstance(effect, c.Post)]


def test_a_call_is_begun_within_its_limits(made: Core) -> None:
    """Its statement's time and rows are the least of what call, connection and model allow."""
    effects = made.handle(ask("a", on="lite", args={"limit": 80}, timeout_s=30.0))
    assert effects[0] == c.Later(Key("a"), 30.0)
    (job,) = runs(effects)
    assert (job.statement_s, job.left_s, job.rows, job.limit_bytes, job.writes) == (7, 30.0, 50, 1_000, False)


@pytest.mark.parametrize(
    ("execute", "status", "words"),
    [
        (ask("a", "db.drop"), "error", "no tool"),
        (ask("a", on="none"), "error", "no connection 'none'"),
        (ask("a", args={"sql": 5}), "error", "bad arguments"),
        (ask("a", args={"more": 5}), "error", "bad arguments"),
        (ask("a", "db.execute", on="ro"), "error", "only read"),
        (ask("a", "db.execute", on="none", resumed=True), "in_doubt", "no connection"),
        (ask("a", "db.execute", on="ro", resumed=True), "in_doubt", "only read"),
    ],
)
def test_what_can_not_be_meant_is_answered_at_once(
    made: Core, execute: Execute, status: str, words: str
) -> None:
    """And what can't be looked up any more is in doubt, not refused."""
    effects = made.handle(execute)
    (post,) = effects
    assert isinstance(post, c.Post)
    assert post.message.status == status
    assert words in post.message.text


def test_a_key_runs_once_and_is_answered_until_it_is_forgotten(made: Core) -> None:
    """A new gate may ask again while it runs, and after it."""
    assert runs(made.handle(ask("a", "db.execute")))
    assert made.handle(ask("a", "db.execute", resumed=True)) == []
    done = c.Done(Key("a"), c.Result(c.How.OK, "1 row changed", "note", 0.5))
    told = Ended(Key("a"), "ok", "1 row changed", output_bytes=13, duration_s=0.5, note="note")
    assert made.handle(done) == [c.Post(told)]
    assert made.handle(ask("a", "db.execute", resumed=True)) == [c.Post(told)]
    made.handle(Forget(Key("a")))
    assert runs(made.handle(ask("a", "db.execute", resumed=True)))


def test_few_run_at_once_and_the_others_follow(made: Core) -> None:
    """So many in all, so many of a connection, one writer of a SQLite file."""
    begun = [made.handle(ask(f"s{n}", on="server")) for n in range(6)]
    assert [len(runs(effects)) for effects in begun] == [1, 1, 1, 1, 0, 0]
    begun = [made.handle(ask(f"w{n}", "db.execute", on="lite")) for n in range(2)]
    begun += [made.handle(ask(f"r{n}", on="lite")) for n in range(3)]
    assert [len(runs(effects)) for effects in begun] == [1, 0, 1, 1, 1]
    assert runs(made.handle(ask("ro", on="ro"))) == []
    ok = c.Result(c.How.OK, "")
    assert [job.key for job in runs(made.handle(c.Done(Key("w0"), ok)))] == ["w1"]
    assert [job.key for job in runs(made.handle(c.Done(Key("s1"), ok)))] == ["s4"]


@pytest.mark.parametrize("event", [Abort(Key("a"), "cancelled"), c.Overdue(Key("a"))])
def test_a_running_call_is_interrupted_and_told_how_it_ended(made: Core, event: Any) -> None:
    """Once, and by what the job says: what was committed counts."""
    made.handle(ask("a", "db.execute"))
    assert made.handle(event) == [c.Interrupt(Key("a"))]
    assert made.handle(event) == []
    status = "timeout" if isinstance(event, c.Overdue) else "cancelled"
    assert said(made.handle(c.Done(Key("a"), c.Result(c.How.STOPPED, "")))) == [("a", status)]
    made.handle(ask("b", "db.execute"))
    made.handle(Abort(Key("b"), "cancelled"))
    assert said(made.handle(c.Done(Key("b"), c.Result(c.How.OK, "")))) == [("b", "ok")]


def test_a_waiting_call_ends_at_once_unless_it_may_have_happened(made: Core) -> None:
    """One that was begun before is looked up first."""
    for number in range(4):
        made.handle(ask(f"s{number}"))
    made.handle(ask("new", "db.execute"))
    made.handle(ask("old", "db.execute", resumed=True))
    assert said(made.handle(Abort(Key("new"), "cancelled"))) == [("new", "cancelled")]
    (job,) = runs(made.handle(Abort(Key("old"), "cancelled")))
    assert job.settle
    assert said(made.handle(c.Done(Key("old"), c.Result(c.How.IN_DOUBT, "?")))) == [("old", "in_doubt")]


def test_a_halted_call_waits_for_its_word(made: Core) -> None:
    """It is not begun until it is asked for again without that."""
    assert runs(made.handle(ask("a", halted=True))) == []
    assert [job.key for job in runs(made.handle(ask("a")))] == ["a"]


def test_a_stop_leaves_what_was_not_committed_to_the_next(made: Core) -> None:
    """It is interrupted and not told of; nothing new is begun; what had ended is told."""
    made.handle(ask("a", "db.execute"))
    made.handle(ask("b", "db.execute"))
    assert made.handle(c.Stopping()) == [c.Interrupt(Key("a")), c.Interrupt(Key("b"))]
    assert runs(made.handle(ask("c"))) == []
    assert made.handle(c.Done(Key("a"), c.Result(c.How.STOPPED, ""))) == []
    effects = made.handle(c.Done(Key("b"), c.Result(c.How.OK, "done")))
    assert said(effects) == [("b", "ok")]
    assert effects[-1] == c.Leave()


def test_waiting_calls_are_bounded(made: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that a call is refused with words."""
    monkeypatch.setattr(core, "WAITING_LIMIT", 2)
    answers = [said(made.handle(ask(f"k{n}"))) for n in range(7)]
    assert answers[:6] == [[]] * 6
    assert answers[6] == [("k6", "error")]
