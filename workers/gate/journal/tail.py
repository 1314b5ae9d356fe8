"""The end of the audit tree that is not on disk yet, made again from the records.

Owns: which records' leaves are missing in ``tree``, and their entries.
Must not know: when entries are written (batch.py).
Invariant: an entry follows from its record alone, so a crash loses none.
Source: docs/adr/0011-audit-tree-in-batches.md.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from .errors import DamagedError
from .frames import U64
from .merkle import leaf_hash

if TYPE_CHECKING:
    from .store import Store


def missing_entries(store: Store) -> list[tuple[bytes, bytes]]:
    """Give the entries after the store's frontier, which grows with them. Raises DamagedError."""
    payloads = []
    with store.environment.reading() as txn:
        for position in range(store.last_position, 0, -1):
            frame = store.frame_in(txn, position)
            if frame.leaf is not None:
                if frame.leaf < store.frontier.size:
                    break
                payloads.append((frame.leaf, frame.payload))
    tail = []
    for leaf, payload in reversed(payloads):
        if leaf != store.frontier.size:
            raise DamagedError(f"leaf {leaf} of the audit tree stands where {store.frontier.size} is next")
        tail.append((U64.pack(leaf), store.frontier.append(leaf_hash(sha256(payload).digest()))))
    return tail
