"""Child specs: which workers a home has, in the order in which they start.

Owns: roles, their order, groups and deadlines.
Must not know: processes, sockets, time.
Invariant: a role and index name exactly one child; children start in the order of this list, each when the
    one before it serves, and stop backwards through it.
Source: Erlang/OTP supervisor(3): child specifications; DESIGN §3, §7.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from ..proto.config import Config
from ..proto.errors import ConfigError
from ..proto.ids import Role

START_S = 120.0
"""A worker that has not said Ready after this long is taken for hung."""


class Strategy(enum.Enum):
    """Who is restarted when one member of a group dies."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


class Restart(enum.Enum):
    """When a child that ended by itself is started again."""

    PERMANENT = "permanent"
    """Always."""
    TRANSIENT = "transient"
    """When it ended abnormally: by a signal, or with another exit code than 0."""
    TEMPORARY = "temporary"
    """Never, not even with its group."""


@dataclass(frozen=True, order=True)
class ChildId:
    """Name of a child: ``role.index``."""

    role: Role
    index: int

    def __str__(self) -> str:
        return f"{self.role}.{self.index}"


@dataclass(frozen=True)
class ChildSpec:
    """One child: how it is restarted and how long it may take to start and to stop.

    ``shutdown_s`` is None for a brutal kill: it is never asked. The end of a ``significant`` child that is
    not restarted ends the whole tree, in order.
    """

    id: ChildId
    shutdown_s: float | None
    start_s: float = START_S
    restart: Restart = Restart.PERMANENT
    significant: bool = False
    liveness: bool = True


@dataclass(frozen=True)
class Group:
    """Children that share a strategy and one restart intensity, in start order."""

    name: str
    strategy: Strategy
    members: tuple[ChildSpec, ...]


def groups(config: Config) -> tuple[Group, ...]:
    """Give the tree of a configuration: gate, memory, the ways out that are wanted, (zygote, executor)
    pairs, brains.
    """
    stop_s = config.supervision.stop_s

    def single(role: Role, index: int) -> Group:
        spec = ChildSpec(ChildId(role, index), stop_s)
        return Group(str(spec.id), Strategy.ONE_FOR_ONE, (spec,))

    def pair(index: int) -> Group:
        # The zygote first: an executor without its zygote is restarted, a zygote outlives its executor.
        zygote = ChildSpec(ChildId("zygote", index), stop_s, liveness=False)
        executor = ChildSpec(ChildId("executor", index), stop_s)
        return Group(f"sandbox.{index}", Strategy.REST_FOR_ONE, (zygote, executor))

    return (
        single("gate", 0),
        single("memory", 0),
        *((single("courier", 0),) if config.has_courier else ()),
        *((single("database", 0),) if config.has_database else ()),
        *(pair(index) for index in range(config.workers.executors)),
        *(single("brain", index) for index in range(config.workers.brains)),
    )


def check(found: Sequence[Group]) -> None:
    """Refuse specs that mean nothing. Raises ConfigError naming the child and the field."""
    seen: set[ChildId] = set()
    for group in found:
        if not group.members:
            raise ConfigError(f"group {group.name} has no members", field="members", expected="at least one")
        for spec in group.members:
            if spec.id in seen:
                raise ConfigError(f"two children are named {spec.id}", field="id", expected="unique names")
            seen.add(spec.id)
            _check(spec)


def _check(spec: ChildSpec) -> None:
    def wrong(field: str, what: str, expected: str) -> ConfigError:
        return ConfigError(f"child {spec.id}: {field}: {what}", field=field, expected=expected)

    if spec.id.role not in get_args(Role):
        raise wrong("id", f"there is no role {spec.id.role!r}", "one of " + ", ".join(get_args(Role)))
    if spec.id.index < 0:
        raise wrong("id", f"index {spec.id.index}", "0 or more")
    if spec.shutdown_s is not None and not 0 <= spec.shutdown_s < math.inf:
        raise wrong("shutdown_s", f"{spec.shutdown_s}", "seconds, or none for a brutal kill")
    if not 0 < spec.start_s < math.inf:
        raise wrong("start_s", f"{spec.start_s}", "seconds above 0")
    if spec.significant and spec.restart is Restart.PERMANENT:
        raise wrong("significant", "a permanent child never ends for good", "transient or temporary")
