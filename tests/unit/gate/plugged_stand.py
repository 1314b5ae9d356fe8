"""The core's stand with a plug: freezes that survive a restart, and the words of everybody on them."""

from __future__ import annotations

from homeostat.proto import messages as m, records as r, wire
from homeostat.proto.config import Agent
from homeostat.proto.ids import Key
from homeostat.workers.gate import plug
from homeostat.workers.gate.effects import Round
from homeostat.workers.gate.state import OpenCall, Task
from tests.unit.gate.core_stand import CHAT, SHELL, Stand


class Plugged(Stand):
    """A stand whose freezes survive a restart, as the shell's meta entry does."""

    frozen: bytes | None = None

    def write(self) -> Round:
        """Keep what the round says of them."""
        done = super().write()
        self.frozen = done.frozen if done.frozen is not None else self.frozen
        return done

    def restart(self) -> None:
        """Begin again from what is written."""
        super().restart()
        self.core.restore_freezes(self.frozen)

    def freeze(self, scope: str = "all", name: str = "", reason: str = "why") -> wire.Frozen:
        """A client pulls the plug."""
        request = wire.Freeze(scope=scope, name=name, reason=reason)
        answer = plug.freeze(self.core, request, "local", self.now_ns)
        self.commit()
        return answer

    def thaw(self, scope: str = "all", name: str = "") -> wire.Thawed:
        """A client puts it in again."""
        answer = plug.thaw(self.core, wire.Thaw(scope=scope, name=name), "local", self.now_ns)
        self.commit()
        return answer

    def halted(self, key: str) -> None:
        """The executor says that a call stands still."""
        self.core.on_notice(m.Halted(Key(key)), 0)

    def executes(self) -> list[tuple[str, bool]]:
        """The calls that were given out, and whether they are to stand still."""
        return [(message.key, message.halted) for message in self.said(m.Execute)]

    def assigned(self) -> int:
        """How often a task was given to a brain."""
        return sum(isinstance(message, tuple) for _, message in self.sent)


def begun(agent: Agent = CHAT) -> tuple[Plugged, Task]:
    """A stand with all workers and one task that is thinking."""
    stand = Plugged(agent)
    stand.up()
    task = stand.submit()
    stand.commit()
    stand.sent.clear()
    return stand, task


def running(call: r.Call = SHELL, agent: Agent = CHAT) -> tuple[Plugged, Task, OpenCall]:
    """A stand with one task whose call is under way."""
    stand, task = begun(agent)
    stand.propose(task, call)
    stand.commit()
    return stand, task, stand.open_call(task)
