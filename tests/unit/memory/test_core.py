"""When the memory writes, acknowledges and answers."""

from __future__ import annotations

import pytest

from homeostat.proto.ids import Key, TaskId
from homeostat.proto.messages import Abort, Ended, Execute, Follow, Followed, Forget, Records
from homeostat.workers.memory.core import (
    BATCH_RECORDS,
    PAUSE_S,
    Core,
    Due,
    Paused,
    Post,
    Reopened,
    Search,
    Searched,
    SearchFailed,
    Store,
    Stored,
    StoreLater,
    Welcomed,
)
from tests.fakes.journal import many_steps

ENTRIES = tuple(many_steps(200).entries)
KEY = Key("0" * 32)


def execute(args: bytes = b'{"query":"the parser","limit":3}', tool: str = "memory.recall") -> Execute:
    """A recall."""
    return Execute(KEY, TaskId("t1"), tool, args, "read", "", 30.0, 1 << 20)


def test_core_follows_from_where_its_store_stands() -> None:
    """Every gate is asked afresh; what waited is dropped, for it comes again."""
    core = Core(0)
    core.handle(Records(ENTRIES[:3]))
    assert core.handle(Welcomed(41)) == [Post(Follow("memory.0", 41))]
    assert core.handle(Due()) == []


def test_core_writes_few_records_after_a_pause_and_many_at_once() -> None:
    """One timer at a time; an acknowledgement only after the store has it."""
    core = Core(0)
    assert core.handle(Records(ENTRIES[:2])) == [StoreLater(PAUSE_S)]
    assert core.handle(Records(ENTRIES[2:4])) == []
    assert core.handle(Due()) == [Store(ENTRIES[:4])]
    assert core.handle(Stored(4)) == [Post(Followed("memory.0", 4))]
    assert core.handle(Records(ENTRIES[4 : 4 + BATCH_RECORDS])) == [Store(ENTRIES[4 : 4 + BATCH_RECORDS])]


def test_core_writes_what_waits_before_it_searches() -> None:
    """A recall sees the step before it."""
    core = Core(0)
    core.handle(Records(ENTRIES[:2]))
    assert core.handle(execute()) == [Store(ENTRIES[:2]), Search(KEY, '"parser"', 3, 5.0, 1 << 20)]
    ended = core.handle(Searched(KEY, (), 1 << 20))
    assert ended == [Post(Ended(KEY, "ok", "Nothing is remembered that fits."))]
    failed = core.handle(SearchFailed(KEY, "timeout", "too long"))
    assert failed == [Post(Ended(KEY, "timeout", "too long"))]


@pytest.mark.parametrize(
    "wrong", [execute(b"{"), execute(b'{"query":"x","limit":99}'), execute(tool="memory.erase")]
)
def test_core_ends_a_bad_call_as_an_error(wrong: Execute) -> None:
    """Every Execute is answered."""
    (effect,) = Core(0).handle(wrong)
    assert isinstance(effect, Post)
    assert isinstance(effect.message, Ended)
    assert effect.message.status == "error"


def test_core_takes_nothing_of_the_old_stream_after_it_followed_again() -> None:
    """Records that were under way would leave a gap behind a store that was made anew."""
    core = Core(0)
    core.handle(Records(ENTRIES[:10]))
    assert core.handle(Paused()) == []
    assert core.handle(Records(ENTRIES[10:20])) == []
    assert core.handle(Reopened(0)) == [Post(Follow("memory.0", 0))]
    assert core.handle(Records(ENTRIES[20:30])) == []
    core.handle(Records(ENTRIES[:5]))
    core.handle(Records(ENTRIES[5:8]))
    assert core.handle(Due()) == [Store(ENTRIES[:8])]


def test_core_has_nothing_to_do_when_a_recall_is_aborted_or_forgotten() -> None:
    """It is over by then."""
    assert Core(0).handle(Abort(KEY, "timeout")) == []
    assert Core(0).handle(Forget(KEY)) == []
