"""How much a stage, a workspace and the disk of the home may hold.

Owns: measuring, the quotas' words, and the watch over what runs.
Must not know: how a call is ended, diffs.
Invariants: a walk stops at its bound and follows nothing; the watch takes at most a twentieth of one core,
            and nothing while no stage is in use; no count that is kept refuses without being made again.
Source: docs/OPERATIONS.md, section "quotas"; statvfs(3), stat(2) (st_blocks).
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from ...proto.errors import RefusedError
from ...proto.ids import Key
from ...proto.settings import Quotas
from .beneath import Beneath, join, shown
from .changes import Growth, Limits
from .jobs import Jobs

_EVERY_S: Final = 0.5
_IDLE_TIMES: Final = 20
"""After a walk the watch rests so many times as long as that took."""
_STALE_S: Final = 600.0
_KNOWN: Final = 256
_SHOWN_CHARS: Final = 200
_BLOCK_BYTES: Final = 512  # stat(2)
_CLOSED: Final = frozenset({errno.EACCES, errno.EPERM})


class Usage(NamedTuple):
    """Bytes, and things of any kind."""

    bytes: int = 0
    files: int = 0

    def is_over(self, most: Usage) -> bool:
        """Whether either is more than that."""
        return self.bytes > most.bytes or self.files > most.files


class HiddenError(RefusedError):
    """What a folder holds can't be counted."""

    code = "hidden"


def measure(fd: int, most: Usage, *, apparent: bool, all_of_it: bool = False) -> Usage:
    """What a folder holds, counted until it is more than ``most``.

    ``apparent``: by the sizes of files, else by the blocks they take. What vanishes meanwhile counts for
    nothing; so does what can't be read or lies deeper than a diff may reach, but with ``all_of_it`` that
    raises HiddenError.
    """
    tree, waiting = Beneath(fd), [b""]
    size = files = 0
    try:
        while waiting:
            folder = waiting.pop()
            for name, status, is_folder in _entries(tree, folder, all_of_it=all_of_it):
                files += 1
                size += _size(status) if apparent else status.st_blocks * _BLOCK_BYTES
                if Usage(size, files).is_over(most):
                    return Usage(size, files)
                if not is_folder:
                    continue
                if _is_reachable(path := join(folder, name)):
                    waiting.append(path)
                elif all_of_it:
                    raise HiddenError(f"the folder {_short(path)} lies deeper than a diff may reach")
    finally:
        tree.forget()
    return Usage(size, files)


def _size(status: os.stat_result) -> int:
    """As a diff weighs it."""
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _is_reachable(path: bytes) -> bool:
    return len(path) <= Limits().path_bytes and path.count(b"/") < Limits().depth


def _short(path: bytes) -> str:
    text = shown(path)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _entries(
    tree: Beneath, folder: bytes, *, all_of_it: bool
) -> Iterator[tuple[bytes, os.stat_result, bool]]:
    try:
        with os.scandir(tree.folder(folder)) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                yield os.fsencode(entry.name), status, entry.is_dir(follow_symlinks=False)
    except (OSError, RefusedError) as error:
        if all_of_it and isinstance(error, OSError) and error.errno in _CLOSED:
            raise HiddenError(f"the folder {_short(folder) or '.'} can't be read") from error
        return  # a command works in it: what is gone in this moment takes no room


# -- workspaces ------------------------------------------------------------------------------------------
class WorkspaceCounts:
    """What each workspace holds: counted once, then kept up to date by what is merged.

    The loop and its jobs use it at the same time; no walk is made under the lock.
    """

    def __init__(self, quotas: Quotas, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = Usage(quotas.workspace_bytes, quotas.workspace_files)
        self._clock = clock
        self._known: dict[str, tuple[Usage, float]] = {}
        self._changes = 0
        """How often something has grown or was forgotten: a walk that this happens to is not kept."""
        self._lock = threading.Lock()

    def refusal(self, place: str, fd: int, growth: Growth) -> str:
        """Why a workspace may not grow by so much; empty when it may. Costs a walk where it isn't known."""
        if growth.bytes <= 0 and growth.files <= 0:
            return ""
        with self._lock:
            known, changes = self._known.get(place), self._changes
        if known is not None and self._clock() - known[1] < _STALE_S and not self._over(known[0], growth):
            return ""
        usage = measure(fd, self._most, apparent=True)
        with self._lock:
            if changes == self._changes:
                while len(self._known) >= _KNOWN:
                    del self._known[next(iter(self._known))]
                self._known[place] = (usage, self._clock())
        return self._over(usage, growth)

    def merged(self, place: str, growth: Growth) -> None:
        """It has grown by so much."""
        with self._lock:
            self._changes += 1
            if known := self._known.get(place):
                usage = Usage(known[0].bytes + growth.bytes, known[0].files + growth.files)
                self._known[place] = (usage, known[1])

    def forget(self, place: str) -> None:
        """Something else has changed it."""
        with self._lock:
            self._changes += 1
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


_STAGE_QUOTAS: Final = "quotas.stage_bytes, quotas.stage_files"


class Inspection(NamedTuple):
    """The calls that are over a quota, with the words for it, and how long it took to find out."""

    over: list[tuple[Key, str]]
    took_s: float


def inspect(stages: list[tuple[Key, int]], quotas: Quotas) -> Inspection:
    """Measure upper layers, whose descriptors are closed, and the disk that they are on. Blocks."""
    began = time.monotonic()
    most = Usage(quotas.stage_bytes, quotas.stage_files)
    held: dict[Key, Usage] = {}
    over: list[tuple[Key, str]] = []
    try:
        for key, fd in stages:
            try:
                held[key] = measure(fd, most, apparent=False, all_of_it=True)
            except HiddenError as error:
                over.append((key, f"{error.message}, so that its stage can't be counted ({_STAGE_QUOTAS})"))
        disk = os.fstatvfs(stages[0][1])
    finally:
        for _, fd in stages:
            os.close(fd)
    over += [(key, words) for key, usage in held.items() if (words := stage_words(usage, most))]
    return Inspection(over or _short_of_room(held, disk, quotas), time.monotonic() - began)


def _short_of_room(held: dict[Key, Usage], disk: os.statvfs_result, quotas: Quotas) -> list[tuple[Key, str]]:
    """The calls that are to end since the disk is nearly full, with the words for it."""
    free = disk.f_bavail * disk.f_frsize
    if free < (least := quotas.min_free_bytes // 2):
        sizes = {key: usage.bytes for key, usage in held.items()}
        return _ended_for(sizes, least - free, f"{free} bytes", "min_free_bytes", quotas.min_free_bytes)
    if disk.f_files and disk.f_favail < (least := quotas.min_free_files // 2):  # else inodes are made at need
        counts = {key: usage.files for key, usage in held.items()}
        free, wanted = disk.f_favail, quotas.min_free_files
        return _ended_for(counts, least - free, f"{free} inodes", "min_free_files", wanted)
    return []


def _ended_for(
    held: dict[Key, int], missing: int, free: str, setting: str, wanted: int
) -> list[tuple[Key, str]]:
    """The largest, where its end gives back what is missing; else all: what fills the disk is not seen."""
    short = f"the disk of the home has {free} left, less than half of {wanted} (quotas.{setting})"
    largest = max(held, key=lambda key: held[key])
    if held[largest] >= missing:
        return [(largest, f"{short}, and of all calls this one holds most: free space, or write less")]
    words = (
        f"{short}, and what the calls are seen to hold does not explain it (files may be open that have no "
        f"name any more), so that all that write to a stage are ended: free space, or write less"
    )
    return [(key, words) for key in held]


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
