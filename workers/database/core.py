"""The database worker's decisions: which call runs when, and how each is answered.

Owns: the calls that are open, until the gate forgets them; how many run at once.
Must not know: drivers, threads, the clock.
Invariant: a key runs at most once at a time, whoever asks again; what has ended is answered from here.
Source: DESIGN §4 (keys, ``witnessed``), §6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import msgspec

from ...proto.config import Connection
from ...proto.databases import is_sqlite
from ...proto.ids import CallStatus, Key
from ...proto.messages import Abort, Ended, Execute, Forget, ToDatabase
from .calls import (
    EXECUTE,
    TOOLS,
    Call,
    Done,
    Effect,
    Event,
    How,
    Interrupt,
    Job,
    Later,
    Leave,
    Overdue,
    Post,
    Question,
    Result,
    Run,
    State,
    Stopping,
)

AT_ONCE = 8
"""So many calls run at once: a thread and a connection each."""
AT_ONCE_EACH = 4
"""So many of one connection: a slow database leaves the others theirs."""
WAITING_LIMIT = 4_096
_STATUS: dict[How, CallStatus] = {How.OK: "ok", How.ERROR: "error", How.IN_DOUBT: "in_doubt"}
_ENDINGS = {
    "timeout": "stopped at its deadline; nothing was changed",
    "cancelled": "cancelled; nothing was changed",
}


class Core:
    """``handle`` is the only door."""

    def __init__(self, connections: tuple[Connection, ...]) -> None:
        self._connections: Mapping[str, Connection] = {each.name: each for each in connections}
        self._calls: dict[Key, Call] = {}
        self._stopping = False

    def handle(self, message: ToDatabase | Event) -> list[Effect]:
        """Take a message of the gate or a report of the shell; give what is to be done, in order."""
        match message:
            case Execute():
                return self._asked(message)
            case Abort():
                return self._end(message.key, message.status)
            case Overdue():
                return self._end(message.key, "timeout")
            case Forget():
                return self._forget(message.key)
            case Done():
                return self._done(message.key, message.result)
            case Stopping():
                return self._stop()
            case _:
                assert_never(message)

    # -- a call begins ---------------------------------------------------------------------------------
    def _asked(self, execute: Execute) -> list[Effect]:
        """Take a call; one that is known is not begun again."""
        call = self._calls.get(execute.key)
        if call is not None:
            if call.outcome is not None:
                return [Post(call.outcome)]
            if call.state is State.WAITING:
                call.execute = execute  # It may go on now, or not any more.
                return self._start()
            return []
        try:
            question = self._question(execute)
        except _WrongError as error:
            # What may have been carried out before, on a connection that is gone now, nobody can look up.
            status: CallStatus = "in_doubt" if error.blinds and execute.resumed else "error"
            return [Post(Ended(execute.key, status, str(error)))]
        self._calls[execute.key] = Call(execute, question)
        return [Later(execute.key, execute.timeout_s), *self._start()]

    def _question(self, execute: Execute) -> Question:
        """The call's arguments, as far as they can be meant. Raises _WrongError."""
        if execute.tool not in TOOLS:
            raise _WrongError(f"there is no tool {execute.tool[:64]!r} here")
        try:
            question = msgspec.json.decode(execute.args, type=Question)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _WrongError(f"bad arguments: {error}") from error
        connection = self._connections.get(question.connection)
        if connection is None:
            raise _WrongError(
                f"there is no connection {question.connection[:64]!r}", blinds=execute.tool == EXECUTE
            )
        if execute.tool == EXECUTE and not connection.write:
            raise _WrongError(
                f"connection {connection.name} is only read (its setting write is false): use db.query",
                blinds=True,
            )
        if (
            not execute.resumed
            and sum(call.state is State.WAITING for call in self._calls.values()) >= WAITING_LIMIT
        ):
            raise _WrongError(f"{WAITING_LIMIT} calls wait for databases already; ask again later")
        return question

    def _start(self) -> list[Effect]:
        """Begin what waits and has room, in the order in which it came."""
        effects: list[Effect] = []
        if self._stopping:
            return effects
        running = [call for call in self._calls.values() if call.state is State.RUNNING]
        for call in list(self._calls.values()):
            if len(running) >= AT_ONCE:
                break
            if call.state is State.WAITING and not call.execute.halted and self._has_room(call, running):
                effects.append(self._run(call))
                running.append(call)
        return effects

    def _has_room(self, call: Call, running: list[Call]) -> bool:
        """A SQLite file takes one writer at a time: others would only spin."""
        same = [other for other in running if other.question.connection == call.question.connection]
        if call.writes and is_sqlite(self._connections[call.question.connection].url):
            return len(same) < AT_ONCE_EACH and not any(other.writes for other in same)
        return len(same) < AT_ONCE_EACH

    def _run(self, call: Call, *, settle: bool = False) -> Run:
        call.state = State.RUNNING
        connection, execute = self._connections[call.question.connection], call.execute
        return Run(
            Job(
                call.key,
                call.writes,
                call.question,
                min(connection.statement_s, execute.timeout_s),
                execute.timeout_s,
                min(call.question.limit, connection.rows),
                execute.output_limit_bytes,
                execute.resumed,
                settle,
            )
        )

    # -- a call ends -----------------------------------------------------------------------------------
    def _end(self, key: Key, status: CallStatus) -> list[Effect]:
        """Let a call end early. One that may have been carried out before is asked about first."""
        call = self._calls.get(key)
        if call is None or call.state is State.ENDED or call.ending is not None:
            return []
        call.ending = status
        if call.state is State.RUNNING:
            return [Interrupt(key)]
        if call.writes and call.execute.resumed and not self._stopping:
            return [self._run(call, settle=True)]
        return self._ended(call, status, _ENDINGS.get(status, status))

    def _done(self, key: Key, result: Result) -> list[Effect]:
        call = self._calls[key]
        if result.how is How.STOPPED and call.ending is None and self._stopping:
            del self._calls[key]  # Nothing happened: our successor begins it again.
            return self._leave()
        if result.how is How.STOPPED:
            status = call.ending or "timeout"
            text = result.text or _ENDINGS.get(status, status)
        else:
            status, text = _STATUS[result.how], result.text
        told = self._ended(call, status, text, result.note, result.duration_s)
        return [*told, *self._start(), *self._leave()]

    def _ended(
        self, call: Call, status: CallStatus, text: str, note: str = "", duration_s: float = 0.0
    ) -> list[Effect]:
        call.state = State.ENDED
        size = len(text.encode("utf-8", "surrogatepass"))
        call.outcome = Ended(call.key, status, text, output_bytes=size, duration_s=duration_s, note=note)
        return [Post(call.outcome)]

    def _forget(self, key: Key) -> list[Effect]:
        call = self._calls.get(key)
        if call is not None and call.state is State.ENDED:
            del self._calls[key]
        return []

    # -- the end ---------------------------------------------------------------------------------------
    def _stop(self) -> list[Effect]:
        self._stopping = True
        running = [key for key, call in self._calls.items() if call.state is State.RUNNING]
        return [*(Interrupt(key) for key in running), *self._leave()]

    def _leave(self) -> list[Effect]:
        busy = any(call.state is State.RUNNING for call in self._calls.values())
        return [Leave()] if self._stopping and not busy else []


class _WrongError(Exception):
    """The call can't be meant; ``blinds``: though it may have been, before."""

    def __init__(self, reason: str, *, blinds: bool = False) -> None:
        super().__init__(reason)
        self.blinds = blinds
