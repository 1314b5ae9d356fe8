"""What the executor decides: which call runs when, what its end means, what counts.

Owns: the open calls and their phases.
Must not know: sandboxes, stages on disk, the ledger's store, clocks.
Invariants: effects are in the order in which they must be done; a ``once`` call that may have been begun is
            never begun again; nothing of a call that was told to end counts, unless its merge had begun;
            one writer at a time in a workspace.
Source: DESIGN §4, §6; the table of phases is in calls.py.

    QUEUED → LAUNCHING → RUNNING → CLOSING → (staged: DIFFING → STAGED → MERGING) → ended
"""

from __future__ import annotations

from typing import Final, assert_never

import msgspec

from ...proto import messages as m
from ...proto.ids import CallStatus, Key, TaskId
from ...proto.settings import Terminals
from . import calls as c, halting, outcomes
from .calls import Call, Effect, Phase
from .entries import Entry
from .rewinds import Rewinds
from .terminals.rules import Rules

MOST_RUNNING: Final = 16
MOST_QUEUED: Final = 1_024
_NEVER: Final = float("inf")


class Executor:
    """The pure core: feed it messages, events and the time; do what it says, in order."""

    def __init__(
        self,
        most_running: int = MOST_RUNNING,
        most_queued: int = MOST_QUEUED,
        terminals: Terminals | None = None,
    ) -> None:
        self.terminals = Rules(terminals or Terminals())
        self._most_running = most_running
        self._most_queued = most_queued
        self._calls: dict[Key, Call] = {}
        self._rewinds = Rewinds()
        self._to_sweep: set[TaskId] = set()
        self._stopping = False

    def knows(self, key: Key) -> bool:
        """Whether this call is open."""
        return key in self._calls

    def workspace_of(self, key: Key) -> str:
        """The workspace of an open call, as it was named; empty for another."""
        call = self._calls.get(key)
        return call.execute.workspace if call else ""

    def idle(self) -> bool:
        """Whether nothing is under way that could end; a stage still waits for its decision."""
        return self._rewinds.idle and all(
            call.phase is Phase.QUEUED or _is_stopped(call) for call in self._calls.values()
        )

    def next_deadline(self) -> float | None:
        """When expire() is to be called."""
        due = min((call.deadline_at for call in self._calls.values()), default=_NEVER)
        due = min(due, self.terminals.next_due())
        return None if due == _NEVER else due

    def stop(self) -> None:
        """Begin nothing any more."""
        self._stopping = True

    def found(self, entry: Entry) -> list[Effect]:
        """An earlier life left this entry. An outcome is told again: its Forget may be lost."""
        return [c.Post(outcomes.decode(entry.outcome))] if entry.state == "ended" else []

    # -- the gate's messages --------------------------------------------------------------------------
    def asked(self, event: c.Asked, now: float) -> list[Effect]:
        """A call is to be carried out, perhaps not for the first time."""
        execute, entry = event.execute, event.entry
        if live := self._calls.get(execute.key):
            return self._asked_again(live, execute, now)
        if entry is not None and entry.state == "ended":
            return [c.Post(outcomes.decode(entry.outcome))]
        place = event.place or execute.workspace
        call = Call(execute, event.limit_s, now + execute.timeout_s, place=place, terminal=event.terminal)
        if event.stage in {"committed", "merged"}:
            return self._complete(call, entry, now)
        begun = entry is not None or (execute.resumed and event.blind)
        if begun and execute.klass == "once" and not self.terminals.may_repeat(call):
            thrown_away = [c.DiscardStage(execute.key)] if call.staged else []
            ended = self.terminals.known_end(call) or outcomes.in_doubt(execute.key)
            return [*self._end(call, ended, now), *thrown_away]
        waiting = sum(other.phase is Phase.QUEUED for other in self._calls.values())
        if waiting >= self._most_queued and not execute.halted:
            return self._end(call, outcomes.crowded(execute.key, waiting), now)
        self._calls[execute.key] = call
        return [*(halting.halt(call, now) if execute.halted else []), *self._advance(now)]

    def _asked_again(self, call: Call, execute: m.Execute, now: float) -> list[Effect]:
        """A new gate resumes it, or it is frozen or thawed."""
        if call.stuck:
            return []  # it is on its way to its end: half a merge is no state to stand still in
        if execute.halted:
            return [*_staged_again(call), *halting.halt(call, now)]
        return [*halting.let_go(call, now), *_staged_again(call), *self._advance(now)]

    def _complete(self, call: Call, entry: Entry | None, now: float) -> list[Effect]:
        """Its commit record is on disk: it counts, whatever else was lost, once its workspace is free."""
        ready = entry is not None and entry.outcome
        call.outcome = outcomes.decode(entry.outcome) if entry and ready else outcomes.lost_text(call.key)
        call.stuck, call.deadline_at = "complete", _NEVER
        self._calls[call.key] = call
        return self._advance(now)

    def merge(self, message: m.Merge) -> list[Effect]:
        """What the call did is admitted, if it is still what was shown."""
        call = self._calls.get(message.key)
        if call is None or call.phase is not Phase.STAGED or call.diff is None:
            return []  # an answer to an earlier life's diff: the one to come will be decided afresh
        if message.digest != call.diff.digest:
            return _staged_again(call)
        call.phase = Phase.MERGING
        call.outcome = msgspec.structs.replace(call.so_far, diff=call.diff)
        return [
            c.Record(call.key, c.entry_of(call.execute, "merging", outcomes.encode(call.outcome))),
            c.MergeStage(call.key, call.execute.task),
        ]

    def stuck(
        self, execute: m.Execute, place: str, entry: Entry | None, refusal: m.Discard | None, now: float
    ) -> list[Effect]:
        """A merge that stopped midway is to be completed, or with a refusal taken back and thrown away."""
        call = Call(execute, _NEVER, _NEVER, place=place)
        call.outcome = outcomes.anew(execute.key, outcomes.decode(entry.outcome) if entry else None)
        call.stuck = "put_aside" if refusal else "complete"
        self._calls[call.key] = call
        return self._advance(now)

    def undo(self, message: m.Undo, place: str, now: float) -> list[Effect]:
        """Merges are to be taken back, as soon as nothing is under way in their workspace."""
        self._rewinds.ask(message, place)
        return [*self.terminals.end_task(message.task), *self._advance(now)]

    def discard(self, message: m.Discard, now: float) -> list[Effect]:
        """What the call did is refused."""
        call = self._calls.get(message.key)
        if call is None or call.phase is not Phase.STAGED:
            return []
        ended = outcomes.refused(call.so_far, message.reason, call.diff)
        return [*self._end(call, ended, now), c.DiscardStage(call.key)]

    def abort(self, message: m.Abort, entry: Entry | None, now: float) -> list[Effect]:
        """A call is to end now."""
        call = self._calls.get(message.key)
        if call is not None:
            return self._cut_off(call, message.status, now)
        if entry is not None and entry.state == "ended":
            return [c.Post(outcomes.decode(entry.outcome))]
        # Begun by an earlier life or never heard of. Its Execute, should it still come, gets this answer.
        ended = outcomes.not_run(message.key, message.status)
        blank = entry or Entry("started", TaskId(""), "", "read", "")
        return [
            c.Record(
                message.key, msgspec.structs.replace(blank, state="ended", outcome=outcomes.encode(ended))
            ),
            c.Post(ended),
        ]

    def forget(self, message: m.Forget) -> list[Effect]:
        """The outcome is in the journal."""
        return [] if message.key in self._calls else [c.Erase(message.key)]

    def end_task(self, message: m.EndTask, now: float) -> list[Effect]:
        """Nothing of this task goes on."""
        effects: list[Effect] = []
        for call in [call for call in self._calls.values() if call.execute.task == message.task]:
            effects += self._cut_off(call, "cancelled", now)
        return [*effects, *self.terminals.end_task(message.task), *self._sweep(message.task)]

    def _sweep(self, task: TaskId) -> list[Effect]:
        """What was kept of an ended task goes, after its merges that wait for their workspace."""
        if any(call.stuck and call.execute.task == task for call in self._calls.values()):
            self._to_sweep.add(task)
            return self._rewinds.give_up(task)
        self._to_sweep.discard(task)
        return self._rewinds.sweep(task)

    def hold_task(self, message: m.HoldTask, now: float) -> list[Effect]:
        """A freeze covers the task's terminals, or does no more."""
        return [*self.terminals.hold(message.task, now, on=message.on), *self._advance(now)]

    def expire(self, now: float) -> list[Effect]:
        """End what is over its deadline."""
        effects: list[Effect] = self.terminals.expire(now)
        for call in [call for call in self._calls.values() if call.deadline_at <= now]:
            effects += self._cut_off(call, "timeout", now)
        return effects

    def _cut_off(self, call: Call, status: CallStatus, now: float) -> list[Effect]:
        match call.phase:
            case Phase.QUEUED if call.stuck:
                return []  # it has counted already, or is to be taken back whatever happens
            case Phase.QUEUED:
                waited_for = self.terminals.waits_for(call)
                return self._end(call, outcomes.not_run(call.key, status, waited_for), now)
            case Phase.LAUNCHING | Phase.RUNNING:
                first = call.ending is None
                call.ending, call.deadline_at = call.ending or status, _NEVER
                return [c.Kill(call.key)] if first else []
            case Phase.CLOSING | Phase.DIFFING:
                call.ending = call.ending or status
                return []
            case Phase.STAGED:
                ended = outcomes.withdrawn(call.so_far, status)
                return [*self._end(call, ended, now), c.DiscardStage(call.key)]
            case Phase.MERGING:
                return []
        assert_never(call.phase)

    # -- what the shell saw ---------------------------------------------------------------------------
    def happened(self, event: c.Event, now: float) -> list[Effect]:
        """Something that the shell was told to do has come to its end."""
        if isinstance(event, c.Asked):
            return self.asked(event, now)
        if isinstance(event, c.TakenBack):
            return [*self._rewinds.ended(event.answer), *self._advance(now)]
        if isinstance(event, c.TerminalEnded | c.Taken):
            return [*self.terminals.happened(event, now), *self._advance(now)]
        call = self._calls.get(event.key)
        if call is None:
            return self.terminals.over_quota(event) if isinstance(event, c.OverQuota) else []
        if isinstance(event, c.Rested | c.TerminalClosed):
            return self._left_terminal(call, event, now)
        return self._went_on(call, event, now)

    def _went_on(self, call: Call, event: c.OfCall, now: float) -> list[Effect]:
        match event:
            case c.Launched():
                call.phase, call.protection = Phase.RUNNING, event.protection
                return []
            case c.Stopped():
                return halting.stopped(call)
            case c.NotLaunched():
                ended = outcomes.not_launched(call.key, event.text, call.ending)
                gone = self.terminals.drop(call.key) + ([c.DiscardStage(call.key)] if call.staged else [])
                return [*self._end(call, ended, now), *gone]
            case c.OverQuota():
                call.why = call.why or event.words
                running = call.phase in {Phase.LAUNCHING, Phase.RUNNING}
                return self._cut_off(call, "killed", now) if running else []
            case c.Exited():
                return self._exited(call, event, now)
            case c.Closed():
                return self._closed(call, event.output, now)
            case c.DiffRead():
                return self._diff_read(call, event, now)
            case c.MergeEnded():
                effects, task = self._merge_ended(call, event, now), call.execute.task
                return [*effects, *(self._sweep(task) if task in self._to_sweep else [])]
        assert_never(event)

    def _left_terminal(self, call: Call, event: c.Rested | c.TerminalClosed, now: float) -> list[Effect]:
        if isinstance(event, c.Rested):
            ended, gone = self.terminals.rested(call, event, now)
            return [*self._end(call, ended, now), *gone]
        call.outcome, gone = self.terminals.closed(call, event, now)
        if call.ending or not event.kept:
            return [*self._end(call, call.so_far, now), *gone]
        call.phase, call.deadline_at = Phase.DIFFING, _NEVER
        return [*gone, c.TakeDiff(call.key)]

    def _exited(self, call: Call, event: c.Exited, now: float) -> list[Effect]:
        call.phase, call.deadline_at = Phase.CLOSING, _NEVER
        duration_s = now - (call.launched_at if call.launched_at is not None else now)
        call.outcome, call.silent_s = outcomes.of_exit(call, event, duration_s), event.silent_s
        return []

    def _closed(self, call: Call, output: c.Output, now: float) -> list[Effect]:
        outcome = outcomes.with_output(call.so_far, output)
        if call.ending:
            outcome = outcomes.cut_off(outcome, call.ending, staged=call.staged, why=call.why)
        elif outcome.status in {"killed", "waiting_for_input", "timeout"}:
            outcome = outcomes.died(outcome, staged=call.staged, silent_s=call.silent_s)
        elif call.staged:
            call.outcome, call.phase = outcome, Phase.DIFFING
            return [c.TakeDiff(call.key), *self._advance(now)]
        return [*self._end(call, outcome, now), *([c.DiscardStage(call.key)] if call.staged else [])]

    def _diff_read(self, call: Call, event: c.DiffRead, now: float) -> list[Effect]:
        call.diff = event.diff
        if call.ending:
            ended = outcomes.cut_off(call.so_far, call.ending, staged=True, why=call.why)
        elif event.refused_reason:
            ended = outcomes.unkeepable(call.so_far, event.refused_reason, event.diff)
        elif event.diff.total == 0:
            ended = msgspec.structs.replace(call.so_far, diff=event.diff)
        else:
            call.phase = Phase.STAGED
            said = [*_staged_again(call), *halting.told(call)]
            return [c.Record(call.key, c.entry_of(call.execute, "staged")), *said]
        return [*self._end(call, ended, now), c.DiscardStage(call.key)]

    def _merge_ended(self, call: Call, event: c.MergeEnded, now: float) -> list[Effect]:
        ended = call.so_far
        if not event.trouble:
            if ended.diff is None and event.diff is not None:
                ended = msgspec.structs.replace(ended, diff=event.diff)
            return self._end(call, ended, now)
        ended = outcomes.not_merged(ended, event.trouble, partly=event.partly)
        return [*self._end(call, ended, now), *([] if event.partly else [c.DiscardStage(call.key)])]

    # -- order ----------------------------------------------------------------------------------------
    def _end(self, call: Call, ended: m.Ended, now: float) -> list[Effect]:
        return [*self._conclude(call, ended, now), *self._advance(now)]

    def _conclude(self, call: Call, ended: m.Ended, now: float) -> list[Effect]:
        self._calls.pop(call.key, None)
        self.terminals.free(call, now)
        effects: list[Effect] = [c.Post(ended)]
        if call.writes:  # a read leaves nothing behind: it may run again
            effects.insert(0, c.Record(call.key, c.entry_of(call.execute, "ended", outcomes.encode(ended))))
        return effects

    def _advance(self, now: float) -> list[Effect]:
        """Launch what may run: oldest first, one writer in a workspace, so many sandboxes."""
        if self._stopping:
            return []
        effects: list[Effect] = []
        running = sum(call.occupies and not call.halted for call in self._calls.values())
        begun = [call for call in self._calls.values() if call.phase is not Phase.QUEUED]
        held = {call.place for call in begun if call.alone}
        effects += self._rewinds.begin(held)
        held |= self._rewinds.places
        for call in list(self._calls.values()):
            if not _waits(call) or call.halted or (call.alone and call.place in held):
                continue
            if call.terminal is not None and not call.stuck:
                effects += self._turn(call, now)
            elif running < self._most_running:
                running += 1
                effects += self._launch(call, now, [c.Launch(call.execute, call.place)])
            if call.alone and not _waits(call):
                held.add(call.place)
        return effects

    def _turn(self, call: Call, now: float) -> list[Effect]:
        """Begin a terminal's call, if it is its turn."""
        turn = self.terminals.turn(call, now)
        if isinstance(turn, m.Ended):
            return self._conclude(call, turn, now)
        return self._launch(call, now, turn) if turn else []

    def _launch(self, call: Call, now: float, launch: list[Effect]) -> list[Effect]:
        if call.stuck:
            call.phase = Phase.MERGING
            if call.stuck == "put_aside":
                return [c.PutAside(call.key, call.execute.workspace)]
            return [c.RollForward(call.key, call.execute.task, call.execute.workspace)]
        call.phase = Phase.RUNNING if call.act in {"send", "screen"} else Phase.LAUNCHING
        call.launched_at = now
        call.deadline_at = min(call.deadline_at, now + call.limit_s)
        return [c.Record(call.key, c.entry_of(call.execute, "started")), *launch] if call.writes else launch


def _waits(call: Call) -> bool:
    return call.phase is Phase.QUEUED


def _is_stopped(call: Call) -> bool:
    """Frozen in its sandbox: nobody would see it end."""
    return call.halted and call.phase in {Phase.LAUNCHING, Phase.RUNNING} and call.ending is None


def _staged_again(call: Call) -> list[Effect]:
    """Say what a staged call did, once more if need be: a new gate may not have heard it."""
    if call.phase is not Phase.STAGED or call.diff is None:
        return []
    return [c.Post(m.StagedDiff(call.key, call.diff))]
