"""What is on disk of an undo: its commit record, and later its answer.

Owns: stages/<index>/.undo-*, one an undo that was asked for, until its task ends.
Must not know: how merges are taken back.
Invariants: a record is whole or it is none; one that is ``going`` is on disk before the first step, and what
            was answered is answered again.
Source: DESIGN §4 "Staged effects".
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, Literal

import msgspec

from . import manifest

_PREFIX: Final = ".undo-"
_NEW_SUFFIX: Final = ".new"
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


class Undoing(msgspec.Struct, frozen=True, array_like=True):
    """One undo. ``keys``: the newest merge first."""

    token: str
    task: str
    workspace: str
    keys: tuple[str, ...]
    state: Literal["going", "done", "refused"]
    trouble: str = ""


class Undoings:
    """The records in one folder of stages."""

    def __init__(self, stages_fd: int) -> None:
        """Take the folder's descriptor, which stays the caller's."""
        self._fd = stages_fd

    def find(self, token: str) -> Undoing | None:
        """What is known of this undo."""
        return self._read(_name(token))

    def __iter__(self) -> Iterator[Undoing]:
        for name in sorted(os.listdir(self._fd)):
            if name.startswith(_PREFIX) and (found := self._read(name)):
                yield found

    def write(self, undoing: Undoing) -> None:
        """Put it down, on disk when this returns."""
        name = _name(undoing.token)
        new = name + _NEW_SUFFIX
        with os.fdopen(os.open(new, _NEW_FILE, 0o600, dir_fd=self._fd), "wb") as file:
            file.write(manifest.encode(undoing))
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        os.fsync(self._fd)

    def drop(self, task: str) -> None:
        """The task has ended: nobody asks again."""
        for undoing in list(self):
            if undoing.task == task:
                with suppress(FileNotFoundError):
                    os.unlink(_name(undoing.token), dir_fd=self._fd)

    def _read(self, name: str) -> Undoing | None:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            return manifest.decode(file.read(), Undoing)


def _name(token: str) -> str:
    return _PREFIX + hashlib.sha256(token.encode()).hexdigest()[:32]
