"""How much a stage, a workspace and the disk of the home may hold.

Owns: measuring, the quotas' words, and the watch over what runs.
Must not know: how a call is ended, diffs.
Invariants: a walk stops at its bound and follows nothing; the watch takes at most a twentieth of one core,
            and nothing while no stage is in use; no count that is kept refuses without being made again.
Source: docs/OPERATIONS.md, section "quotas"; statvfs(3), stat(2) (st_blocks).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from ...proto.errors import RefusedError
from ...proto.ids import Key
from ...proto.settings import Quotas
from .beneath import Beneath, join
from .changes import Growth, Limits
from .jobs import Jobs

_EVERY_S: Final = 0.5
_IDLE_TIMES: Final = 20
"""After a walk the watch rests so many times as long as that took."""
_STALE_S: Final = 600.0
_KNOWN: Final = 256
_BLOCK_BYTES: Final = 512  # stat(2)


class Usage(NamedTuple):
    """Bytes, and things of any kind."""

    bytes: int = 0
    files: int = 0

    def is_over(self, most: Usage) -> bool:
        """Whether either is more than that."""
        return self.bytes > most.bytes or self.files > most.files


def measure(fd: int, most: Usage, *, apparent: bool) -> Usage:
    """What a folder holds, counted until it is more than ``most``.

    ``apparent``: by the sizes of files, else by the blocks they take. What vanishes meanwhile, can't be read
    or lies deeper than a diff may reach counts for nothing.
    """
    tree, waiting = Beneath(fd), [b""]
    size = files = 0
    try:
        while waiting:
            folder = waiting.pop()
            for name, status, is_folder in _entries(tree, folder):
                files += 1
                size += _size(status) if apparent else status.st_blocks * _BLOCK_BYTES
                if Usage(size, files).is_over(most):
                    return Usage(size, files)
                if is_folder and _is_reachable(path := join(folder, name)):
                    waiting.append(path)
    finally:
        tree.forget()
    return Usage(size, files)


def _size(status: os.stat_result) -> int:
    """As a diff weighs it."""
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _is_reachable(path: bytes) -> bool:
    return len(path) <= Limits().path_bytes and path.count(b"/") < Limits().depth


def _entries(tree: Beneath, folder: bytes) -> Iterator[tuple[bytes, os.stat_result, bool]]:
    try:
        with os.scandir(tree.folder(folder)) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                yield os.fsencode(entry.name), status, entry.is_dir(follow_symlinks=False)
    except (OSError, RefusedError):  # a command works in it: what is gone in this moment takes no room
        return


# -- workspaces ------------------------------------------------------------------------------------------
class WorkspaceCounts:
    """What each workspace holds: counted once, then kept up to date by what is merged."""

    def __init__(self, quotas: Quotas, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = Usage(quotas.workspace_bytes, quotas.workspace_files)
        self._clock = clock
        self._known: dict[str, tuple[Usage, float]] = {}

    def refusal(self, place: str, fd: int, growth: Growth) -> str:
        """Why a workspace may not grow by so much; empty when it may. Costs a walk where it isn't known."""
        if growth.bytes <= 0 and growth.files <= 0:
            return ""
        known = self._known.get(place)
        if known is not None and self._clock() - known[1] < _STALE_S and not self._over(known[0], growth):
            return ""
        usage = measure(fd, self._most, apparent=True)
        while len(self._known) >= _KNOWN:
            del self._known[next(iter(self._known))]
        self._known[place] = (usage, self._clock())
        return self._over(usage, growth)

    def merged(self, place: str, growth: Growth) -> None:
        """It has grown by so much."""
        if known := self._known.get(place):
            usage = Usage(known[0].bytes + growth.bytes, known[0].files + growth.files)
            self._known[place] = (usage, known[1])

    def forget(self, place: str) -> None:
        """Something else has changed it."""
        self._known.pop(place, None)

    def _over(self, usage: Usage, growth: Growth) -> str:
        after = Usage(usage.bytes + growth.bytes, usage.files + growth.files)
        if growth.bytes > 0 and after.bytes > self._most.bytes:
            return _words(f"{after.bytes} bytes", "workspace_bytes", self._most.bytes)
        if growth.files > 0 and after.files > self._most.files:
            return _words(f"{after.files} files and folders", "workspace_files", self._most.files)
        return ""


