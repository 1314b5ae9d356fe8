"""Answers to clients over a real journal: keys, pages, watches, and nothing promised before the sync."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from homeostat.proto import records as r, wire
from homeostat.proto.codec import encode
from homeostat.workers.gate import requests as module
from homeostat.workers.gate.clients import Delivery, Sender
from homeostat.workers.gate.journal.store import Store
from homeostat.workers.gate.peers import Peers
from homeostat.workers.gate.requests import Requests
from homeostat.workers.gate.state import Task
from homeostat.workers.gate.watching import STALLED_S
from tests.unit.gate.core_stand import NOTE, REFUSED, SECOND, SHELL, Stand, call


class Mouth:
    """A client that keeps what it is answered."""

    principal = "local"

    def __init__(self, *, is_req: bool = False, delivery: Delivery = Delivery.SENT) -> None:
        self.is_req, self.delivery = is_req, delivery
        self.heard: list[Any] = []

    def answer(self, reply: wire.Reply) -> Delivery:
        """Take an answer, or don't."""
        if self.delivery is Delivery.SENT:
            self.heard.append(reply)
        return self.delivery


class NoPeers:
    """No worker is there."""

    def names(self) -> list[str]:
        """Nobody."""
        return []

    def post(self, role: str, index: int, message: Any) -> None:
        """Whatever is said reaches nobody."""

    def mailboxes(self) -> dict[str, int]:
        """Of nobody."""
        return {}


class Desk:
    """Requests over a core and a journal; writes rounds as the shell does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stand = Stand()
        self.store = Store.open(folder, journal_id=b"0123456789abcdef")
        self._open()

    def _open(self) -> None:
        peers = cast("Peers", NoPeers())
        self.requests = Requests(self.stand.core, self.store, peers, str(self.folder))

    def say(self, request: wire.Request, mouth: Mouth | None = None) -> Mouth:
        """A client says something."""
        mouth = mouth or Mouth()
        self.requests.take(cast("Sender", mouth), encode(request), self.stand.now_ns, 0.0)
        return mouth

    def commit(self) -> None:
        """Write until nothing is owed, then tell."""
        while True:
            done = self.stand.write()
            if not done.empty():
                with self.store.begin() as batch:
                    for _, task_id in done.new_tasks:
                        batch.new_task(task_id)
                    for one in done.records:
                        batch.append(one.task_no, one.seq, r.encode_record(one.record))
                    for number in (*done.heads, *done.ended):
                        batch.put_head(number, self.stand.heads[number])
                    for key, number in done.submissions:
                        batch.put_key(key, number.to_bytes(8, "big"))
                    batch.commit()
            self.requests.flush()
            if not self.stand.core.owes and self.stand.core.round.empty():
                return
            self.stand.core.committed(self.stand.now_ns)

    def restart(self) -> None:
        """A new gate on the same journal."""
        self.store.close()
        self.store = Store.open(self.folder)
        self.stand.restart()
        self._open()

    def submit(self, **fields: Any) -> Task:
        """Submit a task and have it on disk."""
        mouth = self.say(wire.Submit(objective="o", **fields))
        self.commit()
        return self.stand.core.by_id[mouth.heard[0].task]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """An empty home's desk."""
    desk = Desk(tmp_path / "journal")
    yield desk
    desk.store.close()


def test_submit_is_answered_after_the_sync(desk: Desk) -> None:
    """Before it, silence."""
    mouth = desk.say(wire.Submit(rid="1", objective="o"))
    assert mouth.heard == []
    desk.commit()
    (reply,) = mouth.heard
    assert (reply.rid, reply.created, reply.status) == ("1", True, "queued")


def test_submit_with_the_same_key_gives_the_same_task(desk: Desk) -> None:
    """Within one round, in a later one, after a restart, and after the task has ended."""
    mouths = [desk.say(wire.Submit(objective="o", key="k")) for _ in range(2)]
    desk.commit()
    mouths.append(desk.say(wire.Submit(objective="o", key="k")))
    desk.commit()
    desk.restart()
    mouths.append(desk.say(wire.Submit(objective="o", key="k")))
    desk.say(wire.Cancel(task=mouths[0].heard[0].task))
    desk.commit()
    mouths.append(desk.say(wire.Submit(objective="o", key="k")))
    desk.commit()
    replies = [mouth.heard[0] for mouth in mouths]
    assert len({reply.task for reply in replies}) == 1
    assert [reply.created for reply in replies] == [True, False, False, False, False]
    assert replies[-1].status == "cancelled"
    assert desk.stand.core.next_task_no == 2


