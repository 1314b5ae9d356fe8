"""Looks at a home, one after the other, in a thread of their own.

Owns: the connection to the gate, and that a look ends in time whoever is silent.
Must not know: terminals, what is shown.
Invariant: one request to the supervisor and one to the gate a look, and none between looks.
Source: docs/PROTOCOL.md `status`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from pathlib import Path

from ...proto import wire
from ...proto.client import Client
from ...proto.errors import HomeostatError, UnreachableError
from .. import control
from .picture import Look

PATIENCE_S = 2.0
"""How long each of the two may take to answer."""
END_S = 0.5
OPEN_LIMIT = 200
"""So many open tasks are asked for, the oldest and the newest."""


class Looker:
    """Looks when it is told to. For one thread; a context manager."""

    def __init__(self, home: Path, patience_s: float = PATIENCE_S) -> None:
        self._home = home
        self._patience_s = patience_s
        self._client: Client | None = None
        self._error: HomeostatError | None = None

    def look(self) -> Look:
        """Ask both. Never raises for one that is away: then its half is None."""
        supervisor, self._error = None, None
        try:
            supervisor = self._ask_supervisor()
        except HomeostatError as error:
            self._error = error
        trouble = self._error.message if self._error else ""
        gate = None if supervisor is None else self._ask_gate()
        return Look(time.monotonic(), time.time_ns(), supervisor, gate, trouble)

    def insist(self) -> None:
        """Raise why the last look found no supervisor, if it found none."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Hang up."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _ask_supervisor(self) -> control.StatusReply:
        answer = control.ask(self._home, control.Status(resources=True), self._patience_s)
        if not isinstance(answer, control.StatusReply):
            raise UnreachableError(f"the supervisor answered {type(answer).__name__}")
        return answer

    def _ask_gate(self) -> wire.StatusReply | None:
        try:
            if self._client is None:
                self._client = Client.for_home(self._home, timeout_s=self._patience_s)
            return self._client.status(open_limit=OPEN_LIMIT)
        except UnreachableError:
            self.close()  # A new connection next time: the socket's file may be another supervisor's by then.
            return None


class Looking(threading.Thread):
    """Looks on demand; ``fd`` becomes readable when a look is there."""

    def __init__(self, home: Path) -> None:
        super().__init__(name="looking", daemon=True)
        self._home = home
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._looks: queue.SimpleQueue[Look | BaseException] = queue.SimpleQueue()
        self.fd, self._bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def ask(self) -> None:
        """Have one look made."""
        self._asked.put(True)

    def take(self) -> Look | None:
        """Give the look that is there, None when none is. Raises what no look was meant to end in."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 64)
        try:
            found = self._looks.get_nowait()
        except queue.Empty:
            return None
        if isinstance(found, BaseException):
            raise found
        return found

    def end(self) -> None:
        """End the thread. A look at somebody who is silent is not waited for: it ends with the process."""
        self._asked.put(False)
        self.join(END_S)
        if self.is_alive():
            return
        os.close(self.fd)
        os.close(self._bell)

    def run(self) -> None:
        """The thread: until `end`, or until a look ends in what it was not meant to."""
        looker = Looker(self._home)
        with contextlib.closing(looker):
            while self._asked.get():
                try:
                    found: Look | BaseException = looker.look()
                except Exception as error:  # noqa: BLE001  raised again in the thread that takes it
                    found = error
                self._looks.put(found)
                os.write(self._bell, b"!")
