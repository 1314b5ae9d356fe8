"""Owns: what is asked of one sandbox.
Must not know: how it is enforced, tasks, agents.
Invariants: frozen; a value that can't be meant is refused when the profile is made; `digest` is stable over
    runs.
Source: setrlimit(2), tmpfs(5).
"""

import hashlib
import posixpath
from typing import Literal

import msgspec

#: The system's own folders, links in some distributions: a workspace over them would hide the programs.
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
#: Folders that the sandbox makes for itself: nothing from the host may be put below them.
_OWN = ("/proc", "/sys", "/dev", "/etc", "/oldroot")


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Resource limits of one process (of the whole sandbox for `processes`); soft and hard alike."""

    cpu_s: int = 600
    file_bytes: int = 1 << 30
    open_files: int = 1024
    processes: int = 512
    address_space_bytes: int = 8 << 30
    locked_bytes: int = 64 << 10
    queued_signals: int = 1024

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) < 0:
                raise ValueError(f"limits.{name} must not be negative")


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sandbox: where the workspace appears, what else of the host can be read, and every bound."""

    workspace: str = "/workspace"
    workspace_read_only: bool = False
    read_only: tuple[str, ...] = ()
    limits: Limits = Limits()
    tty: bool = True
    network: Literal["none"] = "none"
    tmp_bytes: int = 256 << 20
    shm_bytes: int = 64 << 20
    tmp_inodes: int = 65536
    hostname: str = "sandbox"

    def __post_init__(self) -> None:
        for path in self.read_only:
            _check_path(path, _OWN)
        _check_path(self.workspace, _OWN + SYSTEM_FOLDERS)
        if min(self.tmp_bytes, self.shm_bytes) < 4096 or self.tmp_inodes < 16:
            raise ValueError("tmp_bytes and shm_bytes must be at least 4096, tmp_inodes at least 16")
        if not 0 < len(self.hostname.encode()) <= 64:
            raise ValueError("hostname must have 1 to 64 bytes")

    def digest(self) -> str:
        """SHA-256 of the canonical encoding, as hex digits."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()


def _check_path(path: str, taken: tuple[str, ...]) -> None:
    """A mount point: absolute, normal, without NUL, and not below a folder that the sandbox owns."""
    if not path.startswith("/") or path.startswith("//") or posixpath.normpath(path) != path or "\0" in path:
        raise ValueError(f"path {path!r} must be absolute and normal")
    if path == "/" or any(path == own or path.startswith(own + "/") for own in taken):
        raise ValueError(f"path {path!r} would cover a folder that the sandbox makes for itself")
