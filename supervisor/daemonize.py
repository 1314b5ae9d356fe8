"""Becoming a daemon, and hearing how it went.

Owns: the double fork, what a daemon inherits (nothing), the lock ``run/guardian.pid``, the report of a start.
Must not know: what is run; how the guardian decides.
Invariant: only who serves tells ready; every other end of a start is told with a reason and an exit code.
Source: daemon(7) "SysV daemons"; flock(2): a lock belongs to the open file, so it crosses fork and exec.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import prctl

from ..proto.config import ASK_AS_OWNER, Config
from ..proto.errors import HomeError, HomeLockedError, HomeostatError
from . import daemon, guardian

LOCK = "run/guardian.pid"
FOREIGN = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
"""What the service manager of who starts us meant for that one alone."""
HELD_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Blocked until the guardian has handlers for them."""
ORDERS = 6
"""Roles that stop one after another, and one more deadline's time for the rest."""
LOOKERS_S = 0.5
"""A `stop` that looks for a guardian holds its lock for an instant."""


@dataclass(frozen=True)
class Started:
    """The daemon serves; the line says where."""

    line: str


@dataclass(frozen=True)
class NotStarted:
    """It does not, and nothing of it is left; the text is the one that a person should read."""

    exit_code: int
    text: str


@dataclass(frozen=True)
class Holder:
    """The guardian of a home; ``pidfd`` is None where its pid means nothing here (another pid namespace)."""

    pid: int
    pidfd: int | None

    def stop(self) -> None:
        """Ask it to stop itself and its supervisor; without a pidfd that is for the control socket to do."""
        if self.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)


def stop_s(config: Config) -> float:
    """Longest time that a stop in order may take before the guardian ends it."""
    return ORDERS * config.supervision.stop_s + 10.0


def launch(home: Path, config: Config, command: Sequence[str], timeout_s: float) -> Started | NotStarted:
    """Start a command as the supervisor of a home, beneath a guardian; wait until it serves or has failed.

    The home must be prepared. Raises HomeLockedError, HomeError, HomeostatError; KeyboardInterrupt after the
    daemon was stopped again.
    """
    lock = _lock(home)
    read, write = os.pipe()
    try:
        child = os.fork()
        if child == 0:
            _detach(home, write, lock, _arguments(config, command))
    except OSError as error:
        os.close(read)
        raise HomeostatError(
            f"no process can be made: {(error.strerror or '').lower()}", remedy="Check `ulimit -u`."
        ) from error
    finally:
        os.close(write)
        os.close(lock)
    os.waitpid(child, 0)
    with open(read, "rb", buffering=0) as report:
        try:
            told = _awaited(report.fileno(), timeout_s)
        except KeyboardInterrupt:
            _undo(home, config)
            raise
    return _understood(home, config, told, timeout_s)


def _understood(home: Path, config: Config, told: bytes | None, timeout_s: float) -> Started | NotStarted:
    if told is None:
        _undo(home, config)
        return NotStarted(1, f"homeostat: nothing served within {timeout_s:g} s\n  See {home}/log, or wait "
                             "with a longer --timeout.")  # fmt: skip
    text = told.decode("utf-8", "replace")
    if text.startswith("ready "):
        return Started(text.strip())
    head, _, rest = text.partition("\n")
    word, _, code = head.partition(" ")
    if word == "failed":
        return NotStarted(int(code), rest)
    return NotStarted(1, f"homeostat: the guardian died before anything served\n  See {home}/{guardian.LOG}.")


def _awaited(fd: int, timeout_s: float) -> bytes | None:
    """Read the report to its end; None when it does not end in time."""
    until_s = time.monotonic() + timeout_s
    told = b""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while poller.poll(max(0.0, until_s - time.monotonic()) * 1_000):
        data = os.read(fd, 65_536)
        if not data:
            return told
        told += data
    return None


