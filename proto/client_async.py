"""The client library for asyncio: client.py's surface with ``async`` before it.

Owns: an asyncio DEALER to the client port.
Must not know: how the gate carries requests out.
Invariant: as client.py; concurrent callers of one client take turns.
Source: docs/PROTOCOL.md. zmq.asyncio costs a little per message: a client is not the hot path.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from . import wire
from .client import LINK_EVENTS, Curve, knock, note_link_event, prepare
from .conversation import Exchange, Numbering, Watching, join_pages, submission
from .errors import UnreachableError
from .records import Limits, Plan

A = TypeVar("A", bound=wire.Reply)


class AsyncClient:
    """A client of one gate; for one event loop. An async context manager. Arguments as Client's."""

    def __init__(
        self,
        endpoint: str,
        *,
        server_key: str | None = None,
        keys: Curve | None = None,
        timeout_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self._clock = clock
        self._numbering = Numbering()
        self._turn = asyncio.Lock()
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.DEALER)
        prepare(self._socket, server_key, keys)
        self._monitor = self._socket.get_monitor_socket(LINK_EVENTS)
        self._poller = zmq.asyncio.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._socket.connect(endpoint)
        self._first = True

    @classmethod
    def for_home(cls, home: Path | str, *, timeout_s: float = 10.0) -> Self:
        """The client of a home on this machine. Raises UnreachableError if no supervisor has one there."""
        return cls(knock(Path(home)), timeout_s=timeout_s)

    def close(self) -> None:
        """Let go of the socket; nothing that was answered is lost by it."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
        self._context.term()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- requests
    async def submit(
        self,
        objective: str,
        *,
        agent: str = "default",
        plan: Plan | None = None,
        workspace: str = "",
        key: str = "",
        limits: Limits | None = None,
    ) -> wire.Submitted:
        """Have a task taken in; it is on disk when this returns. The same ``key`` gives the same task."""
        fields = {"agent": agent, "plan": plan, "workspace": workspace, "key": key, "limits": limits}
        return await self._ask(submission(objective, fields), wire.Submitted)

    async def get(self, task: str, *, from_step: int = 0, limit: int = 100) -> wire.Task:
        """One task and a page of its steps."""
        return await self._ask(wire.Get(task=task, from_step=from_step, limit=limit), wire.Task)

    async def show(self, task: str) -> wire.Task:
        """One task and all of its steps."""
        first = page = await self.get(task)
        rest = []
        while page.next_step:
            page = await self.get(task, from_step=page.next_step)
            rest.append(page)
        return join_pages(first, rest)

    async def list(self, *, status: str = "", limit: int = 100, before: int = 0) -> wire.Tasks:
        """A page of tasks, newest first."""
        return await self._ask(wire.List(status=status, limit=limit, before=before), wire.Tasks)

    async def watch(self, task: str = "", *, cursor: int = 0, limit: int = 256) -> AsyncIterator[wire.Event]:
        """Events after ``cursor``, as they come, until the task has ended; without a task, of all, for ever.

        The journal is what is read, so restarts of the gate cost nothing but time.
        """
        watching = Watching(task, cursor, limit)
        while not watching.ended:
            request = watching.request()
            for event in watching.take(await self._ask(request, wire.Events, held_s=request.wait_s)):
                yield event

    async def history(self, task: str = "", *, cursor: int = 0) -> AsyncIterator[wire.Event]:
        """The events that there are now, without waiting for more."""
        watching = Watching(task, cursor, limit=1_000, wait_s=0.0)
        while not watching.ended:
            batch = await self._ask(watching.request(), wire.Events)
            for event in watching.take(batch):
                yield event
            if not batch.events:
                return

    async def cancel(self, task: str, reason: str = "") -> wire.Cancelled:
        """End a task; its open effect is killed or awaited."""
        return await self._ask(wire.Cancel(task=task, reason=reason), wire.Cancelled)

    async def resolve(self, task: str, key: str, answer: str) -> wire.Resolved:
        """A person's word on an effect in doubt: ``happened``, ``did_not`` or ``fail``."""
        return await self._ask(wire.Resolve(task=task, key=key, answer=answer), wire.Resolved)

    async def letters(self, *, limit: int = 50, before: int = 0) -> wire.DeadLetters:
        """A page of dead letters, newest first; only for clients on the gate's own machine."""
        return await self._ask(wire.Letters(limit=limit, before=before), wire.DeadLetters)

    async def freeze(self, scope: str = "all", name: str = "", reason: str = "") -> wire.Frozen:
        """Pull the plug: ``all``, an ``agent`` or a ``tool`` stands still; again until nothing is moving."""
        return await self._ask(wire.Freeze(scope=scope, name=name, reason=reason), wire.Frozen)

    async def thaw(self, scope: str = "all", name: str = "", reason: str = "") -> wire.Thawed:
        """Lift this freeze, and no other."""
        return await self._ask(wire.Thaw(scope=scope, name=name, reason=reason), wire.Thawed)

    async def attach(self, task: str, terminal: str = "") -> wire.Attached:
        """Have a live terminal of a task lent (empty: its only one); for clients on the machine itself."""
        return await self._ask(wire.Attach(task=task, terminal=terminal), wire.Attached)

    async def diff(self, task: str, step: int, limit_bytes: int = 262_144) -> wire.Diffs:
        """What the calls of a step changed in the workspace, as recorded and, where it is kept, as text."""
        return await self._ask(wire.Diff(task=task, step=step, limit_bytes=limit_bytes), wire.Diffs)

    async def rewind(self, task: str, to_step: int) -> wire.Rewound:
        """Go back to where the task was after ``to_step`` (-1: before its first), files and all."""
        return await self._ask(wire.Rewind(task=task, to_step=to_step), wire.Rewound)

    async def status(self, open_limit: int = 0) -> wire.StatusReply:
        """Counts of tasks, connected workers, the journal's position, up to ``open_limit`` open tasks."""
        return await self._ask(wire.Status(open_limit=open_limit), wire.StatusReply)

    # -- one request at a time
    async def _ask(self, request: wire.Request, answer: type[A], held_s: float = 0.0) -> A:
        async with self._turn:
            exchange = Exchange(self._numbering.stamp(request), answer, self._clock(), self.timeout_s, held_s)
            await self._send(exchange.payload)
            while True:
                ready = dict(await self._poller.poll(int(exchange.pause_s(self._clock()) * 1_000) + 1))
                if self._socket in ready:
                    reply = exchange.take((await self._socket.recv_multipart())[-1])
                    if reply is not None:
                        return reply
                if self._monitor in ready:
                    self._note(exchange, await self._monitor.recv_multipart())
                if exchange.due(self._clock()):
                    await self._send(exchange.payload)

    def _note(self, exchange: Exchange[Any], frames: Sequence[bytes]) -> None:
        first, self._first = self._first, False
        if not first or parse_monitor_message(list(frames))["event"] != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            note_link_event(exchange, frames, self._clock())

    async def _send(self, payload: bytes) -> None:
        try:
            await self._socket.send(payload, zmq.DONTWAIT)
        except zmq.Again as error:
            raise UnreachableError("the gate takes nothing in") from error
