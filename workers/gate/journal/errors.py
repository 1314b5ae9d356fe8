"""What can go wrong with the journal, each with its fields and its mend.

Owns: the journal's branch of the error tree, and the translation of LMDB's and the system's errors into it.
Must not know: what the records mean.
Invariant: no lmdb.Error or OSError leaves this package; ``retry`` is true only where the call can succeed.
Source: lmdb.h "Return Codes"; STYLE "Errors".

    JournalError (proto)
    ├─ JournalBusyError          another process holds it
    ├─ JournalMissingError       nothing there, and none was to be made
    ├─ JournalRefusedError       the system refuses the folder or the files
    ├─ JournalTooNewError        (JournalNewerError) a later format
    ├─ DamagedError              (JournalDamagedError) bytes that are not what was written
    ├─ JournalDiskFullError             (DiskFullError) no room; the store stays usable
    ├─ JournalMapFullError              the map reached its limit; the store stays usable
    ├─ FencedError               a later incarnation of the gate has written
    ├─ JournalUnusableError      an I/O error, a fork or a close ended this handle
    └─ MisuseError               the caller broke the contract
       ├─ OutOfOrderError            a sequence number that is not the next one
       ├─ UnknownTaskError, TaskExistsError, RecordMissingError
       └─ TooLargeError              a payload or key over its limit
"""

import errno
from pathlib import Path
from typing import ClassVar

import lmdb

from ....proto.errors import DiskFullError, JournalDamagedError, JournalError, JournalNewerError

_STOP_FIRST = "stop the homeostat that runs on this home, or choose another home"
_BACKUP = "keep a copy of the home, then restore it from a backup or start on a fresh one"
_BUG = "this is an error in homeostat: please report it with the crash report"


class JournalBusyError(JournalError):
    """Another process holds the journal."""

    code: ClassVar[str] = "journal_busy"

    def __init__(self, path: Path, pid: int | None) -> None:
        """Take the journal's folder and, where it is known, the holder's pid."""
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"the journal {path.absolute()} is held by {holder}", remedy=_STOP_FIRST)
        self.path = path.absolute()
        self.pid = pid


class JournalMissingError(JournalError):
    """There is no journal, and none was to be made."""

    code: ClassVar[str] = "journal_missing"

    def __init__(self, path: Path) -> None:
        """Take the folder that was looked in."""
        super().__init__(
            f"there is no journal in {path.absolute()}", remedy="check --home, or start homeostat there once"
        )
        self.path = path.absolute()


class JournalRefusedError(JournalError):
    """The system refuses the journal's folder or files."""

    code: ClassVar[str] = "journal_refused"

    def __init__(self, path: Path, cause: OSError) -> None:
        """Take the folder and the system's refusal."""
        reason = cause.strerror or str(cause)
        super().__init__(
            f"the journal {path.absolute()} can't be opened: {reason}",
            remedy="give the gate's user read and write access to the folder and to the files in it",
        )
        self.path = path.absolute()
        self.errno = cause.errno


class JournalTooNewError(JournalNewerError):
    """The journal has a later format."""

    def __init__(self, path: Path, found: int, known: int) -> None:
        """Take the folder, the format found and the newest one known here."""
        super().__init__(
            f"journal format {found} is newer than this homeostat's {known}: {path.absolute()}",
            remedy="upgrade homeostat; a journal is never converted back",
        )
        self.path = path.absolute()
        self.found = found
        self.known = known


class DamagedError(JournalDamagedError):
    """The journal holds bytes that are not what was written."""

    def __init__(self, what: str, position: int | None = None) -> None:
        """Take what is wrong and, where one record is meant, its position."""
        where = "" if position is None else f" at position {position}"
        super().__init__(f"the journal is damaged{where}: {what}", remedy=_BACKUP)
        self.what = what
        self.position = position


class JournalDiskFullError(DiskFullError):
    """No room is left for the journal; nothing of the batch was written."""

    def __init__(self, path: Path) -> None:
        """Take the journal's folder."""
        super().__init__(
            f"no room is left on the disk of {path.absolute()}",
            remedy="free some space and start again: nothing that was accepted is lost",
        )
        self.path = path.absolute()


