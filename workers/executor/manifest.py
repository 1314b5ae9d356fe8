"""The commit record of a stage: what a merge will do, and where things were before it.

Owns: the values of a merge plan, and their form on disk.
Must not know: how a plan is made or carried out.
Invariants: a record is whole or it is none: it carries its own SHA-256, its stage's key and its diff's
digest.
Source: DESIGN §4 "Staged effects".
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from .beneath import EntryType, entry_type

VERSION = 1
_CHECKSUM_BYTES = 32
T = TypeVar("T")


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """One thing at one moment, as precisely as the file system tells."""

    type: EntryType
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """The identity that a stat shows."""
        return cls(
            entry_type(status),
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_mode & 0o7777,
        )

    def is_at(self, status: os.stat_result | None) -> bool:
        """Whether this inode is what was found, whatever became of its bytes."""
        return status is not None and status.st_ino == self.ino and entry_type(status) == self.type

    def is_same(self, status: os.stat_result | None) -> bool:
        """Whether it is this inode with the same bytes; a rename, a chmod and folders' times don't count."""
        if status is None or not self.is_at(status):
            return False
        return self.type == "dir" or (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)

    def is_untouched(self, status: os.stat_result | None) -> bool:
        """Whether nothing at all was done to it."""
        return status is not None and self.is_same(status) and status.st_ctime_ns == self.ctime_ns


class Operation(msgspec.Struct, frozen=True, array_like=True):
    """One path that is placed (no ``old``), removed (no ``new``) or replaced, with all that lies beneath
    it.
    """

    path: bytes
    slot: int
    parent_ino: int
    new: Identity | None
    old: Identity | None
    base: str = ""
    """SHA-256 of the replaced file where the diff read it; of a folder: the fingerprint of its tree."""


class ModeChange(msgspec.Struct, frozen=True, array_like=True):
    """A file or folder that stays and only gets other permissions (or the same ones back after the merge)."""

    path: bytes
    type: EntryType
    ino: int
    old: int
    new: int


class Cleaning(msgspec.Struct, frozen=True, array_like=True):
    """What must come off a thing in the upper layer before it may stand in the workspace."""

    path: bytes
    ino: int
    remove: bool = False
    mode: int | None = None
    attributes: tuple[str, ...] = ()


class Left(msgspec.Struct, frozen=True, array_like=True):
    """One thing as a merge leaves it, whatever its inode: an undo takes away nothing else."""

    path: bytes
    type: EntryType
    mode: int
    size: int
    digest: bytes = b""
    """SHA-256 of a file's bytes or of a link's target."""


class Plan(msgspec.Struct, frozen=True, array_like=True):
    """Everything a merge does. The operations' paths are disjoint; their folders exist in the workspace."""

    operations: tuple[Operation, ...] = ()
    modes: tuple[ModeChange, ...] = ()
    cleaning: tuple[Cleaning, ...] = ()
    durable: tuple[bytes, ...] = ()
    """Files and folders of the upper layer that must be on disk before the commit."""
    left: tuple[Left, ...] = ()
    """Everything that the operations place, as it will stand in the workspace."""


class Manifest(msgspec.Struct, frozen=True, array_like=True):
    """The commit record."""

    version: int
    key: str
    digest: str
    workspace_ino: int
    copies: bool
    plan: Plan
    workspace: str = ""
    """Its path, as the call named it."""
    task: str = ""


class Copies(msgspec.Struct, frozen=True, array_like=True):
    """Where stage and workspace are on different mounts: the copies, by slot, all of them on disk."""

    key: str
    identities: dict[int, Identity]


def fingerprint(found: Iterable[tuple[bytes, os.stat_result]]) -> str:
    """A tree as ``beneath.walk`` gives it, in short: names and identities, no bytes read."""
    whole = hashlib.sha256()
    for path, status in found:
        whole.update(msgspec.msgpack.encode((path, Identity.of(status))))
    return whole.hexdigest()


def encode(record: msgspec.Struct) -> bytes:
    """A record and its checksum."""
    body = msgspec.msgpack.encode(record)
    return body + hashlib.sha256(body).digest()


def decode(data: bytes, kind: type[T]) -> T | None:
    """The record, or None when the bytes are not whole."""
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if hashlib.sha256(body).digest() != checksum:
        return None
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except msgspec.MsgspecError:
        return None