def test_submit_without_a_key_is_a_task_each_time(desk: Desk) -> None:
    """No key, no claim."""
    assert desk.submit().id != desk.submit().id


def test_get_gives_steps_in_pages(desk: Desk) -> None:
    """next_step leads through; the last page says 0."""
    task = desk.submit()
    for _ in range(5):
        desk.stand.propose(task, NOTE)
        desk.commit()
    seen: list[int] = []
    start = 0
    for _ in range(3):
        (page,) = desk.say(wire.Get(task=task.id, from_step=start, limit=2)).heard
        seen += [one.step for one in page.steps]
        start = page.next_step
    assert (seen, start) == ([0, 1, 2, 3, 4], 0)
    (page,) = desk.say(wire.Get(task=task.id)).heard
    (call,) = page.steps[0].calls
    assert (call.tool, call.klass, call.verdict, call.args) == ("task.note", "once", "admit", {"text": "x"})
    assert call.outcome is not None
    assert (call.outcome.status, call.outcome.text) == ("ok", "noted")


def test_get_shows_a_refusal_with_its_stage_and_reason(desk: Desk) -> None:
    """No outcome, but why."""
    task = desk.submit()
    desk.stand.propose(task, REFUSED)
    desk.commit()
    (page,) = desk.say(wire.Get(task=task.id)).heard
    (call,) = page.steps[0].calls
    assert (call.verdict, call.stage, call.rule, call.outcome) == ("deny", "allowlist", "unknown_tool", None)


def test_list_gives_pages_newest_first_and_filters(desk: Desk) -> None:
    """The answer's next leads through to 0."""
    tasks = [desk.submit() for _ in range(5)]
    desk.say(wire.Cancel(task=tasks[1].id))
    desk.commit()
    seen: list[str] = []
    before = 0
    for _ in range(4):
        (page,) = desk.say(wire.List(limit=2, before=before)).heard
        seen += [row.task for row in page.tasks]
        before = page.next
        if not before:
            break
    assert seen == [task.id for task in reversed(tasks)]
    (page,) = desk.say(wire.List(status="cancelled")).heard
    assert [row.task for row in page.tasks] == [tasks[1].id]


