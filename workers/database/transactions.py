"""One call: a statement in a transaction of its own, and for a change its witness before it.

Owns: the order of steps, and what an error at each of them says about the effect.
Must not know: how a kind of database is spoken to (sqlite.py, postgresql.py); which calls there are.
Invariant: nothing is told as not done unless the database said so, or its key could be claimed after it.
    # INVARIANT: test_execute_says_in_doubt_only_when_nobody_can_know
Source: DESIGN §4 (``witnessed``), law 3.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from . import results, witness
from .backend import Backend, Kind, UnusableError
from .calls import How, Job, Result
from .pool import InterruptedJobError, Stop
from .statements import EFFECTS, Statement, StatementError, parse

TRIES = 5
"""So often a transaction is begun that others were in the way of."""
PAUSE_S = 0.05
SETTLE_S = 4.0
"""So long it is looked up what became of an effect, once the time of its call is over."""
ALREADY = "it had been carried out before; this is what it came to then"
_NOTHING = "; nothing was changed"
_TOO_MUCH = "it needs more memory than it may have: ask for less, or for a part of a value"
_NO_TABLE = f"homeostat's own table {EFFECTS} can't be made; an operator can (docs/OPERATIONS.md, Databases)"
_SHOWING = frozenset({"SELECT", "WITH", "VALUES", "TABLE"})
_CHANGING = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "WITH"})


class Transactions:
    """What the threads run."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._backends = backends
        self._prepared: set[str] = set()

    def do(self, job: Job, stop: Stop) -> Result:
        """Carry a call out. Never raises what a database, a model or an operator can be the reason of."""
        began_s = time.monotonic()
        backend = self._backends[job.question.connection]
        try:
            result = _Change(self, backend, job, stop).run() if job.writes else _read(backend, job, stop)
        except StatementError as error:
            result = Result(How.ERROR, str(error))
        except UnusableError as error:
            result = Result(How.ERROR, str(error))
        except InterruptedJobError:
            result = Result(How.STOPPED, "")
        except MemoryError:  # Of a change only before its first attempt, and none of that was here.
            result = Result(How.IN_DOUBT if job.writes and job.resumed else How.ERROR, _TOO_MUCH)
        return replace(result, duration_s=time.monotonic() - began_s)

    def rest(self) -> None:
        """Close connections that nobody uses; only while no job runs."""
        for backend in self._backends.values():
            backend.rest()

    def is_prepared(self, name: str) -> bool:
        """Whether our table is in this database."""
        return name in self._prepared

    def prepared(self, name: str) -> None:
        """It is there, and committed."""
        self._prepared.add(name)


def _statement(job: Job, backend: Backend) -> Statement:
    """The job's statement, checked. Raises StatementError."""
    statement = parse(job.question.sql, backend.dialect)
    statement.check(backend.dialect, writes=job.writes)
    return statement


def _run(connection: Connection, statement: Statement, job: Job) -> str:
    """Run the model's statement; what it came to, as text. Raises DBAPIError."""
    result = connection.execute(statement.clause(job.question.parameters), job.question.parameters)
    if not result.returns_rows:
        return _told(result.rowcount, statement)
    names = [column[0] for column in result.cursor.description]
    table = results.read(result, names, job.rows, job.limit_bytes)
    if not job.writes:
        result.close()
        return table.text()
    text = results.drain(result, table).text()
    return text if statement.words[0] in _SHOWING else text + _told(table.count, statement)


def _told(count: int, statement: Statement) -> str:
    if count < 0 or statement.words[0] not in _CHANGING:
        return f"done: {' '.join(statement.words[:2])}\n"
    return f"{count:,} {'row' if count == 1 else 'rows'} changed\n"


