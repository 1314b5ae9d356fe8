"""The live terminals of this executor: opened, typed at, looked at, held, lent, closed.

Owns: which terminal is which, the calls that wait for one to come to rest, who is visiting.
Must not know: which call may have a terminal when (rules.py), how a sandbox is made.
Invariants: nobody waits for a terminal but the call that asked; every wait ends, with what is shown then;
            while a terminal stands still no wait runs out.
Source: DESIGN §9 "Streams"; the effects and events are calls.py's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, assert_never

from ....proto import messages as m
from ....proto.errors import HomeostatError
from ....proto.ids import Key
from .. import calls as c, outcomes
from ..quiet import State
from ..tools import terminals as tool
from .keys import typed
from .lending import Lending, Visitor
from .live import Live, Loop
from .rest import Wait
from .view import View

_ROWS, _COLS = (2, 200), (20, 400)


class Sandboxes(Protocol):
    """What this needs of them."""

    def treat(self, effect: c.Kill | c.Freeze | c.Thaw) -> None:
        """Kill one, or let it stand still or go on."""

    def look(self, key: Key) -> None:
        """See what its foreground is at; its Live is told."""


@dataclass(frozen=True)
class Told:
    """Who is told, and what else is to be done."""

    happened: Callable[[c.Event], None]
    """The core is to know."""
    post: Callable[[m.FromExecutor], None]
    """The gate is to know."""
    keep_stage: Callable[[Key, Key], None]
    """Let a terminal's stage go on under another key. Raises HomeostatError, OSError."""


@dataclass
class _Held:
    """One terminal here."""

    key: Key
    live: Live
    view: View
    closing: c.CloseTerminal | None = None
    frozen_for: set[str] = field(default_factory=set)
    still: bool = False
    visitor: Visitor | None = None
    lent_to: str = ""
    own_size: tuple[int, int] = (0, 0)


