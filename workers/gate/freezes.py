"""What is frozen: everything, agents, tools; since when, by whom, why.

Owns: the freezes in force, and whether one of them covers a task or a call.
Must not know: what standing still means (freezing.py), sockets, clocks.
Invariant: each freeze stands for itself: a thaw lifts the one that it names and no other.
Source: DESIGN §7 "homeostat freeze".
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .state import Task

SCOPES = ("all", "agent", "tool")


class Freeze(msgspec.Struct, array_like=True, frozen=True):
    """One freeze; ``name`` is the agent's or the tool's, empty for everything."""

    scope: str
    name: str
    since_ns: int
    by: str
    reason: str

    @property
    def words(self) -> str:
        """Why something stands still, for a person."""
        what = f"{self.scope} {self.name}" if self.name else "everything"
        return f"{what} is frozen" + (f": {self.reason}" if self.reason else "")


class Freezes:
    """All freezes in force; a check costs next to nothing while there are none."""

    def __init__(self) -> None:
        self._all: dict[tuple[str, str], Freeze] = {}

    def get(self, scope: str, name: str) -> Freeze | None:
        """This freeze, if it is in force."""
        return self._all.get((scope, name))

    def add(self, freeze: Freeze) -> None:
        """It is in force from here on."""
        self._all[freeze.scope, freeze.name] = freeze

    def remove(self, freeze: Freeze) -> None:
        """It is lifted."""
        del self._all[freeze.scope, freeze.name]

    def list(self) -> list[Freeze]:
        """All of them, oldest first."""
        return list(self._all.values())

    def counts(self) -> dict[str, int]:
        """How many there are of each scope."""
        return {scope: sum(freeze.scope == scope for freeze in self._all.values()) for scope in SCOPES}

    # -- what is covered -------------------------------------------------------------------------------
    def of_task(self, task: Task) -> Freeze | None:
        """What keeps the whole task from going on."""
        if not self._all:
            return None
        return self._all.get(("all", "")) or self._all.get(("agent", task.agent))

    def of_call(self, task: Task, tool: str) -> Freeze | None:
        """What keeps a call of this tool from being made or going on."""
        if not self._all:
            return None
        return self.of_task(task) or self._all.get(("tool", tool))

    def of_step(self, task: Task, tools: Iterable[str]) -> Freeze | None:
        """What keeps a task from going on whose calls at hand are of these tools."""
        if not self._all:
            return None
        found = (self._all.get(("tool", tool)) for tool in tools)
        return self.of_task(task) or next((freeze for freeze in found if freeze is not None), None)

    # -- on disk ---------------------------------------------------------------------------------------
    def encode(self) -> bytes:
        """All of them as bytes."""
        return msgspec.msgpack.encode(self.list())

    def restore(self, data: bytes) -> None:
        """Take over what was in force."""
        for freeze in msgspec.msgpack.decode(data, type=list[Freeze]):
            self.add(freeze)
