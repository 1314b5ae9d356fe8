"""Quarantine: what was at hand at two crashes of a worker is put aside, and never handled or sent again.

Owns: which subjects are put aside, and what becomes of the task that one of them names.
Must not know: sockets, LMDB, clocks; who crashed why.
Invariants: a subject that is put aside is on disk before anybody is told so, and stays so after any restart;
    no open effect is dropped in silence: the others of the task are awaited as at a cancellation, the one
    that can't be asked for any more gets an outcome that says what is known of it.
    # INVARIANT: test_quarantined_task_ends_when_its_call_cannot_be_asked_for
Source: DESIGN §6 "Poison"; proto/subjects.py has the texts.

    names a task          it ends as quarantined, as soon as its open calls have
    names a call's key    so does its task; this call ends at once, in doubt if it may have counted
    names a request       requests like it are refused
    anything else         can't be put aside: the supervisor's restart intensity is what bounds it
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

from ... import __version__
from ...proto import messages as m, records as r
from ...proto.config import Config
from ...proto.ids import Role
from ...proto.subjects import TEND, Subject, parse
from .endings import Endings
from .pipeline.decide import Pipeline
from .state import OpenCall, Task

ASIDE_LIMIT: Final = 1_024
"""So many subjects are remembered; the oldest is let go. Each took two crashes of a worker."""
REPORT_LIMIT_CHARS: Final = 4_000
RESULT_LIMIT_CHARS: Final = 2_000
_WORDS_LIMIT: Final = 200


class Aside(msgspec.Struct, frozen=True, array_like=True):
    """One subject that is put aside. ``version`` is the homeostat that could not live with it."""

    at_ns: int
    subject: str
    worker: str
    crashes: int
    report: str
    version: str

    @property
    def reason(self) -> str:
        """In a line."""
        return f"at hand at {self.crashes} crashes of {self.worker}: {self.subject}"


_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Aside] = msgspec.msgpack.Decoder(Aside)


def aside_name(subject: str) -> bytes:
    """Name it in the journal."""
    return sha256(subject.encode()).digest()


class Quarantine(Endings):
    """The open tasks, and what is put aside."""

    def __init__(self, config: Config, pipeline: Pipeline, workspaces: str) -> None:
        super().__init__(config, pipeline, workspaces)
        self.aside: dict[str, Aside] = {}

    def restore_aside(self, data: bytes) -> None:
        """Take over from disk what was put aside.

        A request that only reads is let in again by another version of homeostat: it may have learned to live
        with it, and nobody can choose another name for a read as one can for a submission.
        """
        found = _decoder.decode(data)
        subject = parse(found.subject)
        if subject.kind == "request" and subject.verb != "submit" and found.version != __version__:
            self.round.aside[aside_name(found.subject)] = None
            return
        self.aside[found.subject] = found

    def on_poison(self, poison: m.Poison, now_ns: int) -> str:
        """Put a subject aside; give what it was: task, call, request, known; empty if nothing is open."""
        if poison.subject in self.aside:
            return "known"
        subject = parse(poison.subject)
        if subject.kind == "other":
            return ""
        report = poison.report[:REPORT_LIMIT_CHARS]
        worker = poison.worker[:_WORDS_LIMIT]
        aside = Aside(now_ns, poison.subject, worker, poison.crashes, report, __version__)
        self._put_aside(aside)
        if subject.kind == "request":
            self.record_system(_record(aside))
            return subject.kind
        task = (self.by_id if subject.kind == "task" else self.by_key).get(subject.name)
        if task is None:
            return ""
        self._isolate(task, subject, aside, now_ns)
        return subject.kind

    def _put_aside(self, aside: Aside) -> None:
        self.aside[aside.subject] = aside
        self.round.aside[aside_name(aside.subject)] = _encode(aside)
        while len(self.aside) > ASIDE_LIMIT:
            oldest = min(self.aside.values(), key=lambda one: one.at_ns).subject
            del self.aside[oldest]
            self.round.aside[aside_name(oldest)] = None

    def _isolate(self, task: Task, subject: Subject, aside: Aside, now_ns: int) -> None:
        """End the task. First the calls of which no word can be waited for, then the rest as at every end."""
        self.record(task, _record(aside))
        task.report = aside.report[:RESULT_LIMIT_CHARS]
        task.cancelling, task.ending = aside.reason, "quarantined"
        for call in list(task.calls):
            if call.is_open and (call.key == subject.name or subject.verb == TEND):
                self._outcome(task, call, _unasked(call, aside), now_ns)
                self._forget(call)
        if task.no in self.tasks:
            self.stop_task(task, "quarantined", aside.reason, now_ns, "quarantine")

    def _forget(self, call: OpenCall) -> None:
        """Its outcome is in the journal now: whoever carried it out need not keep it."""
        if call.runs_in != "gate":
            self.round.after.append((*self.carrier(call), m.Forget(call.key)))

    def on_aside(self, message: object, role: Role, index: int) -> None:
        """A message about what is put aside came again: let its sender be done with it."""
        match message:
            case m.Ended():
                self.round.after.append((role, index, m.Forget(message.key)))
            case m.StagedDiff():
                self.round.after.append((role, index, m.Discard(message.key, "quarantined")))
            case _:
                pass  # Whoever sent it waits for nothing; the task that it is about has ended.


def _unasked(call: OpenCall, aside: Aside) -> m.Ended:
    """What is known of a call whose carrier can't be asked, by its class and by how far it had come."""
    note = f"quarantined: {aside.reason}"
    harmless = call.klass == "read" or call.runs_in == "gate"
    if harmless or (call.klass == "staged" and call.phase == "admitted"):
        return m.Ended(call.key, "cancelled", "quarantined; nothing of it counts", note=note)
    return m.Ended(call.key, "in_doubt", "quarantined; it is unknown whether it happened", note=note)


def _record(aside: Aside) -> r.Quarantined:
    return r.Quarantined(aside.at_ns, aside.subject, aside.worker, aside.crashes, aside.report)
