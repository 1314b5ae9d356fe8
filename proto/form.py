"""The form of messages between homeostat's own processes.

Owns: what all of them have in common.
Must not know: any message.
Invariant: frozen, no unknown fields, fields by position: moved, never shared.
Source: DESIGN §2 (law 2).
"""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Common form."""
