"""Tell the service manager how we are.

Owns: the datagrams of the readiness protocol, when a keep-alive is due, and whether one may be sent.
Must not know: what readiness or a hang is; that is told.
Invariant: without NOTIFY_SOCKET nothing happens and nobody is woken; a manager that listens to nothing never
    holds us up.
Source: sd_notify(3), sd_watchdog_enabled(3), systemd.service(5) (WatchdogSec=).
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Collection, Iterable, MutableMapping

UNSENT_LIMIT = 16
"""Words that wait for a manager whose queue is full; of more than these the oldest are dropped."""
AGAIN_S = 0.2


def fresh(*, ready: bool, stopping: bool, hung: Collection[str], stopped: Collection[str]) -> bool:
    """Whether the manager may believe us well: every worker serves, none hangs, none is stopped by a signal.

    A stop in order has deadlines of its own and ends in any case; what drains is not wedged.
    """
    return stopping or (ready and not hung and not stopped)


def summary(ready: Iterable[bool], *, stopping: bool = False) -> str:
    """One short line about the workers, for ``systemctl status``."""
    states = list(ready)
    text = f"{sum(states)} of {len(states)} workers ready, {states.count(False)} open restarts"
    return f"stopping: {text}" if stopping else text


class Notifier:
    """The way to the service manager, if there is one."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        self._every_s = watchdog_s / 2 if watchdog_s and self._socket is not None else None
        self._beaten_s = time.monotonic()
        self._unsent: deque[str] = deque(maxlen=UNSENT_LIMIT)
        self._status = ""

    @classmethod
    def taken(cls, environment: MutableMapping[str, str]) -> Notifier:
        """Take what the manager left in the environment, so that no child of ours can speak in our name."""
        address, usec, pid = (
            environment.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        )
        watched = usec.isdigit() and int(usec) > 0 and pid in ("", str(os.getpid()))
        return cls(address, int(usec) / 1e6 if watched else None)

    @property
    def active(self) -> bool:
        """Whether somebody listens."""
        return self._socket is not None

    @property
    def due_s(self) -> float | None:
        """When `beat` is wanted next (monotonic); None: never."""
        due = [] if self._every_s is None else [self._beaten_s + self._every_s]
        if self._unsent:
            due.append(time.monotonic() + AGAIN_S)
        return min(due, default=None)

    def ready(self) -> None:
        """Everyone serves: after the start, and after a reload."""
        self._say(f"READY=1\nMAINPID={os.getpid()}")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        self._say(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1_000}")

    def stopping(self) -> None:
        """The stop has begun."""
        self._say("STOPPING=1")

    def status(self, text: str) -> None:
        """Show a line, if it is another than the last."""
        if text != self._status:
            self._status = text
            self._say(f"STATUS={text}")

    def beat(self, well: bool) -> None:
        """Say that we live, if that is due and true; and what could not be said before."""
        self._flush()
        now_s = time.monotonic()
        if self._every_s is None or now_s < self._beaten_s + self._every_s * 0.9:
            return
        # Also when nothing was said: `due_s` must not lie in the past, or the loop would not sleep.
        self._beaten_s = now_s
        if well:
            self._say("WATCHDOG=1")

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say(self, state: str) -> None:
        if self._socket is not None:
            self._unsent.append(state)
            self._flush()

    def _flush(self) -> None:
        while self._unsent and self._socket is not None:
            try:
                self._socket.sendto(self._unsent[0].encode(), self._address)
            except BlockingIOError:
                return  # Its queue is full: said at the next beat.
            except OSError:
                self._unsent.clear()  # Nobody is there, as sd_notify(3) has it: that is not our failure.
                return
            self._unsent.popleft()
