"""The database worker in its process: messages into the core, jobs into threads, words back to the gate.

Owns: the worker's loop side, its threads, how much memory it may take, when it closes idle connections.
Must not know: which call runs when; core.py decides. How one is carried out; transactions.py does.
Invariant: the loop never waits for a database.
Source: DESIGN §3, §4; setrlimit(2).
"""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from ...proto.messages import ToDatabase
from .calls import Effect, Event, Interrupt, Later, Leave, Overdue, Post, Run, Stopping
from .connections import backends
from .core import AT_ONCE, AT_ONCE_EACH, Core
from .pool import Pool
from .postgresql import forget_environment
from .transactions import Transactions

if TYPE_CHECKING:
    from ..runtime import Context, Loop, Timer

IDLE_S = 60.0
"""Connections that nobody has used for so long are closed."""
MEMORY_BYTES = 512 << 20
"""So much beyond what is there at the start: a row of 1 GB is an error of its call, no more."""
LEAVE_S = 2.0
"""So much of a stop's time is left for leaving."""


class Database:
    """What the loop calls."""

    def __init__(self, context: Context, loop: Loop) -> None:
        self._loop = loop
        connections = context.config.connection
        self._core = Core(connections)
        self._transactions = Transactions(backends(connections, context.home_name, AT_ONCE_EACH))
        self._pool = Pool(AT_ONCE, self._transactions.do)
        self._rest: Timer | None = None
        self._left = False
        loop.watch(self._pool.fd, self._collect)

    def on_welcome(self) -> None:
        """The gate will ask for whatever is open; nothing to say."""

    def on_message(self, message: ToDatabase) -> None:
        """Decide and do."""
        self._tell(message)

    def on_stop(self, deadline_s: float) -> None:
        """Break off what runs and leave; what was not committed has not happened, and is begun again."""
        self._tell(Stopping())
        if not self._left:
            self._loop.call_later(max(0.0, deadline_s - LEAVE_S), self._loop.finish)

    def _collect(self) -> None:
        for done in self._pool.done():
            self._tell(done)
        if self._pool.is_idle and not self._left:
            self._rest_later()

    def _tell(self, message: ToDatabase | Event) -> None:
        for effect in self._core.handle(message):
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Run():
                self._pool.run(effect.job)
            case Interrupt():
                self._pool.interrupt(effect.key)
            case Later():
                key = effect.key
                self._loop.call_later(effect.delay_s, lambda: self._tell(Overdue(key)))
            case Post():
                self._loop.post(effect.message)
            case Leave():
                self._leave()
            case _:
                assert_never(effect)

    def _rest_later(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
        self._rest = self._loop.call_later(IDLE_S, self._close_idle)

    def _close_idle(self) -> None:
        self._rest = None
        if self._pool.is_idle:
            self._transactions.rest()

    def _leave(self) -> None:
        """Nothing runs any more."""
        if self._left:
            return
        self._left = True
        self._loop.unwatch(self._pool.fd)
        self._pool.close()
        self._transactions.rest()
        self._loop.finish()


def make(context: Context, loop: Loop) -> Database:
    """Build the worker; it serves from now on. It opens nothing before it is asked."""
    forget_environment()
    bound_memory()
    database = Database(context, loop)
    loop.ready()
    return database


def bound_memory(status: Path = Path("/proc/self/status")) -> None:
    """Let this process take no more than so much beyond what it has. Raises OSError."""
    found = re.search(r"^VmData:\s*(\d+) kB", status.read_text(), re.MULTILINE)
    has_bytes = int(found[1]) * 1024 if found else 0
    limit = has_bytes + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
