"""Reading the configuration again while everything runs.

Owns: the file as it was last read, and the trial of its policies in a process of its own.
Must not know: how what has changed is brought into force (upkeep.py).
Invariant: what can't be used changes nothing; the loop never waits for the trial, which takes half a second.
Source: posix_spawn(3); DESIGN §7; workers/gate/lawcheck.py, which is started by name.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..proto import config as settings
from ..proto.errors import ConfigError, HomeostatError
from .reload import Plan, plan
from .secrets import Secrets

LAWCHECK = "homeostat.workers.gate.lawcheck"
GOOD = "ok"
TRIAL_S = 30.0
WORDS_LIMIT_BYTES = 64 << 10
NO_FILE = "there is no configuration file to read again"
Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Found:
    """What came of a reading: a plan, or why there is none."""

    plan: Plan | None = None
    error: str = ""
    code: str = ""


class Reloading:
    """One reading at a time."""

    def __init__(self, config: settings.Config, path: Path | None, selector: selectors.BaseSelector) -> None:
        self.config = config
        self._path = path
        self._selector = selector
        self._law = _stamp(config)
        self._trial: _Trial | None = None

    @property
    def due_s(self) -> float | None:
        """When `tick` must be called at the latest."""
        return None if self._trial is None else self._trial.until_s

    def tick(self, now_s: float) -> None:
        """Give up a trial that takes too long."""
        if self._trial is not None and now_s >= self._trial.until_s:
            self._trial.kill()  # Its words end by that.

    def begin(self, now_s: float, done: Callable[[Found], None]) -> None:
        """Read it; ``done`` is called once, now or later."""
        try:
            new = self._read()
        except HomeostatError as error:
            done(Found(error=error.diagnostics(), code=error.code))
            return
        law = _stamp(new)
        found = plan(self.config, new, law_changed=law != self._law and new.policy == self.config.policy)
        if "gate" not in found.roles:
            self._take(found, law, done)
            return
        try:
            self._trial = _Trial(found.config, self._selector, now_s + TRIAL_S, self._tried(found, law, done))
        except OSError as error:
            reason = f"the policies could not be tried: {error.strerror}"
            done(Found(error=reason, code=HomeostatError.code))

    def close(self) -> None:
        """Leave a trial that runs."""
        if self._trial is not None:
            self._trial.kill()
            self._trial.close()
            self._trial = None

    def _read(self) -> settings.Config:
        """Raises ConfigError."""
        if self._path is None:
            raise ConfigError(NO_FILE, remedy="Start with --config FILE: then that file is read again.")
        return settings.load(self._path)

    def _tried(self, found: Plan, law: Stamp, done: Callable[[Found], None]) -> Callable[[str], None]:
        def heard(words: str) -> None:
            self._trial = None
            if words == GOOD:
                self._take(found, law, done)
                return
            said = words or "the policies could not be tried: see log/supervisor.log"
            done(Found(error=f"{self._path}: {said}", code=ConfigError.code))

        return heard

    def _take(self, found: Plan, law: Stamp, done: Callable[[Found], None]) -> None:
        self.config, self._law = found.config, law
        done(Found(found))


class _Trial:
    """One process that reads policies; its words end with it, and it is reaped like every stray child."""

    def __init__(
        self,
        config: settings.Config,
        selector: selectors.BaseSelector,
        until_s: float,
        heard: Callable[[str], None],
    ) -> None:
        """Raises OSError."""
        self.until_s = until_s
        self._selector = selector
        self._heard = heard
        self._words = b""
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        try:
            self._pidfd = _spawn(config, write)
        except OSError:
            os.close(self._read)
            raise
        finally:
            os.close(write)
        selector.register(self._read, selectors.EVENT_READ, self._hear)

    def kill(self) -> None:
        """End it; it may have ended already."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Listen no more."""
        self._selector.unregister(self._read)
        os.close(self._read)
        os.close(self._pidfd)

    def _hear(self) -> None:
        more = os.read(self._read, 4096)
        if more and len(self._words) < WORDS_LIMIT_BYTES:
            self._words += more
            return
        self.kill()
        self.close()
        self._heard(self._words.decode("utf-8", "replace").strip())


def _spawn(config: settings.Config, write: int) -> int:
    """Start it with the configuration as its input; give a pidfd. Raises OSError."""
    given = os.memfd_create("homeostat-law", os.MFD_CLOEXEC)
    try:
        os.write(given, settings.to_bytes(config))
        os.lseek(given, 0, os.SEEK_SET)
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", LAWCHECK],
            Secrets.taken(config).public,
            file_actions=[(os.POSIX_SPAWN_DUP2, given, 0), (os.POSIX_SPAWN_DUP2, write, 1)],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD],
        )
        return os.pidfd_open(pid)
    finally:
        os.close(given)


def _stamp(config: settings.Config) -> Stamp:
    """What tells whether a policy file is still the one that was read; one that is gone is another."""
    stamps = []
    for name in config.policy.files:
        try:
            info = os.stat(name)
        except OSError:
            stamps.append((name, 0, 0, 0))
        else:
            stamps.append((name, info.st_ino, info.st_mtime_ns, info.st_size))
    return tuple(stamps)