def _words(would: str, setting: str, most: int) -> str:
    return (
        f"the workspace would hold at least {would}, and may hold {most} (quotas.{setting}): delete "
        f"something in it, or raise the setting"
    )


# -- while calls run -------------------------------------------------------------------------------------
class Timers(Protocol):
    """What the watch needs of the loop."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        """Call once."""


class Watch:
    """Looks at the stages in use, beside the loop, and tells which call is over a quota."""

    def __init__(
        self,
        quotas: Quotas,
        loop: Timers,
        jobs: Jobs,
        in_use: Callable[[], list[tuple[Key, int]]],
        over: Callable[[Key, str], None],
    ) -> None:
        """``in_use`` gives the upper layers of the stages in use, each with a descriptor that is ours."""
        self._quotas, self._loop, self._jobs = quotas, loop, jobs
        self._in_use, self._over = in_use, over
        self._is_on = self._is_closed = False

    def begin(self) -> None:
        """A stage is in use."""
        if not self._is_on and not self._is_closed:
            self._is_on = True
            self._loop.call_later(_EVERY_S, self._look)

    def close(self) -> None:
        """Look no more."""
        self._is_closed = True

    def _look(self) -> None:
        self._is_on = False
        if self._is_closed or not (stages := self._in_use()):
            return
        self._is_on = True
        self._jobs.submit("quotas", lambda: inspect(stages, self._quotas), self._looked)

    def _looked(self, found: Inspection) -> None:
        for key, words in found.over:
            self._over(key, words)
        self._is_on = False
        if not self._is_closed:
            self._is_on = True
            self._loop.call_later(max(_EVERY_S, _IDLE_TIMES * found.took_s), self._look)


class Inspection(NamedTuple):
    """The calls that are over a quota, with the words for it, and how long it took to find out."""

    over: list[tuple[Key, str]]
    took_s: float


def inspect(stages: list[tuple[Key, int]], quotas: Quotas) -> Inspection:
    """Measure upper layers, whose descriptors are closed, and the disk that they are on. Blocks."""
    began = time.monotonic()
    most = Usage(quotas.stage_bytes, quotas.stage_files)
    try:
        held = {key: measure(fd, most, apparent=False) for key, fd in stages}
        disk = os.fstatvfs(stages[0][1])
    finally:
        for _, fd in stages:
            os.close(fd)
    over = [(key, words) for key, usage in held.items() if (words := stage_words(usage, most))]
    free = disk.f_bavail * disk.f_frsize
    if not over and free < quotas.min_free_bytes // 2:
        largest = max(held, key=lambda key: held[key])
        over = [(largest, _disk_words(free, quotas))]
    return Inspection(over, time.monotonic() - began)


def stage_words(usage: Usage, most: Usage) -> str:
    """Why a stage holds too much; empty when it doesn't."""
    if usage.bytes > most.bytes:
        return (
            f"it holds more than {most.bytes} bytes in its stage (quotas.stage_bytes): write less in one "
            f"call, or raise the setting"
        )
    if usage.files > most.files:
        return (
            f"it holds more than {most.files} files and folders in its stage (quotas.stage_files): make "
            f"fewer in one call, or raise the setting"
        )
    return ""


def _disk_words(free: int, quotas: Quotas) -> str:
    return (
        f"the disk of the home has {free} bytes left, less than half of {quotas.min_free_bytes} "
        f"(quotas.min_free_bytes), and of all calls this one holds most: free space, or write less"
    )