def _read(backend: Backend, job: Job, stop: Stop) -> Result:
    """A question: in a transaction that only reads and is always taken back."""
    statement = _statement(job, backend)
    statement.clause(job.question.parameters)
    until_s = time.monotonic() + job.left_s
    for attempt in itertools.count(1):
        stop.check()
        try:
            with backend.connect(writes=False) as connection:
                backend.begin(connection, job.statement_s, writes=False)
                with backend.model_speaks(connection, stop, job.statement_s, statement.names):
                    text = _run(connection, statement, job)
                connection.rollback()
            return Result(How.OK, text)
        except DBAPIError as error:
            trouble = backend.trouble(error)
            if attempt == 1 and backend.recover(error):
                continue
            again = trouble.kind is Kind.BUSY or (trouble.kind is Kind.LOST and attempt == 1)
            if again and time.monotonic() < until_s:
                stop.wait(_pause_s(attempt))
                continue
            if trouble.kind is Kind.STOPPED:
                stop.check()
                return Result(How.STOPPED, trouble.text or f"stopped after {job.statement_s:g} s")
            return Result(How.ERROR, trouble.text)
    raise AssertionError  # count() has no end


def _pause_s(attempt: int) -> float:
    return float(PAUSE_S * min(attempt, 8) * (0.5 + random.random()))


