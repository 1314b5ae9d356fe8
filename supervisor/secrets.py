"""Provider keys in the environment: only a brain may have them.

Owns: which variables are secret, and how they reach a brain without passing through anybody else.
Must not know: what a key opens.
Invariant: the nursery never has a secret, so no worker inherits one in its memory or its /proc/PID/environ.
Source: DESIGN §3 (powers): the keys are the brain's; environ(7), memfd_create(2).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from ..proto.config import Config


@dataclass(frozen=True)
class Secrets:
    """The environment, taken apart."""

    public: Mapping[str, str]
    kept: Mapping[str, str]

    @classmethod
    def taken(cls, config: Config, environment: Mapping[str, str] = os.environ) -> Secrets:
        """Take apart what we were started with, by the ``key_env`` of all models."""
        names = {agent.model.key_env for agent in config.agent if agent.model is not None}
        return cls(
            {name: value for name, value in environment.items() if name not in names},
            {name: value for name, value in environment.items() if name in names},
        )

    def to_fd(self) -> int:
        """Write the secrets into memory that a brain inherits; give its descriptor. Raises OSError."""
        fd = os.memfd_create("homeostat-env", os.MFD_CLOEXEC)
        os.write(fd, msgspec.msgpack.encode(self.kept))
        return fd