def test_pages_end_at_their_bytes_and_lead_through(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of large steps or rows is a short one; nothing is left out, and each has at least one."""
    monkeypatch.setattr(module, "PAGE_BYTES", 5_000)
    task = desk.submit()
    for _ in range(6):
        desk.stand.propose(task, call(args='{"text": "%s"}' % ("x" * 3_000)))
        desk.commit()
    pages: list[wire.Task] = []
    while not pages or pages[-1].next_step:
        pages += desk.say(wire.Get(task=task.id, from_step=pages[-1].next_step if pages else 0)).heard
    assert [[step.step for step in page.steps] for page in pages] == [[0, 1], [2, 3], [4, 5]]
    more = [desk.stand.core.by_id[mouth.heard[0].task] for mouth in _long_submits(desk, 3)]
    first = desk.say(wire.List()).heard[0]
    rest = desk.say(wire.List(before=first.next)).heard[0]
    assert [row.task for row in first.tasks] == [more[2].id, more[1].id]
    assert ([row.task for row in rest.tasks], rest.next) == ([more[0].id, task.id], 0)


def _long_submits(desk: Desk, count: int) -> list[Mouth]:
    mouths = [desk.say(wire.Submit(objective="o" * 3_000)) for _ in range(count)]
    desk.commit()
    return mouths


def test_list_leaves_out_what_is_not_on_disk_yet(desk: Desk) -> None:
    """A list behind a submit in the same round is answered with what is safe."""
    task = desk.submit()
    desk.say(wire.Submit(objective="o"))
    (page,) = desk.say(wire.List()).heard
    assert [row.task for row in page.tasks] == [task.id]


@pytest.mark.parametrize("limit", [0, -1, 1_001])
def test_pages_are_bounded(desk: Desk, limit: int) -> None:
    """Every request that has a limit."""
    task = desk.submit()
    for request in (wire.Get(task=task.id, limit=limit), wire.List(limit=limit), wire.Watch(limit=limit)):
        (refused,) = desk.say(request).heard
        assert (refused.code, refused.field) == ("bad_field", "limit")


def test_watch_goes_on_from_its_cursor(desk: Desk) -> None:
    """Batches add up to the whole, none twice, and ended comes with the last."""
    task = desk.submit()
    desk.stand.propose(task, NOTE)
    desk.commit()
    desk.stand.finish(task)
    desk.commit()
    kinds: list[str] = []
    cursor, ended = 0, False
    while not ended:
        (batch,) = desk.say(wire.Watch(task=task.id, cursor=cursor, limit=2)).heard
        assert len(batch.events) <= 2
        kinds += [event.kind for event in batch.events]
        cursor, ended = batch.cursor, batch.ended
    assert kinds == ["accepted", "status", "proposed", "decided", "outcome", "status"]


def test_watch_is_not_ended_before_the_last_event_is_on_disk(desk: Desk) -> None:
    """A task that ended in this round still has its last event to come."""
    task = desk.submit()
    mouth = Mouth()
    desk.say(wire.Watch(task=task.id, follow=True), mouth)
    desk.stand.finish(task)
    (early,) = desk.say(wire.Watch(task=task.id)).heard
    assert not early.ended
    desk.requests.feed_watches(0.0)
    desk.commit()
    desk.requests.feed_watches(0.0)
    assert [event.kind for batch in mouth.heard for event in batch.events] == ["accepted", "status"]
    assert [batch.ended for batch in mouth.heard] == [False, True]
    assert not desk.requests.watching


def test_watch_is_held_back_until_there_is_news_or_its_time_is_over(desk: Desk) -> None:
    """wait_s answers at once with news, with nothing when it is over."""
    task = desk.submit()
    last = desk.store.last_position
    news, none = (
        desk.say(wire.Watch(cursor=last, wait_s=5.0)),
        desk.say(wire.Watch(cursor=last + 9, wait_s=5.0)),
    )
    assert (news.heard, none.heard) == ([], [])
    assert desk.requests.next_due() == 5.0
    desk.stand.propose(task, NOTE)
    desk.commit()
    desk.requests.feed_watches(1.0)
    assert len(news.heard) == 1
    desk.requests.feed_watches(5.0)
    assert len(none.heard) == 1
    assert desk.requests.next_due() is None


def test_watch_from_far_back_lets_others_in_between(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded number of batches a round; it is due again at once."""
    monkeypatch.setattr(module, "BATCHES_AT_ONCE", 2)
    task = desk.submit()
    for _ in range(5):
        desk.stand.propose(task, NOTE)
        desk.commit()
    mouth = desk.say(wire.Watch(task=task.id, follow=True, limit=1))
    assert (len(mouth.heard), desk.requests.next_due()) == (2, 0.0)
    while desk.requests.next_due() is not None:
        desk.requests.feed_watches(0.0)
    positions = [event.position for batch in mouth.heard for event in batch.events]
    assert positions == [record.position for record in desk.store.task_records(task.no)]


def test_watch_of_a_client_that_is_gone_is_dropped(desk: Desk) -> None:
    """Nobody is there to tell."""
    desk.submit()
    desk.say(wire.Watch(follow=True), Mouth(delivery=Delivery.LOST))
    assert not desk.requests.watching


def test_watch_of_a_client_that_reads_late_loses_nothing(desk: Desk) -> None:
    """What it can't take now it gets when it reads again, in order; until then it is asked at its pace."""
    task = desk.submit()
    desk.stand.propose(task, NOTE)
    desk.commit()
    for watch in (wire.Watch(follow=True), wire.Watch(task=task.id, follow=True)):
        mouth = desk.say(watch, Mouth(delivery=Delivery.FULL))
        assert desk.requests.next_due() == STALLED_S
        mouth.delivery = Delivery.SENT
        desk.requests.feed_watches(0.0)
        assert mouth.heard == [], "it is not pestered before its pause is over"
        desk.requests.feed_watches(STALLED_S)
        positions = [event.position for batch in mouth.heard for event in batch.events]
        assert positions == [record.position for record in desk.store.scan(1, 100, 1 << 20)]
        desk.requests._watches.clear()


def test_watch_of_a_client_that_never_reads_is_given_up(desk: Desk) -> None:
    """After pauses that double: whatever waits has an end."""
    desk.submit()
    desk.say(wire.Watch(follow=True), Mouth(delivery=Delivery.FULL))
    pauses, now_s = 0, 0.0
    while (due := desk.requests.next_due()) is not None:
        assert due > now_s
        pauses, now_s = pauses + 1, due
        desk.requests.feed_watches(now_s)
    assert not desk.requests.watching
    assert (pauses, now_s < 60) == (9, True)


def test_watches_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a time to come back."""
    monkeypatch.setattr(module, "WATCHES_LIMIT", 1)
    desk.say(wire.Watch(cursor=5, follow=True))
    (refused,) = desk.say(wire.Watch(cursor=5, follow=True)).heard
    assert (refused.code, refused.retry_after_s) == ("overload", 1.0)


def test_status_counts_tasks_by_status(desk: Desk) -> None:
    """Open and ended ones, also after a restart."""
    desk.submit()
    desk.say(wire.Cancel(task=desk.submit().id))
    desk.commit()
    desk.restart()
    (reply,) = desk.say(wire.Status()).heard
    assert (reply.tasks["open"], reply.tasks["queued"], reply.tasks["cancelled"]) == (1, 1, 1)
    assert reply.position == desk.store.last_position


def test_status_lists_the_oldest_and_the_newest_open_tasks(desk: Desk) -> None:
    """Oldest first, half of each where there are more than asked for; none unless asked for."""
    ids = [desk.submit().id for _ in range(5)]
    desk.say(wire.Cancel(task=ids.pop(1)))
    desk.commit()
    asked = {limit: desk.say(wire.Status(open_limit=limit)).heard[0].open for limit in (0, 1, 3, 4, 9)}
    assert {limit: [row.task for row in rows] for limit, rows in asked.items()} == {
        0: [],
        1: ids[-1:],
        3: [ids[0], *ids[-2:]],
        4: ids,
        9: ids,
    }
    assert (asked[4][0].status, asked[4][0].step, asked[4][0].tool) == ("queued", 0, "")


def test_status_names_the_call_under_way(desk: Desk) -> None:
    """Of the step at hand; an ended call is none."""
    task = desk.submit()
    desk.stand.propose(task, SHELL)
    desk.commit()
    (row,) = desk.say(wire.Status(open_limit=1)).heard[0].open
    assert (row.task, row.status, row.tool) == (task.id, "running", "shell.run")


@pytest.mark.parametrize("limit", [-1, 1_001])
def test_status_refuses_a_limit_out_of_bounds(desk: Desk, limit: int) -> None:
    """It names the field."""
    (refused,) = desk.say(wire.Status(open_limit=limit)).heard
    assert (refused.code, refused.field) == ("bad_field", "open_limit")


def test_status_tells_the_size_of_the_journal(desk: Desk) -> None:
    """It is that of the file, to a page that is about to be written."""
    (before,) = desk.say(wire.Status()).heard
    for _ in range(20):
        desk.submit(workspace="")
    (after,) = desk.say(wire.Status()).heard
    assert after.journal_bytes > before.journal_bytes > 0
    assert after.journal_bytes <= (desk.folder / "data.mdb").stat().st_size


def test_unknown_task_is_refused_by_name(desk: Desk) -> None:
    """Get and watch."""
    for request in (wire.Get(task="tnobody"), wire.Watch(task="tnobody"), wire.Get(task="")):
        (refused,) = desk.say(request).heard
        assert (refused.code, refused.field) == ("unknown_task", "task")


def test_resolve_and_cancel_are_answered_after_the_sync(desk: Desk) -> None:
    """What a person decided is on disk when they are told so."""
    task = desk.submit()
    desk.stand.now_ns += SECOND
    mouth = desk.say(wire.Cancel(task=task.id, reason="enough"))
    assert mouth.heard == []
    desk.commit()
    assert [reply.status for reply in mouth.heard] == ["cancelled"]
    (page,) = desk.say(wire.Get(task=task.id)).heard
    assert (page.task.status, page.task.reason) == ("cancelled", "enough")
