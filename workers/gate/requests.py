"""Answers to clients: reads, watches, and the way in for what changes something.

Owns: the watches under way. Must not know: sockets (a Sender answers), how tasks live.
Invariant: every request gets exactly one answer (a following DEALER watch: one after another); an answer that
    promises something leaves after the sync.
Source: DESIGN §13; issue 2 "Wire v1".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import get_args

from ...proto import records as r, wire
from ...proto.codec import BadRequestError, UnsayableError, decode_request, encode
from ...proto.errors import JournalDamagedError
from ...proto.events import data_of, kind_of
from ...proto.ids import TaskStatus
from ...proto.subjects import client_subject
from . import admission, letterbox, overview, plug
from .admission import Refusal
from .clients import Delivery, Sender
from .core import GateCore
from .handson import HandsOn
from .journal.store import Store
from .letters import Letters, letters_path
from .peers import Peers
from .projection import step_view, steps
from .state import Summary, Task, decode_head
from .watching import Watching

PAGE_LIMIT = 1_000
LONG = (wire.Get, wire.Diff, wire.Rewind)
WATCHES_LIMIT = 1_000
STATUSES = get_args(TaskStatus)
LOOKED_AT = 5_000
"""So many heads one listing looks at: a page of a rare status may be short, and its ``next`` goes on."""
PAGE_BYTES = 1 << 20
"""A page or a batch that has this much takes nothing more."""
BATCHES_AT_ONCE = 16
"""A watch from far back gets so many batches between two rounds; others must not wait for it."""


class Requests:
    """Everything that the client port may be asked."""

    def __init__(
        self, core: GateCore, store: Store, peers: Peers, home: str, letters: Letters | None = None
    ) -> None:
        self.core, self.store, self.peers = core, store, peers
        self.letters = letters or Letters(letters_path(home))
        self.ready = False
        self._home = home
        self._watches: list[Watching] = []
        self._waiting: list[tuple[Sender, wire.Reply]] = []
        self._pending: dict[bytes, Task] = {}
        self.hands_on = HandsOn(core, store, peers.post, self._later)
        self.counted: Callable[[str, str], None] = _uncounted
        self.totals: Mapping[str, int] = {}
        self.long: Callable[[], AbstractContextManager[None]] = nullcontext
        """Says that what follows may take long: a whole history is read."""

    # -- a request -------------------------------------------------------------------------------------
    def take(self, sender: Sender, data: bytes, now_ns: int, now_s: float) -> None:
        """Carry out one request; answers that need the disk wait for flush()."""
        try:
            request = decode_request(data)
        except BadRequestError as error:
            self.counted("bad", error.refusal.code)
            self.letters.keep("bad_request", sender.principal, data, detail=error.refusal.code)
            sender.answer(error.refusal)
            return
        subject = client_subject(request, sender.principal)
        self.core.at_hand(subject)
        try:
            admission.check_not_aside(self.core, request, subject)
            with self.long() if isinstance(request, LONG) else nullcontext():
                self._dispatch(sender, request, now_ns, now_s)
            self.counted(type(request).__name__.lower(), "ok")
        except Refusal as refusal:
            self.counted(type(request).__name__.lower(), refusal.code)
            sender.answer(refusal.reply(request.rid))
        except (
            JournalDamagedError,
            UnsayableError,
        ) as error:  # Reading alone: the gate itself lives in its state.
            self.counted(type(request).__name__.lower(), error.code)
            sender.answer(
                wire.Refused(rid=request.rid, code=error.code, message=error.message, remedy=error.remedy)
            )

    def _dispatch(self, sender: Sender, request: wire.Request, now_ns: int, now_s: float) -> None:
        match request:
            case wire.Submit():
                self._submit(sender, request, now_ns)
            case wire.Cancel():
                task = admission.cancel(self.core, request, sender.principal, now_ns)
                self._later(sender, wire.Cancelled(rid=request.rid, task=task.id, status=task.status))
            case wire.Resolve():
                task = admission.resolve(self.core, request, sender.principal, now_ns)
                self._later(sender, wire.Resolved(rid=request.rid, task=task.id, status=task.status))
            case wire.Freeze():
                self._later(sender, plug.freeze(self.core, request, sender.principal, now_ns))
            case wire.Thaw():
                self._later(sender, plug.thaw(self.core, request, sender.principal, now_ns))
            case wire.Attach() | wire.Diff() | wire.Rewind():
                self.hands_on.take(sender, request, self._head_of, now_ns, now_s)
            case wire.Get():
                sender.answer(self._get(request))
            case wire.List():
                sender.answer(self._list(request))
            case wire.Watch():
                self._watch(sender, request, now_s)
            case wire.Status():
                sender.answer(self._status(request))
            case wire.Letters():
                sender.answer(letterbox.page(request, self.letters, sender.principal))

    def _later(self, sender: Sender, reply: wire.Reply) -> None:
        self._waiting.append((sender, reply))

    def _submit(self, sender: Sender, request: wire.Submit, now_ns: int) -> None:
        key = admission.submission_key(sender.principal, request.key)
        if request.key and (known := self._known(key)) is not None:
            task_id, status = known
            self._later(
                sender, wire.Submitted(rid=request.rid, task=task_id, created=False, status=status, cursor=0)
            )
            return
        disk = os.statvfs(self._home)
        task = admission.submit(
            self.core,
            request,
            sender.principal,
            self.store.journal_id,
            disk.f_bavail * disk.f_frsize,
            now_ns=now_ns,
            free_files=disk.f_favail if disk.f_files else None,
        )
        if request.key:
            self._pending[key] = task
        cursor = self.store.last_position
        self._later(
            sender,
            wire.Submitted(rid=request.rid, task=task.id, created=True, status=task.status, cursor=cursor),
        )

    def _known(self, key: bytes) -> tuple[str, str] | None:
        """The task that a submission key already named."""
        if (task := self._pending.get(key)) is not None:
            return task.id, task.status
        stored = self.store.get_key(key)
        if stored is None:
            return None
        head = self._head(int.from_bytes(stored, "big"))
        return head.id, head.status

    # -- reading ---------------------------------------------------------------------------------------
    def _head(self, number: int) -> Task | Summary:
        task = self.core.tasks.get(number)
        if task is not None:
            return task
        head = self.store.head(number)
        if head is None:
            raise Refusal("unknown_task", f"there is no task number {number}", field="task")
        return decode_head(head)

    def _number(self, task_id: str) -> int:
        task = self.core.by_id.get(task_id)
        number = (
            task.no if task is not None else self.store.task_no(task_id) if 0 < len(task_id) <= 64 else None
        )
        if number is None:
            raise Refusal(
                "unknown_task",
                f"there is no task {task_id[:80]!r}",
                field="task",
                expected="the id of a task of this home",
                remedy="homeostat tasks lists them.",
            )
        return number

    def _head_of(self, task_id: str) -> Task | Summary:
        return self._head(self._number(task_id))

    def _view(self, number: int, accepted: r.Accepted | None) -> wire.TaskView:
        head = self._head(number)
        if accepted is None:
            first = next(iter(self.store.task_records(number)), None)
            record = r.decode_record(first.payload) if first is not None else None
            accepted = record if isinstance(record, r.Accepted) else None
        if accepted is None:
            raise Refusal("not_yet", f"task {head.id} is not on disk yet", field="task", retry_after_s=0.1)
        doubts = (
            []
            if isinstance(head, Summary)
            else [str(call.key) for call in head.calls if call.phase == "doubt"]
        )
        return wire.TaskView(
            task=head.id,
            status=head.status,
            objective=accepted.objective,
            agent=head.agent,
            workspace=head.workspace,
            steps=head.steps if isinstance(head, Summary) else head.step,
            accepted_at_ns=head.accepted_ns,
            reason=head.reason if isinstance(head, Summary) else self.core.why(head),
            result=head.result if isinstance(head, Summary) else "",
            in_doubt=doubts,
        )

    def _get(self, request: wire.Get) -> wire.Task:
        number = self._number(request.task)
        limit = _page(request.limit)
        page: list[wire.StepView] = []
        size = more = 0
        records = (r.decode_record(record.payload) for record in self.store.task_records(number))
        for step in steps(records, self._head(number).rewinds):
            if step.proposed.step < request.from_step:
                continue
            if len(page) >= limit or size >= PAGE_BYTES:
                more = step.proposed.step
                break
            page.append(step_view(step))
            size += len(encode(page[-1]))
        return wire.Task(rid=request.rid, task=self._view(number, None), steps=page, next_step=more)

    def _list(self, request: wire.List) -> wire.Tasks:
        limit = _page(request.limit)
        if request.status and request.status not in STATUSES:
            raise Refusal(
                "bad_field", f"status {request.status[:40]!r}", field="status", expected=", ".join(STATUSES)
            )
        rows: list[wire.TaskView] = []
        size = 0
        newest = self.core.next_task_no - len(self.core.round.new_tasks)
        number = (min(request.before, newest) if request.before > 0 else newest) - 1
        last = max(0, number - LOOKED_AT)
        while number > last and len(rows) < limit and size < PAGE_BYTES:
            head = self._head(number)
            if not request.status or head.status == request.status:
                rows.append(self._view(number, None))
                size += len(encode(rows[-1]))
            number -= 1
        return wire.Tasks(rid=request.rid, tasks=rows, next=number + 1 if number > 0 else 0)

    def _status(self, request: wire.Status) -> wire.StatusReply:
        if not 0 <= (limit := request.open_limit) <= PAGE_LIMIT:
            raise Refusal(
                "bad_field", f"open_limit {limit}", field="open_limit", expected=f"0 to {PAGE_LIMIT}"
            )
        letters, ready = self.letters.total, self.ready
        return overview.status(
            request, self.core, self.store, self.peers, totals=self.totals, letters=letters, ready=ready
        )

    # -- watching --------------------------------------------------------------------------------------
    def _watch(self, sender: Sender, request: wire.Watch, now_s: float) -> None:
        if request.task:
            self._number(request.task)
        _page(request.limit)
        if request.cursor < 0:
            raise Refusal(
                "bad_field",
                f"cursor {request.cursor}",
                field="cursor",
                expected="0 or a cursor of an earlier answer",
            )
        if len(self._watches) >= WATCHES_LIMIT:
            raise Refusal(
                "overload", "too many watches", expected=f"less than {WATCHES_LIMIT}", retry_after_s=1.0
            )
        follow = request.follow and not sender.is_req
        until = None if follow else now_s + min(max(request.wait_s, 0.0), 60.0)
        watching = Watching(sender, request, request.cursor, until)
        if not self._feed(watching, now_s):
            self._watches.append(watching)

    def _feed(self, watching: Watching, now_s: float) -> bool:
        """Send what there is; true when the watch is over."""
        request = watching.request
        if watching.pause_s and watching.again_s is not None and now_s < watching.again_s:
            return False
        watching.again_s = None
        for _ in range(BATCHES_AT_ONCE):
            events, cursor, complete = self._events(watching)
            over = complete and bool(request.task) and self._has_ended(request.task)
            if not events and not over and (watching.until_s is None or now_s < watching.until_s):
                watching.cursor = cursor
                return False
            reply = wire.Events(rid=request.rid, cursor=cursor, events=events, ended=over)
            delivery = watching.sender.answer(reply)
            if delivery is Delivery.FULL and watching.until_s is None:
                return watching.stall(now_s)
            if delivery is not Delivery.SENT or over or watching.until_s is not None:
                return True
            watching.cursor, watching.pause_s = cursor, 0.0
            if complete:
                return False
        watching.again_s = 0.0
        return False

    def _has_ended(self, task_id: str) -> bool:
        """On disk, too: a task that ended in this round still has its last events to come."""
        if task_id in self.core.by_id:
            return False
        head = self.store.head(self._number(task_id))
        return head is not None and isinstance(decode_head(head), Summary)

    def _events(self, watching: Watching) -> tuple[list[wire.Event], int, bool]:
        """Events after a watch's cursor: (events, new cursor, nothing more is there)."""
        cursor, limit = watching.cursor, watching.request.limit
        if watching.request.task:
            return self._events_of_task(watching, limit)
        records = self.store.scan(cursor + 1, limit, PAGE_BYTES)
        events = [self._event(record.position, record.task_no, record.payload) for record in records]
        last = records[-1].position if records else cursor
        return events, last, last >= self.store.last_position

    def _events_of_task(self, watching: Watching, limit: int) -> tuple[list[wire.Event], int, bool]:
        events: list[wire.Event] = []
        size, cursor = 0, watching.cursor
        number = self._number(watching.request.task)
        if watching.seq is None:
            watching.seq = self.store.first_seq_after(number, cursor)
        for record in self.store.task_records(number, watching.seq):
            if len(events) >= limit or size > PAGE_BYTES:
                return events, events[-1].position, False
            size += len(record.payload)
            watching.seq = record.seq + 1
            events.append(self._event(record.position, number, record.payload))
        return events, events[-1].position if events else cursor, True

    def _event(self, position: int, number: int, payload: bytes) -> wire.Event:
        record = r.decode_record(payload)
        task = self._head(number).id if number else ""
        return wire.Event(
            position=position, task=task, kind=kind_of(record), at_ns=record.at_ns, data=data_of(record)
        )

    # -- after the sync --------------------------------------------------------------------------------
    def flush(self) -> None:
        """What was promised is on disk: say so."""
        waiting, self._waiting = self._waiting, []
        self._pending.clear()
        for sender, reply in waiting:
            sender.answer(reply)

    @property
    def owes(self) -> bool:
        """Answers wait for the disk."""
        return bool(self._waiting)

    def feed_watches(self, now_s: float) -> None:
        """There are new records, or a wait is over."""
        if self._watches:
            self._watches = [watching for watching in self._watches if not self._feed(watching, now_s)]

    def next_due(self) -> float | None:
        """When a held-back watch must be answered, or one that is behind goes on."""
        dues = [due for one in self._watches for due in (one.until_s, one.again_s) if due is not None]
        return min(dues, default=None)

    @property
    def watching(self) -> bool:
        """Somebody watches."""
        return bool(self._watches)


def _uncounted(_kind: str, _code: str) -> None:
    """Nobody counts."""


def _page(limit: int) -> int:
    if not 1 <= limit <= PAGE_LIMIT:
        raise Refusal("bad_field", f"limit {limit}", field="limit", expected=f"1 to {PAGE_LIMIT}")
    return limit
