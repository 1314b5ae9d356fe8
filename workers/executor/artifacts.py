"""Whole outputs, kept as files named by what is in them.

Owns: home/artifacts/ab/<sha256>, and the temporary files on the way there.
Must not know: what an output means, what the model is shown of it.
Invariants: a name appears only when all its bytes are on disk; short outputs make no file; a full disk
            cuts the artifact, never the call.
Source: DESIGN §5 ("Big outputs"), fsync(2), rename(2).
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SHORT_BYTES: Final = 4_096
"""Up to here an output is only kept in memory: its text says all of it."""

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Artifacts:
    """The store as one executor writes it."""

    def __init__(self, folder: Path, index: int) -> None:
        """Open the store and remove what a former life of this executor left unfinished."""
        self._folder = folder
        self._prefix = f".new-{index}-"
        self._serials = itertools.count()
        folder.mkdir(mode=0o755, exist_ok=True)
        for left in folder.glob(f"{self._prefix}*"):
            left.unlink()

    def writer(self, limit_bytes: int) -> ArtifactWriter:
        """Begin an artifact of at most so many bytes."""
        return ArtifactWriter(self, limit_bytes)

    def temporary(self) -> Path:
        """A name that no one else uses."""
        return self._folder / f"{self._prefix}{next(self._serials)}"

    def place(self, digest: str) -> Path:
        """Where the artifact of this name lies, or will."""
        return self._folder / digest[:2] / digest

    def publish(self, temporary: Path, digest: str) -> None:
        """Give a finished, synced file its name, durably."""
        target = self.place(digest)
        try:
            target.parent.mkdir(mode=0o755)
        except FileExistsError:
            pass  # an earlier artifact made it, and had it synced
        else:
            _sync(self._folder)
        temporary.rename(target)
        _sync(target.parent)


class ArtifactWriter:
    """One output on its way: counted to its end, kept up to its limit."""

    def __init__(self, store: Artifacts, limit_bytes: int) -> None:
        self._store = store
        self._limit_bytes = limit_bytes
        self._hash = hashlib.sha256()
        self._short: list[bytes] = []
        self._path: Path | None = None
        self._fd = -1
        self.seen_bytes = 0
        self.kept_bytes = 0
        self.trouble = ""

    def write(self, data: memoryview | bytes) -> None:
        """Take the next bytes; a view is not kept."""
        self.seen_bytes += len(data)
        room = 0 if self.trouble else self._limit_bytes - self.kept_bytes
        data = data[: max(0, room)]
        if not len(data):
            return
        self.kept_bytes += len(data)
        self._hash.update(data)
        if self._fd < 0:
            self._short.append(bytes(data))
            if self.kept_bytes <= SHORT_BYTES:
                return
        with self._giving_up():
            self._append(data if self._fd >= 0 else self._open())

    def _open(self) -> bytes:
        """Begin the file; gives what was held back until now."""
        path = self._store.temporary()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._path = path
        data = b"".join(self._short)
        self._short.clear()
        return data

    def _append(self, data: memoryview | bytes) -> None:
        while len(data):
            data = data[os.write(self._fd, data) :]

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        """Where there is no room (bytes or inodes), keep nothing and note why: the call goes on."""
        try:
            yield
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self.trouble = f"the whole output could not be kept: {error.strerror}"
            self._short.clear()
            self.discard()

    def finish(self, *, always: bool = False) -> str:
        """Put it in place and give its name; empty when it needs none. Blocks for the disk.

        ``always`` makes a file of a short output too: its text does not say all of it.
        """
        if self.trouble or not self.kept_bytes or (self._fd < 0 and not always):
            return ""
        with self._giving_up():
            if self._fd < 0:
                self._append(self._open())
            if self._path is not None:
                os.fsync(self._fd)
                self._store.publish(self._path, self._hash.hexdigest())
        if self._fd < 0:
            return ""
        os.close(self._fd)
        self._fd, self._path = -1, None
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Leave nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