class Desk:
    """All of them."""

    def __init__(self, loop: Loop, sandboxes: Sandboxes, told: Told, listener: int | None) -> None:
        self._loop = loop
        self._sandboxes = sandboxes
        self._told = told
        self._held: dict[Key, _Held] = {}
        self._waits: dict[Key, Wait] = {}
        self._lending = Lending(loop, self, listener)

    @property
    def why_not_lent(self) -> str:
        """Why no terminal of this executor can be lent; empty when they can."""
        return "" if self._lending.can_lend else "this executor was given no socket for people to come to"

    # -- the core's effects ---------------------------------------------------------------------------
    def open(self, execute: m.Execute, name: str) -> Live:
        """A terminal is about to be made; the call that asked waits for it. Raises ToolError."""
        asked = tool.parse(execute)
        if not isinstance(asked, tool.Open):
            raise TypeError(f"{execute.tool} opens nothing")
        live = Live(self._loop, asked.rows, asked.cols)
        held = _Held(execute.key, live, View(name, tool.program(asked.command)))
        live.on_end = lambda: self._ended(held)
        live.on_look = lambda state: self._looked(held, state)
        live.on_print = lambda: self._told.happened(c.Taken(held.key, held.lent_to))
        self._held[held.key] = held
        self._wait(Wait(execute.key, held.key, time.monotonic() + asked.wait_s, is_opening=True))
        return live

    def do(self, effect: c.OfTerminal) -> None:
        """What the core has decided."""
        match effect:
            case c.UseTerminal():
                self._use(self._held[effect.opened_by], effect.execute)
            case c.CloseTerminal():
                self._close(self._held[effect.opened_by], effect)
            case c.HoldTerminal():
                self._freeze(effect.opened_by, "task", on=effect.on)
            case c.LendTerminal():
                self._lending.promise(effect.token, effect.opened_by, effect.by)
                rows, cols = self._held[effect.opened_by].live.screen.size
                self._told.post(m.Lent(effect.token, effect.name, rows, cols))
            case c.DropTerminal():
                for wait in [one for one in self._waits.values() if one.opened_by == effect.opened_by]:
                    self._finish(wait)  # somebody was still looking
                self._drop(effect.opened_by)
            case _:
                assert_never(effect)

    def treat(self, effect: c.Kill | c.Freeze | c.Thaw) -> None:
        """A call is to end, to stand still or to go on: of a terminal's call, what that means here."""
        wait = self._waits.get(effect.key)
        opened_by = wait.opened_by if wait else effect.key
        if opened_by not in self._held:
            closes = any(held.closing and held.closing.key == effect.key for held in self._held.values())
            if closes and isinstance(effect, c.Freeze):
                self._told.happened(c.Stopped(effect.key))  # what is being killed needs not stand still
            elif not closes:
                self._sandboxes.treat(effect)
        elif not isinstance(effect, c.Kill):
            self._freeze(opened_by, effect.key, on=isinstance(effect, c.Freeze))
        elif opened_by == effect.key:
            self._sandboxes.treat(effect)
        elif wait is not None:
            self._finish(wait)

    def still(self, key: Key) -> list[Key]:
        """A sandbox stands still; gives the calls that stand still with it."""
        held = self._held.get(key)
        if held is None:
            return [key]
        held.still = True
        return [key, *(Key(one) for one in held.frozen_for if one not in {key, "task"})]

    def close(self) -> None:
        """The executor leaves."""
        for held in list(self._held.values()):
            self._drop(held.key, "homeostat is being stopped or restarted, and the terminal ends")
        self._lending.close()

    # -- typing and looking ---------------------------------------------------------------------------
    def _use(self, held: _Held, execute: m.Execute) -> None:
        asked, now = tool.parse(execute), time.monotonic()
        match asked:
            case tool.Send():
                self._type(held.live, asked)
                self._wait(Wait(execute.key, held.key, now + asked.wait_s))
            case tool.Show():
                self._wait(Wait(execute.key, held.key, now, history=asked.history, is_looking=True))
            case tool.Open() | tool.Close():
                raise TypeError(f"{execute.tool} does not use a terminal")
            case _:
                assert_never(asked)

    def _type(self, live: Live, asked: tool.Send) -> None:
        rows, cols = live.screen.size
        live.resize(asked.rows or rows, asked.cols or cols)
        live.type(typed(asked.text, asked.keys, application=live.screen.wants_application_keys))

    def _wait(self, wait: Wait) -> None:
        self._waits[wait.key] = wait
        self._tend(wait)

    def _tend(self, wait: Wait) -> None:
        """See how far it is, and come back."""
        held = self._held.get(wait.opened_by)
        if self._waits.get(wait.key) is not wait or held is None or held.frozen_for:
            return
        live, now = held.live, time.monotonic()
        ended = live.end is not None or live.never_ran
        match wait.check(now, live.moved_at, settled=live.settled, ended=ended):
            case "look":
                self._sandboxes.look(held.key)
            case "done":
                self._finish(wait)
                return
        if not wait.returning:
            wait.returning = True
            self._loop.call_later(wait.again_s, lambda: self._back(wait))

    def _back(self, wait: Wait) -> None:
        wait.returning = False
        self._tend(wait)

    def _looked(self, held: _Held, state: State) -> None:
        held.view.state = state
        for wait in [wait for wait in self._waits.values() if wait.opened_by == held.key]:
            if wait.looked(state, time.monotonic(), held.live.moved_at):
                self._finish(wait)

    def _finish(self, wait: Wait) -> None:
        held = self._held[wait.opened_by]
        del self._waits[wait.key]
        untyped = 0 if wait.is_looking else held.live.give_up_typing()
        text = held.view.text(held.live, history=wait.history, opened=wait.is_opening, untyped=untyped)
        if not held.live.never_ran:  # else NotLaunched ends the call
            self._told.happened(c.Rested(wait.key, text))

    # -- ends -----------------------------------------------------------------------------------------
    def _ended(self, held: _Held) -> None:
        if (event := held.live.end) is None:
            return
        how = f"exited with code {event.exit_code}"
        if event.signal is not None:
            how = f"was killed by {outcomes.signal_name(event.signal)}"
        held.view.ended = how
        self._told.happened(c.TerminalEnded(held.key, event.exit_code, event.signal))
        if held.visitor is not None:
            held.visitor.bye(f"the program {how}")
        if held.closing is not None:
            self._closed(held, held.closing)

    def _close(self, held: _Held, effect: c.CloseTerminal) -> None:
        held.closing = effect
        if held.live.end is None:
            held.view.was_closed = True
            self._sandboxes.treat(c.Kill(held.key))
        else:
            self._closed(held, effect)

    def _closed(self, held: _Held, effect: c.CloseTerminal) -> None:
        text, kept = held.view.text(held.live), effect.keep
        if kept:
            try:
                self._told.keep_stage(held.key, effect.key)
            except (HomeostatError, OSError) as error:
                text, kept = f"{text}\n[its changes can't be kept: {error}]", False
        self._told.happened(c.TerminalClosed(effect.key, held.key, text, kept))

    def _drop(self, key: Key, reason: str = "the terminal was closed") -> None:
        if (held := self._held.pop(key, None)) is None:
            return
        if held.visitor is not None:
            held.visitor.bye(reason)
        held.live.close()

    # -- standing still -------------------------------------------------------------------------------
    def _freeze(self, key: Key, whom: str, *, on: bool) -> None:
        held = self._held[key]
        before = bool(held.frozen_for)
        (held.frozen_for.add if on else held.frozen_for.discard)(whom)
        now = bool(held.frozen_for)
        if now and before and on and held.still and whom != "task":
            self._told.happened(c.Stopped(Key(whom)))
        if now == before:
            return
        held.still = False
        held.live.freeze(on=now)
        self._sandboxes.treat(c.Freeze(key) if now else c.Thaw(key))
        for wait in [wait for wait in self._waits.values() if wait.opened_by == key]:
            wait.stand(time.monotonic(), still=now)
            self._tend(wait)

    # -- people ---------------------------------------------------------------------------------------
    def came(self, visitor: Visitor, opened_by: Key, by: str, rows: int, cols: int) -> None:
        """A person has come with a good token."""
        held = self._held.get(opened_by)
        trouble = "the terminal is gone" if held is None or held.live.end else ""
        if held is not None and not trouble:
            trouble = "somebody else has taken it over" if held.visitor else ""
            trouble = trouble or ("it is frozen; thaw it first" if held.frozen_for else "")
        if held is None or trouble:
            visitor.bye(trouble)
            return
        held.visitor, held.lent_to, held.own_size = visitor, by, held.live.screen.size
        held.live.resize(_within(rows, *_ROWS), _within(cols, *_COLS))
        visitor.paint(held.live.repaint)
        held.live.watch(visitor)
        self._told.happened(c.Taken(held.key, by))

    def typed(self, visitor: Visitor, data: bytes) -> None:
        """They type; at one that stands still nothing is typed."""
        held = self._visited(visitor)
        if held is not None and not held.frozen_for:
            held.live.type(data)

    def takes_more(self, visitor: Visitor) -> bool:
        """Whether they may type on; at one that stands still they may, and it is lost."""
        held = self._visited(visitor)
        return held is None or bool(held.frozen_for) or held.live.takes_more

    def resized(self, visitor: Visitor, rows: int, cols: int) -> None:
        """Their terminal has another size; or the same, and then they want to see the whole of it again."""
        if (held := self._visited(visitor)) is None:
            return
        size = (_within(rows, *_ROWS), _within(cols, *_COLS))
        if size == held.live.screen.size:
            visitor.paint(held.live.repaint)
        held.live.resize(*size)

    def left(self, visitor: Visitor) -> None:
        """They have handed it back; it has its former size again."""
        if (held := self._visited(visitor)) is None:
            return
        held.visitor, held.lent_to = None, ""
        held.live.watch(None)
        held.live.resize(*held.own_size)
        self._told.happened(c.Taken(held.key, ""))

    def _visited(self, visitor: Visitor) -> _Held | None:
        return next((held for held in self._held.values() if held.visitor is visitor), None)


def _within(number: int, least: int, most: int) -> int:
    return max(least, min(most, number))
