"""What ``doctor`` finds out about a home folder, without a supervisor.

Owns: the checks of the folder: path, place, power to write, room.
Must not know: what is kept in it.
Invariant: nothing is changed: what is created for a check is gone after it.
Source: unix(7) for the path; DESIGN §3, §5.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ...proto.config import SUN_PATH_BYTES, Config
from ...proto.errors import HomeostatError
from .status import processes

_LONGEST_SOCKET = "run/control.sock"


@dataclass(frozen=True)
class Finding:
    """``level`` is ``ok``, ``warn`` (runs, but read this) or ``fail`` (won't run)."""

    name: str
    level: str
    detail: str
    remedy: str = ""


def check(home: Path, config: Config) -> list[Finding]:
    """All findings about a home."""
    return [_path(home), _writable(home), _private(home), _room(home, config), _supervisor(home)]


def _path(home: Path) -> Finding:
    length = len(str(home / _LONGEST_SOCKET).encode())
    if length > SUN_PATH_BYTES:
        return Finding(
            "path length",
            "fail",
            f"a socket's path would have {length} bytes, {SUN_PATH_BYTES} are allowed",
            "Choose a home with a shorter path.",
        )
    return Finding("path length", "ok", f"{length} of {SUN_PATH_BYTES} bytes")


def existing(home: Path) -> Path:
    """The home, or the nearest parent that is there."""
    return next(folder for folder in (home, *home.parents) if folder.exists())


def _writable(home: Path) -> Finding:
    try:
        folder = existing(home)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
            file.write(b"x")
            os.fsync(file.fileno())
    except OSError as error:
        return Finding(
            "writable",
            "fail",
            f"{home}: {error.strerror}",
            "Give this user a home that it can write, on a disk with room: --home DIR.",
        )
    return Finding("writable", "ok", str(home) if folder == home else f"{home} will be made in {folder}")


def _private(home: Path) -> Finding:
    try:
        found = home.stat()
    except OSError:
        return Finding("private", "ok", "not there yet; it will be made for this user alone")
    if found.st_uid != os.geteuid():
        return Finding("private", "fail", f"it belongs to uid {found.st_uid}", "Use a home of your own.")
    if stat.S_IMODE(found.st_mode) & 0o022:
        return Finding(
            "private", "warn", f"mode {stat.S_IMODE(found.st_mode):o} lets others write", f"chmod go-w {home}"
        )
    return Finding("private", "ok", f"mode {stat.S_IMODE(found.st_mode):o}")


def _room(home: Path, config: Config) -> Finding:
    try:
        free = shutil.disk_usage(existing(home)).free
    except OSError as error:
        return Finding("room", "fail", str(error.strerror))
    least = config.quotas.min_free_bytes
    detail = f"{free >> 20} MiB free"
    if free < least:
        return Finding(
            "room",
            "fail",
            f"{detail}, below {least >> 20} MiB new work is refused",
            "Make room, or lower quotas.min_free_bytes.",
        )
    return Finding("room", "ok", detail)


def _supervisor(home: Path) -> Finding:
    try:
        pid = processes(home).pid
    except HomeostatError:
        return Finding("lock", "ok", "no supervisor is running here")
    return Finding("lock", "ok", f"a supervisor is running here, pid {pid}")