class _Change:
    """One change, from its first attempt to what is known of it."""

    def __init__(self, house: Transactions, backend: Backend, job: Job, stop: Stop) -> None:
        self._house, self._backend, self._job, self._stop = house, backend, job, stop
        self._until_s = time.monotonic() + job.left_s
        self._unknown = job.resumed
        """Whether it may have happened; never, once its key could be claimed and nothing was committed."""
        self._committing = False
        self._claimed = False

    def run(self) -> Result:
        """Until something is known, or time is up."""
        if self._job.settle:
            return self._settle("")
        statement = _statement(self._job, self._backend)
        statement.clause(self._job.question.parameters)
        for attempt in itertools.count(1):
            try:
                return self._attempt(statement)
            except DBAPIError as error:
                if (result := self._judge(error, attempt)) is not None:
                    return result
            except (InterruptedJobError, UnusableError, StatementError) as error:
                if self._unknown:
                    return self._settle(str(error))
                raise
            except MemoryError:
                self._unknown = self._unknown or self._committing
                if self._unknown:
                    return self._settle(_TOO_MUCH)
                return Result(How.ERROR, _TOO_MUCH + _NOTHING)
        raise AssertionError  # count() has no end

    # -- one transaction -------------------------------------------------------------------------------
    def _attempt(self, statement: Statement | None) -> Result:
        """Claim, do, record, commit; without a statement only find out. Raises DBAPIError."""
        job, backend = self._job, self._backend
        self._claimed = self._committing = False
        with backend.connect(writes=True) as connection:
            if (told := self._claim(connection)) is not None:
                return Result(How.OK, told, ALREADY)
            self._claimed, self._unknown = True, False
            if statement is None:
                connection.rollback()
                return Result(How.STOPPED, "")
            backend.bound(connection, job.statement_s)
            with backend.model_speaks(connection, self._stop, job.statement_s, statement.names):
                text = _run(connection, statement, job)
            if not backend.in_transaction(connection):
                self._unknown = True
                raise StatementError("the statement ended its transaction by itself")
            try:
                witness.record(connection, job.key, text)
            except witness.TakenError:
                raise StatementError("the statement took away its own witness" + _NOTHING) from None
            self._committing = True
            backend.commit(connection, self._stop, self._left_s())
        return Result(How.OK, text)

    def _claim(self, connection: Connection) -> str | None:
        """Begin, and claim the key; or give what the effect came to. Raises DBAPIError."""
        wait_s = max(1.0, self._left_s())
        if not self._house.is_prepared(self._job.question.connection):
            self._prepare(connection, wait_s)
        self._backend.begin(connection, wait_s, writes=True)
        settling = self._job.settle
        guard = nullcontext() if settling else self._backend.interruptible(connection, self._stop)
        try:
            with guard:
                witness.claim(connection, self._job.key)
        except IntegrityError:
            connection.rollback()
            if (told := witness.recorded(connection, self._job.key)) is None:
                raise
            return told
        return None

    def _prepare(self, connection: Connection, wait_s: float) -> None:
        """Have our table there, and what is long past in it gone. Raises DBAPIError."""
        self._backend.begin(connection, wait_s, writes=True)
        try:
            witness.prepare(connection)
            self._backend.commit(connection, self._stop, wait_s)
        except DBAPIError as error:
            if (trouble := self._backend.trouble(error)).kind is not Kind.REFUSED:
                raise
            # Of two who make it at once one fails; so it is looked for once more.
            connection.rollback()
            self._backend.begin(connection, wait_s, writes=True)
            if not witness.is_there(connection):
                raise UnusableError(f"{trouble.text}: {_NO_TABLE}") from error
            connection.rollback()
        self._house.prepared(self._job.question.connection)
        self._backend.begin(connection, wait_s, writes=True)
        try:
            witness.prune(connection)
            self._backend.commit(connection, self._stop, wait_s)
        except DBAPIError as error:
            # A role that may not delete loses nothing but room.
            print(f"{EFFECTS} was not pruned: {self._backend.trouble(error).text}", file=sys.stderr)
            connection.rollback()

    # -- what an error says ----------------------------------------------------------------------------
    def _judge(self, error: DBAPIError, attempt: int) -> Result | None:
        """The result, or None to try again. Raises InterruptedJobError."""
        trouble = self._backend.trouble(error)
        if self._committing and trouble.kind in {Kind.LOST, Kind.BROKEN}:
            self._unknown = True
            return self._settle(f"the connection was lost while it was committed: {trouble.text}")
        early = not self._claimed
        if self._is_worth_another(trouble.kind, attempt) and self._left_s() > 0:
            self._pause(attempt)
            return None
        if self._unknown:
            return self._settle(trouble.text)
        if trouble.kind is Kind.STOPPED:
            self._stop.check()
            said = trouble.text or f"stopped after {self._job.statement_s:g} s"
            return Result(How.STOPPED, said + _NOTHING)
        if trouble.kind is Kind.BUSY and early:
            return Result(How.STOPPED, f"it stayed locked for {self._job.left_s:g} s{_NOTHING}")
        return Result(How.ERROR, trouble.text + _NOTHING)

    def _is_worth_another(self, kind: Kind, attempt: int) -> bool:
        """Before the claim nothing was tried yet, so it costs only time; after it, the model's statement."""
        if self._claimed:
            return kind is Kind.BUSY and attempt < TRIES
        return kind is Kind.BUSY or (kind is Kind.LOST and (self._unknown or attempt == 1))

    def _settle(self, reason: str) -> Result:
        """Find out whether it happened; in doubt when nobody can say in time."""
        until_s = time.monotonic() + SETTLE_S
        if not (self._stop.is_asked or self._job.settle):
            until_s = max(until_s, self._until_s)
        self._job = replace(self._job, settle=True)
        text = reason
        for attempt in itertools.count(1):
            try:
                result = self._attempt(None)
            except (DBAPIError, UnusableError) as error:
                text = self._backend.trouble(error).text if isinstance(error, DBAPIError) else str(error)
            except MemoryError:
                text = _TOO_MUCH
            else:
                if result.how is How.STOPPED and reason:
                    return Result(How.ERROR, f"{reason}; it was looked up{_NOTHING}")
                return result
            if self._stop.is_asked:
                until_s = min(until_s, time.monotonic() + SETTLE_S)
            if time.monotonic() > until_s:
                break
            time.sleep(_pause_s(attempt))
        return Result(How.IN_DOUBT, f"whether it happened can't be looked up: {text}")

    def _left_s(self) -> float:
        return self._until_s - time.monotonic()

    def _pause(self, attempt: int) -> None:
        try:
            self._stop.wait(_pause_s(attempt))
        except InterruptedJobError:
            if not self._unknown:
                raise
