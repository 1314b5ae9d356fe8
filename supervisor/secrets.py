"""Provider keys: only a brain may have them.

Owns: which variables are secret, how they reach a brain without passing through anybody else, and whether
the place that an agent names for its key holds one.
Must not know: what a key opens.
Invariant: the nursery never has a secret, so no worker inherits one in its memory or its /proc/PID/environ.
Source: DESIGN §3 (powers): the keys are the brain's; environ(7), memfd_create(2).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from ..proto.config import Config, Model
from .identities import Identities

LOOKED_AT_BYTES = 4_096
"""So much of a key file tells whether it holds anything."""


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


def troubles(config: Config, environment: Mapping[str, str] = os.environ) -> Iterator[tuple[str, str]]:
    """Agents whose brain would find no key, each with the reason; never a word of a key."""
    reader = Identities.of(config).uid("brain")
    for agent in config.agent:
        if agent.provider != "chat" or agent.model is None:
            continue
        if reason := _trouble(agent.model, environment, reader):
            yield agent.name, reason


def _trouble(model: Model, environment: Mapping[str, str], reader: int | None) -> str:
    if model.key_file:
        found = _tried(model.key_file, reader)
        return f"key_file {model.key_file}: {found}" if found else ""
    if model.key_env and not environment.get(model.key_env, "").strip():
        return f"environment variable {model.key_env} is empty or missing"
    return ""


def _tried(path: str, reader: int | None) -> str:
    """Why a key file is of no use; as root it is tried as the brain's user, in a fork."""
    if reader is None:
        return _read(path)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setegid(reader)
            os.seteuid(reader)
            os.write(write, _read(path).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    return f"{told} (for uid {reader}, the brain's)" if told else ""


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return "" if file.read(LOOKED_AT_BYTES).strip() else "it is empty"
    except OSError as error:
        return (error.strerror or str(error)).lower()
