"""Requests of a person about a task's work: look at what a step changed, take over a terminal, rewind.

Owns: these three requests, from their checks to their answers.
Must not know: sockets of workers, how a diff is read, a terminal is lent or a merge is taken back.
Invariant: every request gets exactly one answer, also when its worker gives none.
Source: DESIGN §13.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from ...proto import messages as m, records as r, wire
from ...proto.events import arguments, diff_data
from ...proto.ids import Key
from .admission import Refusal
from .asking import Asking
from .calls import GATE_TEXT
from .clients import Sender
from .core import GateCore
from .journal.store import Store
from .projection import Step, steps
from .rewinding import undoable
from .state import Summary, Task, Undoing

MOST_DIFF_BYTES = 1 << 20
UNDO_S = 120.0
Request = wire.Attach | wire.Diff | wire.Rewind
Head = Callable[[str], Task | Summary]
Post = Callable[[str, int, Any], object]
Later = Callable[[Sender, wire.Reply], None]
"""Answers when what was recorded so far is on disk."""


class HandsOn:
    """What these requests need."""

    def __init__(self, core: GateCore, store: Store, post: Post, later: Later) -> None:
        self._core, self._store, self._post, self._later = core, store, post, later
        self.asking = Asking()

    def take(self, sender: Sender, request: Request, head: Head, now_ns: int, now_s: float) -> None:
        """Carry one of them out; ``head`` gives the head of a task by its name. Raises Refusal."""
        match request:
            case wire.Attach():
                self.attach(sender, request, head, now_s)
            case wire.Diff():
                self.diff(sender, request, head(request.task), now_s)
            case wire.Rewind():
                self.rewind(sender, request, head, now_ns, now_s)

    def _check_room(self) -> None:
        if self.asking.full:
            raise Refusal("overload", "too many questions are open", retry_after_s=1.0)

    def _open_task(self, task_id: str, head: Head) -> Task:
        if (task := self._core.by_id.get(task_id)) is None:
            status = head(task_id).status  # Raises Refusal for what was never there.
            raise Refusal(
                "not_open",
                f"task {task_id} has ended ({status})",
                field="task",
                expected="the id of a task that has not ended",
                remedy="Terminals and replaced files go with the end of their task.",
            )
        return task

    # -- terminals -------------------------------------------------------------------------------------
    def attach(self, sender: Sender, request: wire.Attach, head: Head, now_s: float) -> None:
        """Have a live terminal lent."""
        task = self._open_task(request.task, head)
        if sender.principal != "local":
            raise Refusal(
                "local_only",
                "a terminal can be taken over on the machine alone",
                field="task",
                remedy="Log in there and run `homeostat attach`.",
            )
        self._check_room()
        index = task.terminals_at if task.terminals else self._core.executor_of(task)
        token = self.asking.ask(partial(self._lent, sender, request, index), now_s)
        self._post("executor", index, m.Lend(token, task.id, request.terminal, sender.principal))

    def _lent(self, sender: Sender, request: wire.Attach, index: int, lent: m.Lent | None) -> None:
        if lent is None:
            sender.answer(_no_answer("the executor").reply(request.rid))
        elif lent.trouble:
            refusal = Refusal(
                "no_terminal",
                lent.trouble,
                field="terminal",
                remedy="`--terminal NAME` chooses one; what terminal.open answered has its name.",
            )
            sender.answer(refusal.reply(request.rid))
        else:
            home = self._core.workspaces.rpartition("/")[0]
            path = f"{home}/run/terminal.{index}.sock"
            sender.answer(
                wire.Attached(
                    rid=request.rid, task=request.task, terminal=lent.terminal, path=path, token=lent.token,
                    rows=lent.rows, cols=lent.cols,
                )
            )  # fmt: skip

    # -- what a step changed ---------------------------------------------------------------------------
    def diff(self, sender: Sender, request: wire.Diff, head: Task | Summary, now_s: float) -> None:
        """Show what the calls of a step changed: what was recorded, and the text while that can be had."""
        if not 1 <= request.limit_bytes <= MOST_DIFF_BYTES:
            raise Refusal(
                "bad_field",
                f"limit_bytes {request.limit_bytes}",
                field="limit_bytes",
                expected=f"1 to {MOST_DIFF_BYTES}",
            )
        self._check_room()
        changes = self._changes(head, request.step)
        shown = _Shown(sender, request, changes)
        if isinstance(head, Summary):
            for call in shown.calls:
                shown.take(call.key, m.DiffText("", "", "the task has ended: what was replaced is not kept"))
        shown.answer_if_complete()
        for key in list(shown.missing):
            token = self.asking.ask(partial(shown.take, key), now_s)
            index = self._core.executor_of(head) if isinstance(head, Task) else 0
            asked = m.ReadDiff(token, Key(key), head.workspace, request.limit_bytes)
            self._post("executor", index, asked)

    def _changes(self, head: Task | Summary, number: int) -> list[wire.CallDiff]:
        steps_ = steps(self._records(head), head.rewinds)
        step = next((step for step in steps_ if step.proposed.step == number), None)
        if step is None:
            raise Refusal(
                "unknown_step",
                f"task {head.id} has no step {number}",
                field="step",
                expected="the number of a step, from 0; `homeostat show` lists them",
            )
        found = [one for index in range(len(step.proposed.calls)) if (one := _change(step, index))]
        if not found and not step.complete:
            raise Refusal(
                "not_yet", f"step {number} of {head.id} is not over", field="step", retry_after_s=1.0
            )
        return found

    def _records(self, head: Task | Summary) -> Iterator[r.Record]:
        return (r.decode_record(record.payload) for record in self._store.task_records(head.no))

    # -- going back ------------------------------------------------------------------------------------
    def rewind(self, sender: Sender, request: wire.Rewind, head: Head, now_ns: int, now_s: float) -> None:
        """Take a task back to where it was after a step."""
        task = self._open_task(request.task, head)
        if not self._core.is_before(task, request.to_step):
            raise Refusal(
                "unknown_step",
                f"no going back to step {request.to_step}: {task.id} has completed {task.step} steps",
                field="to_step",
                expected=f"-1 to {task.step - 2}" if task.step > 1 else "-1, once a step is complete",
            )
        if why_not := self._core.why_not(task):
            raise Refusal(
                "not_now",
                f"task {task.id} can't be rewound to step {request.to_step}: {why_not}",
                field="to_step",
                expected="a completed step of a task that is between two steps",
                remedy="Ask when the step has ended. A freeze of a tool that its next step uses "
                "(`homeostat freeze --tool NAME`) holds a task between two steps.",
                retry_after_s=0.5,
            )
        self._check_room()
        keys = undoable(self._records(task), task.rewinds, request.to_step)
        kept = self._kept(task, request.to_step)
        token = self.asking.ask(partial(self._rewound, sender, request, task, kept), now_s, UNDO_S)
        self._core.rewind(task, Undoing(token, request.to_step, sender.principal, keys), now_ns)
        if not keys:
            self.asking.answer(token, m.Undone(token, task.id))

    def _kept(self, task: Task, to_step: int) -> list[str]:
        """Effects of the steps since that nobody can take back."""
        found = []
        for step in steps(self._records(task), task.rewinds):
            for index, outcome in step.outcomes.items():
                intent = step.decided[index].intent
                call = step.proposed.calls[index]
                merged = outcome.diff is not None and outcome.diff.total > 0 and index in step.commits
                merged = merged and not _reached_out(call)
                lasting = intent is not None and intent.klass in ("once", "keyed", "witnessed") and not merged
                lasting = (
                    lasting and step.proposed.calls[index].tool not in GATE_TEXT
                )  # A note changes nothing.
                if step.proposed.step > to_step and lasting and outcome.status in ("ok", "in_doubt"):
                    found.append(f"step {step.proposed.step}: {call.tool}")
        return found

    def _rewound(
        self, sender: Sender, request: wire.Rewind, task: Task, kept: list[str], undone: m.Undone | None
    ) -> None:
        if undone is None:
            sender.answer(_no_answer("the executor, which goes on taking merges back").reply(request.rid))
        elif undone.midway:
            refusal = Refusal(
                "midway",
                f"the rewind has begun and can't go on: {undone.trouble}",
                field="to_step",
                remedy="Make room, or put files back as the task left them; it is tried again by itself.",
            )
            sender.answer(refusal.reply(request.rid))
        elif undone.trouble or task.undoing is not None:
            refusal = Refusal(
                "changed_since",
                undone.trouble or "it was ended meanwhile, and not rewound",
                field="to_step",
                remedy="Put these files back as the task left them, or rewind to a later step.",
            )
            sender.answer(refusal.reply(request.rid))
        else:
            self._later(
                sender,
                wire.Rewound(
                    rid=request.rid, task=task.id, status=task.status, to_step=request.to_step,
                    branch=task.branch, kept=kept,
                ),
            )  # fmt: skip


def _reached_out(call: r.Call) -> bool:
    """Whether a call had a way out: what went there can't be taken back with its files."""
    args = arguments(call.args)
    return isinstance(args, dict) and bool(args.get("network"))


