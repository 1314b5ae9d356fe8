"""The fence: a gate writes under its epoch, and one that has been succeeded can't write any more.

Owns: the epoch in ``meta`` of the last incarnation that wrote.
Must not know: who hands out epochs, what is written.
Invariant: compared in the very transaction that writes, so there is no moment between the look and the write.
Source: "How to do distributed locking" (Kleppmann 2016): fencing tokens; DESIGN §3 (sockets).

The lock of environment.py keeps two gates apart as long as its file is the same for both. Whoever removes it
has two; then the newer one wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import FencedError
from .frames import U64, seal, unseal

if TYPE_CHECKING:
    import lmdb

EPOCH = b"epoch"


@dataclass(frozen=True)
class Fence:
    """The epoch under which a process writes."""

    epoch: int

    def hold(self, txn: lmdb.Transaction[bytes], meta: Any) -> None:
        """Let this transaction go on, under our epoch. Raises FencedError, DamagedError."""
        sealed = txn.get(EPOCH, db=meta)
        found = 0 if sealed is None else int(U64.unpack(unseal("meta", EPOCH, sealed))[0])
        if found > self.epoch:
            raise FencedError(self.epoch, found)
        if found < self.epoch:
            txn.put(EPOCH, seal(EPOCH, U64.pack(self.epoch)), db=meta)
