"""What follows for calls and terminals from each other: turns, ends, holds, loans.

Owns: when a terminal call may begin, and what is done when a terminal ends, is held or lent.
Must not know: sandboxes, screens, sockets, clocks; the phases of other calls (core.py).
Invariants: pure; one call at a time is at a terminal, but for looking; a terminal that is held or lent takes
            none; what was begun in an earlier life is never typed again.
Source: DESIGN §4 (classes), §6, §7 "homeostat freeze"; the calls are core.py's.
"""

from __future__ import annotations

from collections.abc import Iterator

from ....proto import messages as m
from ....proto.ids import Key, TaskId
from ....proto.settings import Terminals as Limits
from .. import calls as c, outcomes
from ..calls import Call, Effect
from ..entries import Entry
from .table import LOST, Live, Table, memory_key


class Rules:
    """The decisions about live terminals; core.Executor asks and tells."""

    def __init__(self, limits: Limits) -> None:
        self._table = Table(limits)

    # -- an earlier life ------------------------------------------------------------------------------
    def remember(self, entry: Entry, key: Key) -> None:
        """The ledger knows of a terminal of an earlier life."""
        self._table.lose(key, entry.task, entry.outcome)

    def lost_tasks(self) -> Iterator[TaskId]:
        """Tasks that had terminals in an earlier life, and of whose end nothing was heard yet."""
        return self._table.lost_tasks()

    def may_repeat(self, call: Call) -> bool:
        """Whether a call that an earlier life began may be begun again: opening, when all it did is gone."""
        return call.act == "open" and c.works_on_stage(call.execute) and not call.execute.egress

    def known_end(self, call: Call) -> m.Ended | None:
        """How a call ended that an earlier life began, where the death of its terminal tells."""
        if call.terminal is None or call.act == "open":
            return None
        lost = self._table.lost(call.execute.task, call.terminal.name)
        if lost is None or lost.egress or not lost.staged:
            return None
        thrown_away = call.act == "close" and not call.terminal.keep
        words = f"terminal {lost.name} {LOST}"
        return outcomes.terminal_gone(call.key, words, "ok" if thrown_away else "error")

    # -- turns ----------------------------------------------------------------------------------------
    def turn(self, call: Call, now: float) -> list[Effect] | m.Ended | None:
        """What begins a waiting call; its end, when it can never begin; None: not yet."""
        live = self._live_for(call, now)
        if live is None:
            return None
        if isinstance(live, str):
            return outcomes.terminal_refused(call.key, live, "refused" if call.act == "open" else "error")
        if call.act == "open":
            remembered = c.entry_of(call.execute, "live", live.remembered())
            launch = c.Launch(call.execute, call.place, live.name)
            return [c.Record(memory_key(call.key), remembered), launch]
        if call.act == "close":
            keep = call.terminal is not None and call.terminal.keep and live.staged
            return [c.CloseTerminal(call.key, live.key, keep)]
        return [c.UseTerminal(call.execute, live.key)]

    def _live_for(self, call: Call, now: float) -> Live | str | None:
        """The terminal that a waiting call may have now; why it never can; None: not yet."""
        asked = call.terminal
        if asked is None:
            raise RuntimeError(f"call {call.key} is not about a terminal")
        if asked.trouble:
            return asked.trouble
        if asked.act == "open":
            return self._table.no_room(call.execute.task) or self._table.open(call.execute, now)
        live = self._table.find(call.execute.task, asked.name)
        if isinstance(live, str):
            return live
        if asked.act == "send" and live.ended:
            return f"terminal {live.name}: its program has {live.ended}; look at it, or close it"
        if live.held or (asked.act != "screen" and (live.busy or live.lent_to)):
            return None
        self._table.use(live, now)
        if asked.act != "screen":
            live.busy = call.key
        return live

    def waits_for(self, call: Call) -> str:
        """Whom a waiting call waits for, where that is a person."""
        if call.terminal is None or call.act == "open":
            return ""
        live = self._table.find(call.execute.task, call.terminal.name)
        if isinstance(live, str) or not live.lent_to:
            return ""
        return f"{live.lent_to} had taken terminal {live.name} over"

    def free(self, call: Call, now: float) -> None:
        """The call has ended."""
        if call.terminal is None:
            return
        live = self._table.get(call.key) if call.act == "open" else None
        if live is None:
            found = self._table.find(call.execute.task, call.terminal.name)
            live = None if isinstance(found, str) else found
        if live is not None and live.busy == call.key:
            live.busy = None
            self._table.use(live, now)

    # -- ends -----------------------------------------------------------------------------------------
    def rested(self, call: Call, event: c.Rested, now: float) -> tuple[m.Ended, list[Effect]]:
        """What is shown is the end of the call; the terminal lives on, unless its opening was cut off."""
        outcome = outcomes.of_rest(call, event.text, now)
        if call.ending is None:
            return outcome, []
        if call.act != "open":
            return outcomes.stopped_waiting(outcome, call.ending), []
        staged = c.works_on_stage(call.execute)
        return outcomes.cut_off(outcome, call.ending, staged=staged, why=call.why), self.drop(call.key)

    def closed(self, call: Call, event: c.TerminalClosed, now: float) -> tuple[m.Ended, list[Effect]]:
        """The terminal is no more; with ``kept``, and unless it was cut off, what it did is read next."""
        outcome = outcomes.of_rest(call, event.text, now)
        gone = self.drop(event.opened_by, keep_stage=event.kept)
        if call.ending is None:
            return outcome, gone
        thrown_away: list[Effect] = [c.DiscardStage(call.key)] if event.kept else []
        cut_off = outcomes.cut_off(outcome, call.ending, staged=True, why=call.why)
        return cut_off, [*gone, *thrown_away]

    def happened(self, event: c.TerminalEnded | c.Taken, now: float) -> list[Effect]:
        """Its program has ended, or a person has taken it over or handed it back, or it is in use."""
        live = self._table.get(event.key)
        if live is None:
            return []
        if isinstance(event, c.TerminalEnded):
            return self._ended(live, event)
        self._table.use(live, now)
        return _taken(live, event) if event.by != live.lent_to else []

    def _ended(self, live: Live, event: c.TerminalEnded) -> list[Effect]:
        how = f"exited with code {event.exit_code}"
        if event.signal is not None:
            how = f"been killed by {outcomes.signal_name(event.signal)}"
        live.ended = live.why or how
        return self.drop(live.key) if live.doomed and live.busy is None else []

    def over_quota(self, event: c.OverQuota) -> list[Effect]:
        """It holds more than it may: its program ends; what it did can still be looked at and closed."""
        live = self._table.get(event.key)
        if live is None or live.ended or live.why:
            return []
        live.why = f"been ended by homeostat: {event.words}"
        return [c.Kill(live.key)]

    def drop(self, key: Key, *, keep_stage: bool = False) -> list[Effect]:
        """It is no more, and its stage neither unless that goes on under another key."""
        live = self._table.get(key)
        if live is None:
            return []
        self._table.drop(key)
        gone: list[Effect] = [c.DropTerminal(key), c.Erase(memory_key(key))]
        return [*gone, c.DiscardStage(key)] if live.staged and not keep_stage else gone

    def end_task(self, task: TaskId) -> list[Effect]:
        """Nothing of this task goes on."""
        effects: list[Effect] = [c.Erase(key) for key in self._table.forget_task(task)]
        for live in self._table.of_task(task):
            live.doomed = True
            if not live.ended:
                effects.append(c.Kill(live.key))
            elif live.busy is None:
                effects += self.drop(live.key)
        return effects

    def next_due(self) -> float:
        """When expire() is to be called for a terminal."""
        return self._table.next_due()

    def expire(self, now: float) -> list[Effect]:
        """End the programs of those whose time is up."""
        return [c.Kill(live.key) for live in self._table.expired(now)]

    # -- holds and loans ------------------------------------------------------------------------------
    def hold(self, task: TaskId, now: float, *, on: bool) -> list[Effect]:
        """A freeze covers the task's terminals, or does no more."""
        return [
            c.HoldTerminal(live.key, on)
            for live in self._table.of_task(task)
            if self._table.hold(live, now, on=on) and not live.ended
        ]

    def lend(self, message: m.Lend, trouble: str) -> list[Effect]:
        """A person wants one; ``trouble``: why nobody can be lent any here."""
        live = self._table.find(message.task, message.terminal)
        if isinstance(live, str):
            trouble = live
        elif live.ended:
            trouble = f"terminal {live.name}: its program has {live.ended}"
        elif live.held:
            trouble = f"terminal {live.name} is frozen; thaw it first"
        elif live.lent_to:
            trouble = f"{live.lent_to} has taken terminal {live.name} over"
        if trouble or isinstance(live, str):
            return [c.Post(m.Lent(message.token, trouble=trouble))]
        return [c.LendTerminal(message.token, live.key, live.name, message.by)]


def _taken(live: Live, event: c.Taken) -> list[Effect]:
    by = event.by or live.lent_to
    live.lent_to = event.by
    return [c.Post(m.TerminalTaken(live.execute.task, live.name, by, on=bool(event.by)))]
