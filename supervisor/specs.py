"""Child specs: which workers a home has, in the order in which they start.

Owns: roles, their order, groups and deadlines.
Must not know: processes, sockets, time.
Invariant: a role and index name exactly one child; stopping goes backwards through the same order.
Source: Erlang/OTP supervisor(3): child specifications; DESIGN §3, §7.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..proto.config import Config
from ..proto.ids import Role

START_S = 120.0
"""A worker that has not said Ready after this long is taken for hung."""


class Strategy(enum.Enum):
    """Who is restarted when one member of a group dies."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


class Restart(enum.Enum):
    """When a child that ended is started again."""

    PERMANENT = "permanent"


@dataclass(frozen=True, order=True)
class ChildId:
    """Name of a child: ``role.index``."""

    role: Role
    index: int

    def __str__(self) -> str:
        return f"{self.role}.{self.index}"


@dataclass(frozen=True)
class ChildSpec:
    """One child: how it is restarted and how long it may take to start and to stop."""

    id: ChildId
    shutdown_s: float
    start_s: float = START_S
    restart: Restart = Restart.PERMANENT
    liveness: bool = True


@dataclass(frozen=True)
class Group:
    """Children that share a strategy and one restart intensity, in start order."""

    name: str
    strategy: Strategy
    members: tuple[ChildSpec, ...]


def groups(config: Config) -> tuple[Group, ...]:
    """Give the tree of a configuration: gate, memory, (zygote, executor) pairs, brains."""
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
        *(pair(index) for index in range(config.workers.executors)),
        *(single("brain", index) for index in range(config.workers.brains)),
    )


STOP_ORDER: tuple[Role, ...] = ("brain", "executor", "zygote", "memory", "gate")
"""Reverse of the start: whoever asks for work stops first, the journal's owner last."""
