"""Provider keys, credentials, passwords: only the role that uses one may have it.

Owns: which variables are secret and whose, how they reach their role without passing through anybody else,
and whether the place that an agent names for its key holds one.
Must not know: what a key opens.
Invariant: the nursery never has a secret, so no worker inherits one in its memory or its /proc/PID/environ.
Source: DESIGN §3 (powers): the keys are the brain's, credentials the courier's; environ(7), memfd_create(2).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from ..proto.config import Config
from ..proto.ids import Role
from .identities import Identities

LOOKED_AT_BYTES = 4_096
"""So much of a key file tells whether it holds anything."""


@dataclass(frozen=True)
class Secrets:
    """The environment, taken apart."""

    public: Mapping[str, str]
    kept: Mapping[str, str]
    owners: Mapping[Role, frozenset[str]]

    @classmethod
    def taken(cls, config: Config, environment: Mapping[str, str] = os.environ) -> Secrets:
        """Take apart what we were started with, by the variables that the configuration names."""
        owners: dict[Role, frozenset[str]] = {
            "brain": _named(agent.model.key_env for agent in config.agent if agent.model is not None),
            "courier": _named(credential.value_env for credential in config.credential),
            "database": _named(connection.password_env for connection in config.connection),
        }
        names = frozenset().union(*owners.values())
        return cls(
            {name: value for name, value in environment.items() if name not in names},
            {name: value for name, value in environment.items() if name in names},
            owners,
        )

    def of(self, role: Role) -> dict[str, str]:
        """Those that this role may have."""
        names = self.owners.get(role, frozenset())
        return {name: value for name, value in self.kept.items() if name in names}

    def to_fd(self, role: Role) -> int:
        """Write a role's secrets into memory that its worker inherits. Gives a descriptor; raises OSError."""
        fd = os.memfd_create("homeostat-env", os.MFD_CLOEXEC)
        os.write(fd, msgspec.msgpack.encode(self.of(role)))
        return fd


def _named(names: Iterable[str]) -> frozenset[str]:
    """Those that name a variable: an empty one means that there is none."""
    return frozenset(name for name in names if name)


def troubles(config: Config, environment: Mapping[str, str] = os.environ) -> Iterator[tuple[str, str]]:
    """Agents whose brain would find no key, each with the reason; never a word of a key."""
    reader = Identities.of(config).uid("brain")
    for agent in config.agent:
        if agent.provider != "chat" or agent.model is None:
            continue
        place = _Place("key_file", agent.model.key_file, agent.model.key_env)
        if reason := place.trouble(environment, reader, "brain"):
            yield agent.name, reason


def secret_troubles(config: Config, environment: Mapping[str, str] = os.environ) -> Iterator[tuple[str, str]]:
    """The same of credentials and of databases' passwords; each named as in the configuration."""
    users = Identities.of(config)
    for one in config.credential:
        place = _Place("value_file", one.value_file, one.value_env)
        if reason := place.trouble(environment, users.uid("courier"), "courier"):
            yield f"credential {one.name!r}", reason
    for base in config.connection:
        place = _Place("password_file", base.password_file, base.password_env)
        if reason := place.trouble(environment, users.uid("database"), "database worker"):
            yield f"connection {base.name!r}", reason


@dataclass(frozen=True)
class _Place:
    """Where a secret is to be found; nowhere, if both are empty."""

    key: str
    file: str
    variable: str

    def trouble(self, environment: Mapping[str, str], reader: int | None, whose: str) -> str:
        """Why its reader would find none; empty if it would."""
        if self.file:
            found = _tried(self.file, reader, whose)
            return f"{self.key} {self.file}: {found}" if found else ""
        if self.variable and not environment.get(self.variable, "").strip():
            return f"environment variable {self.variable} is empty or missing"
        return ""


def _tried(path: str, reader: int | None, whose: str) -> str:
    """Why a file is of no use; as root it is tried as its reader's user, in a fork."""
    if reader is None:
        return _read(path)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setegid(reader)
            os.seteuid(reader)
            os.write(write, _read(path).encode())
            code = 0
        finally:
            os._exit(code)  # whatever it was that broke: its words might be of the key
    os.close(write)
    with open(read, "rb") as pipe:
        told = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if status != 0:
        told = told or f"it could not be tried (the trial ended with {os.waitstatus_to_exitcode(status)})"
    return f"{told} (for uid {reader}, the {whose}'s)" if told else ""


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return "" if file.read(LOOKED_AT_BYTES).strip() else "it is empty"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    except ValueError:
        return "this is no path"
