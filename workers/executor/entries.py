"""What the ledger says of one key.

Owns: the shape of an entry and its bytes.
Must not know: LMDB, so that core.py may know this.
Invariant: fields are only ever appended.
Source: DESIGN §6 "Executor".
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ...proto.ids import EffectClass, TaskId

State = Literal["started", "staged", "merging", "ended", "live"]
"""``live`` is no call: a live terminal, its ``outcome`` what is remembered of it (terminals/table.py)."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What is known of one key. ``outcome`` is an encoded Ended: final when ended, ready when merging."""

    state: State
    task: TaskId
    tool: str
    klass: EffectClass
    workspace: str
    outcome: bytes = b""
