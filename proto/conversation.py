"""One request and its answer, as a client lives through them: no sockets, no clock.

Owns: when a request is sent again, when waiting ends, what an answer means, how a watch moves on.
Must not know: ZeroMQ, threads, asyncio; client.py and client_async.py are the shells.
Invariant: what is sent again is harmless to repeat; an answer with another request's id is never taken.
Source: docs/PROTOCOL.md; DESIGN §13 (a client that was away misses nothing).
"""

from __future__ import annotations

import secrets
import stat
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from . import wire
from .codec import decode_reply, encode
from .config import ASK_AS_OWNER, SUN_PATH_BYTES, start_remedy
from .errors import (
    HomeError,
    HomeostatError,
    MessageTooLargeError,
    ProtocolError,
    RefusedError,
    UnreachableError,
)

RESEND_S = 2.0
"""An unanswered request is repeated after this long, even if the connection never seemed to break."""
WATCH_WAIT_S = 20.0
"""How long one watch request asks to be held back when there is nothing to tell."""

A = TypeVar("A", bound=wire.Reply)


class WireRefusedError(RefusedError):
    """The gate understood the request and refused it; ``refusal`` is its answer, ``code`` its code."""

    def __init__(self, refusal: wire.Refused) -> None:
        super().__init__(
            refusal.message, field=refusal.field, expected=refusal.expected, remedy=refusal.remedy
        )
        self.refusal = refusal

    def diagnostics(self) -> str:
        """Name the code, and the field and the time to come back where there are such."""
        text = f"refused ({self.refusal.code}): {super().diagnostics()}"
        if self.refusal.retry_after_s is not None:
            text += f"\n  Try again in {self.refusal.retry_after_s:g} s."
        return text


class Numbering:
    """Request ids that no other client of this gate uses."""

    def __init__(self) -> None:
        prefix = secrets.token_hex(6)
        self._ids = (f"{prefix}-{number}" for number in count(1))

    def stamp(self, request: wire.Request) -> wire.Request:
        """The same request with an id of its own."""
        return msgspec.structs.replace(request, rid=next(self._ids))


class Exchange(Generic[A]):
    """A request on its way. The shell sends ``payload``, feeds what happens, and sleeps for ``pause_s``.

    ``held_s`` is how long the gate was asked to hold the answer back.
    """

    def __init__(
        self, request: wire.Request, answer: type[A], now: float, timeout_s: float, held_s: float = 0.0
    ) -> None:
        self.payload: bytes = encode(request)
        if len(self.payload) > wire.REQUEST_LIMIT_BYTES:
            # Said here in the gate's words: its port drops a peer that sends much more, request id and all.
            raise WireRefusedError(
                wire.Refused(
                    rid=request.rid,
                    code=MessageTooLargeError.code,
                    message=f"request of {len(self.payload)} bytes",
                    expected=f"at most {wire.REQUEST_LIMIT_BYTES} bytes",
                )
            )
        self._rid = request.rid
        self._answer = answer
        self._timeout_s = timeout_s
        self._patience_s = held_s + timeout_s
        self._pace_s = held_s + RESEND_S
        self._deadline = now + self._patience_s
        self._resend_at = now + self._pace_s

    def pause_s(self, now: float) -> float:
        """How long nothing needs doing. Raises UnreachableError when the answer is overdue."""
        if now >= self._deadline:
            raise UnreachableError(
                "no answer from the gate within its time",
                remedy="Is the supervisor running? See: homeostat status",
            )
        return max(0.0, min(self._deadline, self._resend_at) - now)

    def due(self, now: float) -> bool:
        """Whether the payload is to be sent again now."""
        if now < self._resend_at:
            return False
        self._resend_at = now + self._pace_s
        return True

    def connected(self, now: float) -> None:
        """A connection has been made anew: whatever the old one carried may be lost, so send again."""
        self._resend_at = now
        self._deadline = now + self._patience_s

    def disconnected(self, now: float) -> None:
        """The gate is gone: it has the ordinary time to come back, not the longer one of a held answer."""
        self._deadline = min(self._deadline, now + self._timeout_s)

    def take(self, data: bytes) -> A | None:
        """The answer, or None if these bytes answer something else.

        Raises WireRefusedError, ProtocolError.
        """
        reply = decode_reply(data)
        # A refusal of bytes that the gate couldn't read has no id; only one request is open, so it is ours.
        if reply.rid != self._rid and not (isinstance(reply, wire.Refused) and not reply.rid):
            return None
        if isinstance(reply, wire.Refused):
            raise WireRefusedError(reply)
        if not isinstance(reply, self._answer):
            raise ProtocolError(f"answer of type {type(reply).__name__}", expected=self._answer.__name__)
        return reply


class Watching:
    """The cursor of one watch: gives the next request, takes batches, knows when the task has ended."""

    def __init__(self, task: str, cursor: int, limit: int, wait_s: float = WATCH_WAIT_S) -> None:
        self.cursor = cursor
        self.ended = False
        self._task = task
        self._limit = limit
        self._wait_s = wait_s

    def request(self) -> wire.Watch:
        """Ask for what comes after the cursor."""
        return wire.Watch(task=self._task, cursor=self.cursor, limit=self._limit, wait_s=self._wait_s)

    def take(self, batch: wire.Events) -> Iterator[wire.Event]:
        """The events not seen before, each moving the cursor as it is handed out."""
        for event in batch.events:
            if event.position > self.cursor:
                self.cursor = event.position
                yield event
        self.cursor = max(self.cursor, batch.cursor)
        self.ended = batch.ended


def submission(objective: str, fields: dict[str, Any]) -> wire.Submit:
    """A submit that may be repeated: without a key it gets one."""
    request = wire.Submit(objective=objective, **fields)
    return request if request.key else msgspec.structs.replace(request, key=secrets.token_hex(16))


def join_pages(first: wire.Task, rest: list[wire.Task]) -> wire.Task:
    """One task with the steps of all its pages; the row is that of the newest page."""
    pages = [first, *rest]
    steps = {step.step: step for page in pages for step in page.steps}
    return wire.Task(task=pages[-1].task, steps=[steps[number] for number in sorted(steps)])


def local_endpoint(home: Path) -> str:
    """The address of the client port of a home. Raises HomeError, UnreachableError."""
    home = home.expanduser().absolute()
    path = home / "run" / "client.sock"
    if len(str(path).encode()) > SUN_PATH_BYTES:
        raise HomeError(
            f"{path}: too long for a unix socket",
            expected=f"at most {SUN_PATH_BYTES} bytes",
            remedy="Choose a home with a shorter path.",
        )
    try:
        there = stat.S_ISSOCK(path.stat().st_mode)
    except OSError as error:
        raise unreachable(home, path, error) from error
    if not there:
        raise UnreachableError(f"{path} is not a socket", remedy=start_remedy(home))
    return f"ipc://{path}"


def unreachable(home: Path, path: Path | str, error: OSError) -> HomeostatError:
    """What it means that a socket of a home can't be reached, in the same words wherever it is met."""
    if isinstance(error, PermissionError):
        return HomeError(f"{path}: permission denied", remedy=ASK_AS_OWNER)
    return UnreachableError(f"no supervisor answers on {home}", remedy=start_remedy(home))
