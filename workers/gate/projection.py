"""Records → what clients and brains read: task rows, steps, turns.

Owns: the reading of a task's records. Must not know: where they are stored, who asks.
Invariant: the same records give the same view, before and after any crash.
Source: DESIGN §13 (show), §6 (a brain rebuilds its conversations from records).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ...proto import records as r, wire
from ...proto.events import call_parts, diff_data
from ...proto.messages import Observation, Turn
from .state import Rewind


@dataclass(slots=True)
class Step:
    """All records of one step."""

    proposed: r.Proposed
    decided: dict[int, r.Decided] = field(default_factory=dict)
    commits: dict[int, r.Decided] = field(default_factory=dict)
    staged: dict[int, r.Staged] = field(default_factory=dict)
    outcomes: dict[int, r.Outcome] = field(default_factory=dict)
    resolved: dict[int, r.DoubtResolved] = field(default_factory=dict)
    event: str = ""

    @property
    def complete(self) -> bool:
        """Every call was refused or has its outcome, and nothing is in doubt unanswered."""
        return all(self._over(index) for index in range(len(self.proposed.calls)))

    def _over(self, index: int) -> bool:
        decided = self.decided.get(index)
        if decided is None:
            return False
        return decided.verdict != "admit" or index in self.outcomes


def steps(records: Iterable[r.Record], rewinds: tuple[Rewind, ...] = ()) -> Iterator[Step]:
    """Group a task's records (from its first on) by step, in order, without those that a rewind has undone.

    The last may be incomplete.
    """
    current: Step | None = None
    for seq, record in enumerate(records):
        match record:
            case r.Proposed():
                if current is not None:
                    yield current
                undone = any(seq < rewind.seq and record.step > rewind.to_step for rewind in rewinds)
                current = None if undone else Step(record)
            case r.Decided() if current is not None:
                (current.decided if record.phase == "call" else current.commits)[record.index] = record
            case r.Staged() if current is not None:
                current.staged[record.index] = record
            case r.Outcome() if current is not None:
                current.outcomes[record.index] = record
            case r.DoubtResolved() if current is not None:
                current.resolved[record.index] = record
            case r.SystemEvent() if current is not None:
                current.event = record.message
            case _:
                pass
    if current is not None:
        yield current


def step_view(step: Step) -> wire.StepView:
    """One step as a client sees it."""
    calls = [_call_view(step, index, call) for index, call in enumerate(step.proposed.calls)]
    thought = step.proposed.text or (calls[0].thought if calls else "")
    return wire.StepView(step=step.proposed.step, thought=thought, calls=calls, event=step.event)


def _call_view(step: Step, index: int, call: r.Call) -> wire.CallView:
    args, thought = call_parts(call)
    decided, commit, outcome = step.decided.get(index), step.commits.get(index), step.outcomes.get(index)
    if decided is None:
        return wire.CallView(tool=call.tool, args=args, thought=thought)
    spoken = commit if commit is not None and commit.verdict == "deny" else decided
    intent = decided.intent
    return wire.CallView(
        tool=call.tool,
        args=args,
        thought=thought,
        klass=intent.klass if intent else "",
        key=intent.key if intent else "",
        verdict=spoken.verdict,
        stage=spoken.stage,
        rule=spoken.rule,
        reason=spoken.reason,
        outcome=_outcome_view(outcome, step.resolved.get(index)) if outcome else None,
    )


def _outcome_view(outcome: r.Outcome, resolved: r.DoubtResolved | None) -> wire.OutcomeView:
    note = outcome.note
    if resolved is not None:
        note = f"{resolved.by} says: {resolved.answer}"
    return wire.OutcomeView(
        status=outcome.status,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        text=outcome.text,
        artifact=outcome.artifact,
        output_bytes=outcome.output_bytes,
        diff=diff_data(outcome.diff) if outcome.diff else None,
        duration_s=round(outcome.duration_s, 6),
        protection=outcome.protection,
        note=note,
    )


def turn(step: Step) -> Turn:
    """One complete step as the brain saw it: the same texts that Observe carried."""
    observations = (
        ()
        if step.event
        else tuple(_observation(step, index, call) for index, call in enumerate(step.proposed.calls))
    )
    return Turn(
        step.proposed.step,
        step.proposed.text,
        step.proposed.raw,
        step.proposed.calls,
        observations,
        step.event,
    )


def _observation(step: Step, index: int, call: r.Call) -> Observation:
    outcome, decided = step.outcomes.get(index), step.decided[index]
    if outcome is None:
        text = f"refused by {decided.stage} ({decided.rule}): {decided.reason}"
        return Observation(index, call.tool, call.call_id, "refused", text)
    if (resolved := step.resolved.get(index)) is not None:
        happened = resolved.answer == "happened"
        return Observation(
            index, call.tool, call.call_id, "ok" if happened else "error", doubt_text(resolved.answer)
        )
    return Observation(index, call.tool, call.call_id, outcome.status, outcome.text, outcome.artifact)


_DOUBT_WORDS = {"happened": "it happened", "did_not": "it did not happen", "fail": "give the task up"}


def doubt_text(answer: str) -> str:
    """What the model is told of an effect in doubt that a person resolved."""
    return f"the outcome was unknown; a person says: {_DOUBT_WORDS[answer]}"