class _Shown:
    """An answer to a Diff, while texts are still to come."""

    def __init__(self, sender: Sender, request: wire.Diff, calls: list[wire.CallDiff]) -> None:
        self._sender, self._request, self.calls = sender, request, calls
        self.missing = {call.key for call in calls}

    def take(self, key: str, text: m.DiffText | None) -> None:
        """One text has come, or won't."""
        answer = text or m.DiffText("", "", "its executor did not answer; ask again")
        self.calls = [
            msgspec.structs.replace(call, text=answer.text, trouble=answer.trouble)
            if call.key == key
            else call
            for call in self.calls
        ]
        self.missing.discard(key)
        self.answer_if_complete()

    def answer_if_complete(self) -> None:
        """Nothing is to come any more."""
        if not self.missing and not self._answered:
            self._answered = True
            asked = self._request
            self._sender.answer(wire.Diffs(rid=asked.rid, task=asked.task, step=asked.step, calls=self.calls))

    _answered = False


def _change(step: Step, index: int) -> wire.CallDiff | None:
    outcome, staged, decided = step.outcomes.get(index), step.staged.get(index), step.decided.get(index)
    diff = (outcome.diff if outcome is not None else None) or (staged.diff if staged is not None else None)
    if diff is None or decided is None or decided.intent is None:
        return None
    return wire.CallDiff(
        index=index,
        tool=step.proposed.calls[index].tool,
        key=decided.intent.key,
        status=outcome.status if outcome is not None else "staged",
        diff=diff_data(diff),
    )


def _no_answer(whom: str) -> Refusal:
    return Refusal("no_answer", f"no answer came from {whom}", remedy="Ask again.", retry_after_s=1.0)
