"""Epochs: numbers of incarnations that grow for ever on one home.

Owns: ``run/epochs``.
Must not know: what an epoch is good for.
Invariant: an epoch is handed out once, across restarts, crashes and power cuts.
Source: the hi/lo allocation of database sequences: a synced reservation, spent from memory.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

BLOCK = 1_000
"""Epochs reserved at once: a restart costs no disk sync, a crash of the supervisor skips at most these."""


class Epochs:
    """Hands out epochs by child name. Raises OSError when the reservation can't be written."""

    def __init__(self, path: Path, *, used_before: bool) -> None:
        """Take the file; ``used_before``: this home has a journal, so a missing file was lost."""
        self._path = path
        self._reserved = self._load(used_before)
        self._floor = self._reserved.pop("", 0)
        self._last = dict(self._reserved)

    def next(self, name: str) -> int:
        """Give a fresh epoch for this child."""
        epoch = self._last.get(name, self._floor) + 1
        if epoch > self._reserved.get(name, 0):
            self._reserved[name] = epoch + BLOCK
            self._save(self._reserved, sync=True)
        self._last[name] = epoch
        return epoch

    def reserve(self, names: list[str]) -> None:
        """Reserve for all these children with one sync."""
        for name in names:
            self._last.setdefault(name, self._floor)
            self._reserved[name] = self._last[name] + BLOCK
        self._save(self._reserved, sync=True)

    def close(self) -> None:
        """After a clean stop nothing needs to be skipped; if this write is lost, only numbers are."""
        self._save(self._last, sync=False)

    def _load(self, used_before: bool) -> dict[str, int]:
        try:
            found: dict[str, int] = msgspec.json.decode(self._path.read_bytes(), type=dict[str, int])
        except FileNotFoundError:
            return {"": int(time.time())} if used_before else {}
        except msgspec.MsgspecError:
            # The clock is beyond any number that restarts can reach: better a gap than an epoch twice.
            return {"": int(time.time())}
        return found

    def _save(self, numbers: dict[str, int], *, sync: bool) -> None:
        data = msgspec.json.encode({**numbers, **({"": self._floor} if self._floor else {})})
        temporary = self._path.with_name(self._path.name + ".new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(self._path)
        if sync:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
