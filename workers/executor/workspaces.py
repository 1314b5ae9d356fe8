"""The folders in which tasks work.

Owns: fresh workspaces, and whether a named folder may be one.
Must not know: stages, tools.
Invariants: a workspace is handed on by descriptor; homeostat's own home is never one; as root it belongs to
            the uid of the commands, so that nobody's files but theirs are in reach.
Source: DESIGN §3 (identities), §4 ("owners of the workspace must be mapped"), §13 (``--workspace``).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from ...proto.errors import RefusedError

EXECUTOR_UID_OFFSET: Final = 3
COMMAND_UID_OFFSET: Final = 11
OVERFLOW_UID: Final = 65_534
"""What our user namespace shows for every owner that it doesn't map: /proc/sys/fs/overflowuid's default."""


class WorkspaceError(RefusedError):
    """The workspace can't be used."""

    code = "workspace"


def command_owner(users_base: int) -> tuple[int, int] | None:
    """The uid and gid of commands where homeostat runs as root; None where it is an ordinary user."""
    if os.geteuid() in {0, users_base + EXECUTOR_UID_OFFSET}:
        return users_base + COMMAND_UID_OFFSET, users_base + COMMAND_UID_OFFSET
    return None


def place_of(fd: int) -> str:
    """A folder's own identity, as long as it exists."""
    status = os.fstat(fd)
    return f"{status.st_dev}:{status.st_ino}"


class Workspaces:
    """Opens them.

    ``home_name`` is the home's absolute path, as workspaces are named; ``home`` is how this process reaches
    it: a folder above it may be closed to us.
    """

    def __init__(self, home: Path, home_name: str, owner: tuple[int, int] | None) -> None:
        self._home = os.path.realpath(home_name)
        self._fresh = os.path.join(self._home, "workspaces")
        self._reach = home / "workspaces"
        self._owner = owner

    def open(self, path: str) -> int:
        """A descriptor of the folder; a fresh one is made.

        Raises:
            WorkspaceError: it is gone, is no folder, or may not be a workspace.

        """
        if "\0" in path:
            raise WorkspaceError(f"the workspace {path!r} has a NUL in its name")
        whole = os.path.realpath(path)
        self._check_place(path, whole)
        try:
            if os.path.dirname(whole) == self._fresh:
                whole = os.path.join(self._reach, os.path.basename(whole))
                self._make(whole)
            fd = os.open(whole, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise WorkspaceError(f"the workspace {path} is gone") from None
        except OSError as error:
            raise WorkspaceError(f"the workspace {path} can't be opened: {error.strerror}") from error
        self._check_owner(fd, path)
        return fd

    def place(self, path: str) -> str:
        """What tells this folder from all others, however it is named. Raises WorkspaceError."""
        fd = self.open(path)
        try:
            return place_of(fd)
        finally:
            os.close(fd)

    def _check_place(self, path: str, whole: str) -> None:
        if not path.startswith("/"):
            raise WorkspaceError(f"the workspace {path!r} is not an absolute path")
        inside = whole == self._home or whole.startswith(self._home + "/")
        around = self._home.startswith(whole.rstrip("/") + "/")
        if around or (inside and os.path.dirname(whole) != self._fresh):
            raise WorkspaceError(f"the workspace {path} would hold homeostat's own files")

    def _make(self, whole: str) -> None:
        with suppress(FileExistsError):
            os.mkdir(whole, 0o700)
        # One that is still ours was made by a life that was killed before it could give it away.
        if self._owner and os.lstat(whole).st_uid == os.geteuid():
            os.chown(whole, *self._owner, follow_symlinks=False)

    def _check_owner(self, fd: int, path: str) -> None:
        found = os.fstat(fd).st_uid
        if self._owner and found != self._owner[0]:
            os.close(fd)
            whom = "another user" if found == OVERFLOW_UID else f"uid {found}"
            raise WorkspaceError(
                f"the workspace {path} belongs to {whom}; commands run as uid {self._owner[0]} and may "
                f"only work in folders of their own (chown -R {self._owner[0]}:{self._owner[1]} {path})"
            )
