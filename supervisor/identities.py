"""Who each process is, when the supervisor is root.

Owns: the numbering of users below ``users.base``.
Must not know: how a process takes on an identity (workers/identity.py).
Invariant: no two roles share a uid; without root everyone is who started us.
Source: DESIGN §3; docs/SECURITY.md lists the numbers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..proto.config import Config
from ..proto.ids import Role

OFFSETS: dict[Role, int] = {
    "gate": 1, "brain": 2, "executor": 3, "memory": 4, "courier": 5, "database": 6,
}  # fmt: skip
SETUP_OFFSET = 10
COMMAND_OFFSET = 11


@dataclass(frozen=True)
class Identities:
    """Users of this home; ``base`` is None for an ordinary user."""

    base: int | None

    @classmethod
    def of(cls, config: Config) -> Identities:
        """The identities that this process can hand out."""
        return cls(config.users.base if os.geteuid() == 0 else None)

    def uid(self, role: Role) -> int | None:
        """The uid (and gid) of a role; None keeps the supervisor's own, as the zygote does."""
        if self.base is None or role not in OFFSETS:
            return None
        return self.base + OFFSETS[role]

    @property
    def setup_uid(self) -> int | None:
        """The uid that a zygote sets sandboxes up as; None: our own."""
        return None if self.base is None else self.base + SETUP_OFFSET

    @property
    def workers_gid(self) -> int | None:
        """The group of those who may connect to the gate's socket."""
        return self.base
