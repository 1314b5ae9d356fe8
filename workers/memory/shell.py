"""The memory in its process: follows the journal into its store and answers recalls.

Owns: the open store, and what happens when it fails.
Must not know: what records mean; core.py decides, store.py keeps.
Invariant: a store that fails is made anew or waited for; what isn't written is never acknowledged.
Source: DESIGN §6 (memory), §11.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, assert_never

from ...proto.errors import DiskFullError
from ...proto.messages import JournalRecord, ToMemory
from ..phase import Phase
from .core import (
    Core,
    Due,
    Effect,
    Paused,
    Post,
    Reopened,
    Report,
    Search,
    Searched,
    SearchFailed,
    Store,
    Stored,
    StoreLater,
    Welcomed,
)
from .store import DamagedError, SearchTimeoutError, Store as Database

if TYPE_CHECKING:
    from ..runtime import Context, Loop

NO_ROOM_PAUSE_S = 10.0


class Memory:
    """What the loop calls."""

    def __init__(self, context: Context, loop: Loop) -> None:
        self._loop = loop
        self._folder = context.home / "memory"
        self._database = Database(self._folder)
        self._core = Core(context.index)

    def on_welcome(self) -> None:
        """Go on from where we stand."""
        self._tell(Welcomed(self._database.position))

    def on_message(self, message: ToMemory) -> None:
        """Decide and do."""
        self._tell(message)

    def on_stop(self, deadline_s: float) -> None:  # noqa: ARG002  # a batch takes milliseconds
        """Write what waits, and leave."""
        self._tell(Due())
        self._database.close()
        self._loop.finish()

    def _tell(self, message: ToMemory | Report) -> None:
        for effect in self._core.handle(message):
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        with self._loop.phase.at(Phase.WORK):  # A search has its own limit, and a batch ends with a sync.
            self._do(effect)

    def _do(self, effect: Effect) -> None:
        match effect:
            case Post():
                self._loop.post(effect.message)
            case Store():
                self._store(effect.records)
            case StoreLater():
                self._loop.call_later(effect.delay_s, lambda: self._tell(Due()))
            case Search():
                self._search(effect)
            case _:
                assert_never(effect)

    def _store(self, records: tuple[JournalRecord, ...]) -> None:
        if not self._database.is_current:
            self._reopen("its file was taken away")
            return
        try:
            position = self._database.add(records)
        except DamagedError as error:
            self._reopen(str(error))
        except DiskFullError as error:
            print(f"memory waits: {error}", file=sys.stderr)
            self._tell(Paused())
            self._loop.call_later(NO_ROOM_PAUSE_S, self._go_on)
        else:
            self._tell(Stored(position))

    def _go_on(self) -> None:
        self._tell(Reopened(self._database.position))

    def _reopen(self, reason: str) -> None:
        """Begin anew from nothing (or from what a rebuild left) and follow again."""
        print(f"memory is made anew: {reason}", file=sys.stderr)
        self._database.close()
        self._database = Database(self._folder, anew=True)
        self._go_on()

    def _search(self, search: Search) -> None:
        if not self._database.is_current:
            self._reopen("its file was taken away")
        try:
            found = self._database.search(search.expression, search.limit, search.timeout_s)
        except SearchTimeoutError:
            self._tell(SearchFailed(search.key, "timeout", f"the search took over {search.timeout_s:g} s"))
        except DamagedError as error:
            self._reopen(str(error))
            self._tell(SearchFailed(search.key, "error", "the memory was damaged and is being made anew"))
        else:
            self._tell(Searched(search.key, tuple(found), search.limit_bytes))


def make(context: Context, loop: Loop) -> Memory:
    """Open the memory; it serves from now on. Raises HomeError."""
    memory = Memory(context, loop)
    loop.ready()
    return memory
