"""What ``doctor`` finds out about a home and its settings, without a supervisor.

Owns: what `run` refuses at its start, by its own checks: path, reach, owners, lock, room, ports; and keys.
Must not know: what is kept in a home.
Invariant: nothing is changed: what is created for a check is gone after it.
Source: unix(7) for the path; DESIGN §3, §5.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...proto.config import SUN_PATH_BYTES, Config
from ...proto.errors import HomeError, HomeostatError
from .. import daemon, listeners, secrets
from ..identities import Identities


@dataclass(frozen=True)
class Finding:
    """``level`` is ``ok``, ``warn`` (runs, but read this) or ``fail`` (won't run)."""

    name: str
    level: str
    detail: str
    remedy: str = ""


def check(home: Path, config: Config) -> list[Finding]:
    """All findings about a home."""
    holder = _holder(home)
    return [
        _path(home),
        _reach(home, Identities.of(config)),
        _writable(home),
        _private(home, Identities.of(config)),
        _room(home, config),
        _lock(holder),
        *_ports(config, holder),
        *_keys(config),
    ]


def _failed(name: str, error: HomeostatError) -> Finding:
    """What `run` would say."""
    return Finding(name, "fail", error.message, error.remedy)


def _path(home: Path) -> Finding:
    try:
        listeners.check_paths(home)
    except HomeError as error:
        return _failed("path length", error)
    length = len(os.fsencode(home / "run" / listeners.LONGEST_NAME))
    return Finding("path length", "ok", f"{length} of {SUN_PATH_BYTES} bytes")


def _reach(home: Path, identities: Identities) -> Finding:
    try:
        daemon.check_reach(home, identities)
    except HomeError as error:
        return _failed("reach", error)
    except OSError as error:
        return Finding("reach", "fail", f"{error.filename or home}: {error.strerror}", "Use another --home.")
    return Finding("reach", "ok", "every user of its workers gets there")


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


def _private(home: Path, identities: Identities) -> Finding:
    try:
        found = daemon.check_owner(home, None)
        for name, (role, _) in daemon.OWNERS.items():
            with suppress(FileNotFoundError):
                daemon.check_owner(home / name, identities.uid(role) if role else None)  # type: ignore[arg-type]  # keys of that table
    except HomeError as error:
        return _failed("private", error)
    except FileNotFoundError:
        return Finding("private", "ok", "not there yet; it will be made for this user alone")
    except OSError as error:
        return Finding("private", "fail", f"{error.filename}: {error.strerror}", "Use a home of your own.")
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


def _holder(home: Path) -> str:
    """The pid of the supervisor that holds the lock; empty while nobody does."""
    try:
        fd = os.open(home / daemon.LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return ""  # Not there, or not ours to read: then `private` or `writable` says so.
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
    finally:
        os.close(fd)  # And with it the lock, if we got it.
    return ""


def _lock(holder: str) -> Finding:
    """A supervisor that runs is what most want to see; only a second one is refused."""
    if holder:
        return Finding(
            "lock",
            "warn",
            f"a supervisor is running on this home already (pid {holder}); a second one is refused",
            "Stop it with `homeostat stop` before you run another, or use another --home.",
        )
    return Finding("lock", "ok", "no supervisor is running here")


def _ports(config: Config, holder: str) -> Iterator[Finding]:
    """Listen as `run` would, for a moment; what the supervisor of this home has taken is not tried."""
    for key, address in (("metrics.listen", config.metrics.listen), ("client.listen", config.client.listen)):
        if not address:
            continue
        if holder:
            yield Finding(key, "ok", f"{address}: not tried while a supervisor is running here")
            continue
        try:
            listeners.listen_tcp(address, key).close()
        except HomeostatError as error:
            yield _failed(key, error)
        else:
            yield Finding(key, "ok", f"{address} is free")


def _keys(config: Config) -> Iterator[Finding]:
    """A missing key stops no start, but every task of its agent."""
    for agent, reason in secrets.troubles(config):
        yield Finding(
            "model key",
            "warn",
            f"agent {agent!r}: {reason}",
            "Its tasks will fail: set the variable for the supervisor, or make the file readable to it.",
        )
    for name, reason in secrets.secret_troubles(config):
        yield Finding(
            "secret",
            "warn",
            f"{name}: {reason}",
            "What needs it will fail: set the variable for the supervisor, or make the file readable.",
        )
