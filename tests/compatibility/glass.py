"""A program on a terminal inside a sandbox, and the screen that a person would see.

Owns: one sandbox with a terminal, its emulated screen, the keys that are typed.
Must not know: which program draws.
Invariant: its sandbox is killed and seen to end before the test ends.
Source: sandbox/protocol.py (`Launch.tty`); the executor's own emulator, as that is what an agent sees.
"""

from __future__ import annotations

import os
import select
import time
from types import TracebackType
from typing import Self

from homeostat.sandbox import protocol
from homeostat.sandbox.profile import Profile
from homeostat.sandbox.protocol import Exited, Launch, Launched, Refused
from homeostat.workers.executor.terminals.screen import Screen
from homeostat.workers.executor.terminals.sifter import Sifter
from tests.sandbox.stand import PATIENCE_S, Stand, receive

ROWS, COLUMNS = 24, 80


class Glass:
    """Runs a shell command on a terminal of 24 rows and 80 columns."""

    def __init__(self, stand: Stand, command: str) -> None:
        self.stand = stand
        self.screen, self.sifter = Screen(ROWS, COLUMNS), Sifter()
        self.ended: Exited | None = None
        self.number = stand.next_id()
        launch = Launch(
            self.number, Profile(), [b"bash", b"-c", command.encode()], tty=True, rows=ROWS, cols=COLUMNS
        )
        stand.launch(launch)
        self.master = -1
        while self.master < 0:
            self._hear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.ended is None:
            self.stand.client.kill(self.number)
        while self.ended is None:
            self._hear()
        os.close(self.master)

    def _hear(self) -> None:
        for message, fds in receive(self.stand.client):
            assert not isinstance(message, Refused), message
            if isinstance(message, Launched):
                self.master = fds.pop()
                os.set_blocking(self.master, False)
            elif isinstance(message, Exited):
                self.ended = message
            protocol.close(fds)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.master, keys.encode())

    def text(self) -> str:
        """What is on the screen now."""
        return "\n".join(line.rstrip() for line in self.screen.text().splitlines())

    def shows(self, wanted: str) -> str:
        """Wait until the screen shows this; gives the whole screen."""
        until = time.monotonic() + PATIENCE_S
        while wanted not in self.text():
            assert time.monotonic() < until, f"{wanted!r} never came; the screen:\n{self.text()}"
            self._draw()
        return self.text()

    def end(self) -> int | None:
        """Wait for the program's end; its exit code. What it drew last is on the screen."""
        until = time.monotonic() + PATIENCE_S
        while self.ended is None:
            assert time.monotonic() < until, f"it does not end; the screen:\n{self.text()}"
            self._draw()
            if select.select([self.stand.client], [], [], 0)[0]:
                self._hear()
        self._draw()
        return self.ended.exit_code if self.ended.signal is None else -self.ended.signal

    def _draw(self) -> None:
        if select.select([self.master], [], [], 0.05)[0]:
            try:
                self.screen.feed(self.sifter.feed(os.read(self.master, 1 << 16)))
                if replies := self.screen.take_replies():
                    os.write(self.master, replies)
            except OSError:  # EIO: nobody has the other end any more
                time.sleep(0.01)
