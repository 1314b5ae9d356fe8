"""Owns: what is asked of one sandbox.
Must not know: how it is enforced, tasks, agents.
Invariants: frozen; a value that can't be meant is refused when the profile is made; `digest` is stable over
    runs.
Source: setrlimit(2), tmpfs(5).
"""

import hashlib
from typing import Literal

import msgspec

from ..proto.confinement import LEAST_TMP_BYTES, OWN_FOLDERS, SYSTEM_FOLDERS, path_fault


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Resource limits of one process, soft and hard alike; `processes` counts those of the whole sandbox, and
    `total_memory_bytes` bounds all of them together (a control group holds it; without one nothing does).
    """

    cpu_s: int = 600
    file_bytes: int = 1 << 30
    open_files: int = 1024
    processes: int = 512
    address_space_bytes: int = 8 << 30
    locked_bytes: int = 64 << 10
    queued_signals: int = 1024
    total_memory_bytes: int = 8 << 30

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
    network: Literal["none", "courier"] = "none"
    tmp_bytes: int = 256 << 20
    shm_bytes: int = 64 << 20
    tmp_inodes: int = 65536
    hostname: str = "sandbox"

    def __post_init__(self) -> None:
        faults = [path_fault(path) for path in self.read_only]
        faults.append(path_fault(self.workspace, OWN_FOLDERS + SYSTEM_FOLDERS))
        if any(faults):
            raise ValueError("; ".join(filter(None, faults)))
        if min(self.tmp_bytes, self.shm_bytes) < LEAST_TMP_BYTES or self.tmp_inodes < 16:
            raise ValueError(
                f"tmp_bytes and shm_bytes must be at least {LEAST_TMP_BYTES}, tmp_inodes at least 16"
            )
        if not 0 < len(self.hostname.encode()) <= 64:
            raise ValueError("hostname must have 1 to 64 bytes")

    def digest(self) -> str:
        """SHA-256 of the canonical encoding, as hex digits."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()