class JournalMapFullError(JournalError):
    """The journal reached the largest size that it may have."""

    code: ClassVar[str] = "map_full"

    def __init__(self, limit_bytes: int) -> None:
        """Take the size that the map may not exceed."""
        super().__init__(
            f"the journal reached its limit of {limit_bytes} bytes",
            remedy="raise journal.map_bytes in the configuration",
        )
        self.limit_bytes = limit_bytes


class JournalUnusableError(JournalError):
    """This handle of the journal can't be used any more."""

    code: ClassVar[str] = "journal_unusable"

    def __init__(self, why: str) -> None:
        """Take the reason."""
        super().__init__(
            f"the journal can't be used: {why}",
            remedy="restart the gate; look at the kernel log for disk errors",
        )
        self.why = why


class FencedError(JournalError):
    """A later incarnation of the gate has written to the journal; nothing of this one is written any more."""

    code: ClassVar[str] = "journal_fenced"

    def __init__(self, epoch: int, found: int) -> None:
        """Take our epoch and the one in the journal."""
        super().__init__(
            f"the gate of epoch {epoch} was succeeded by one of epoch {found}, which owns the journal",
            remedy="stop whatever else runs on this home; if nothing does, its run/epochs is older than its "
            "journal: remove that file and start again",
        )
        self.epoch = epoch
        self.found = found


class MisuseError(JournalError):
    """The caller broke the journal's contract."""

    code: ClassVar[str] = "journal_misuse"

    def __init__(self, message: str) -> None:
        """Take the sentence that says which rule."""
        super().__init__(message, remedy=_BUG)


class OutOfOrderError(MisuseError):
    """A record's sequence number is not the next one of its task."""

    def __init__(self, task_no: int, seq: int, due: int) -> None:
        """Take the task, the number given and the one that was due."""
        super().__init__(f"task {task_no}: record {seq} was appended where {due} is next")
        self.task_no = task_no
        self.seq = seq
        self.due = due


class UnknownTaskError(MisuseError):
    """A task number that was never given out."""

    def __init__(self, task_no: int) -> None:
        """Take the number."""
        super().__init__(f"task number {task_no} was never given out")
        self.task_no = task_no


class TaskExistsError(MisuseError):
    """A task id that already has a number."""

    def __init__(self, task_id: str, task_no: int) -> None:
        """Take the id and the number that it has."""
        super().__init__(f"task {task_id} exists as number {task_no}")
        self.task_id = task_id
        self.task_no = task_no


class RecordMissingError(MisuseError):
    """A position that holds no record."""

    def __init__(self, position: int) -> None:
        """Take the position."""
        super().__init__(f"there is no record at position {position}")
        self.position = position


class TooLargeError(MisuseError):
    """A payload or key is over its limit."""

    def __init__(self, what: str, size_bytes: int, limit_bytes: int) -> None:
        """Take which value, its size and its limit."""
        super().__init__(f"{what} of {size_bytes} bytes is over the limit of {limit_bytes}")
        self.what = what
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError)


def no_room(error: OSError) -> bool:
    """Whether an error of the system means that the disk, quota or file size is used up."""
    return error.errno in _NO_ROOM


def from_system(path: Path, error: OSError) -> JournalError:
    """Translate an error of the system met while opening."""
    return JournalDiskFullError(path) if no_room(error) else JournalRefusedError(path, error)


def from_lmdb(path: Path, error: lmdb.Error) -> JournalError:
    """Translate an error of LMDB; everything not foreseen makes the handle unusable."""
    code = getattr(error, "code", 0)
    if code in _NO_ROOM or isinstance(error, lmdb.DiskError):
        return JournalDiskFullError(path)
    if isinstance(error, _DAMAGE):
        return DamagedError(str(error))
    if isinstance(error, lmdb.ReadonlyError) or code in {errno.EACCES, errno.EROFS, errno.EPERM}:
        return JournalRefusedError(path, OSError(errno.EACCES, "permission denied"))
    return JournalUnusableError(str(error))