def _undo(home: Path, config: Config) -> None:
    """Stop a daemon that is no longer wanted, and wait until it is gone."""
    until_s = time.monotonic() + stop_s(config) + guardian.SWEEP_S
    while time.monotonic() < until_s:
        with holder(home) as found:
            if found is None:
                return
            if found.pidfd is not None:
                found.stop()
                poller = select.poll()
                poller.register(found.pidfd, select.POLLIN)
                poller.poll(max(0.0, until_s - time.monotonic()) * 1_000)
                return
        time.sleep(0.01)  # It has not yet said who it is.


# -- the lock ------------------------------------------------------------------------------------------------
def _lock(home: Path) -> int:
    fd = daemon.open_lock(home / LOCK)
    until_s = time.monotonic() + LOOKERS_S
    while not _locked(fd, fcntl.LOCK_EX):
        if time.monotonic() >= until_s:
            pid = _pid(fd)
            os.close(fd)
            raise HomeLockedError(
                f"{home}: a daemon is running on this home already (guardian {pid or 'unknown'})",
                remedy="See `homeostat status`; stop it with `homeostat stop`, or use another --home.",
            )
        time.sleep(0.01)
    os.ftruncate(fd, 0)  # A pid that is no more must not be taken for the next one's.
    return fd


def _locked(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid(fd: int) -> int:
    """The pid in the file; 0 before it is there."""
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else 0


@contextlib.contextmanager
def holder(home: Path) -> Iterator[Holder | None]:
    """The guardian that holds the lock of a home, if any. Raises HomeError where that can't be seen."""
    try:
        fd = os.open(home / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    except OSError as error:
        raise HomeError(f"{home / LOCK}: {(error.strerror or '').lower()}", remedy=ASK_AS_OWNER) from error
    with open(fd, "rb", buffering=0):
        if _locked(fd, fcntl.LOCK_SH):
            fcntl.flock(fd, fcntl.LOCK_UN)
            yield None
            return
        pid = _pid(fd)
        pidfd = _opened(pid, fd) if pid else None
        try:
            yield Holder(pid, pidfd)
        finally:
            if pidfd is not None:
                os.close(pidfd)


def _opened(pid: int, lock: int) -> int | None:
    """A pidfd of who has the lock open; the number alone may be another's, as in another pid namespace."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        if os.path.samestat(os.stat(f"/proc/{pid}/fd/{guardian.LOCK_FD}"), os.fstat(lock)):
            return pidfd
    os.close(pidfd)
    return None


# -- in the child --------------------------------------------------------------------------------------------
def _arguments(config: Config, command: Sequence[str]) -> list[str]:
    """The guardian's command line."""
    rhythm = config.guardian
    numbers = (
        rhythm.intensity, rhythm.period_s, rhythm.backoff_base_s, rhythm.backoff_max_s, rhythm.healthy_s,
        stop_s(config),
    )  # fmt: skip
    return [sys.executable, "-I", "-S", guardian.__file__, *map(str, numbers), *command]


def _detach(home: Path, report: int, lock: int, arguments: list[str]) -> NoReturn:
    """Fork once more, away from session and terminal; what fails here is told through the report."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        report = _alone(home, report, lock)
        environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        os.execve(arguments[0], arguments, environment)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        remedy = "Check the limit of processes (`ulimit -u`) and the home folder."
        os.write(report, f"failed 1\nhomeostat: no daemon can be made: {reason}\n  {remedy}".encode())
    finally:
        os._exit(1)


def _alone(home: Path, report: int, lock: int) -> int:
    """Keep nothing but the two descriptors; give the report's new number. Raises OSError."""
    os.umask(0o077)
    os.chdir(home)
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # Ignored, it would reap for us what we wait for.
    null = os.open(os.devnull, os.O_RDWR)
    # Away from the low numbers first: each may be where another has to go.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in (null, null, null, report, lock)]
    for target, fd in enumerate(high):
        os.dup2(fd, target)
    os.closerange(len(high), 2**31 - 1)
    prctl.set_child_subreaper(True)
    return guardian.REPORT_FD
