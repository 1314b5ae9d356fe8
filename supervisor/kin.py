"""A group at run time: how often it failed, and which members wait to be started together.

Owns: the running figures of one group.
Must not know: processes, the clock, the random source (both are arguments).
Invariant: a member that waits stays waiting until all that wait with it are dead and the backoff is over.
Source: Erlang/OTP supervisor(3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..proto.errors import COMPANION_HANGS_EXIT
from .restart import Backoff, Intensity, affected
from .specs import ChildId, Group, Restart


@dataclass
class Kin:
    """One group and its recent past."""

    group: Group
    intensity: Intensity
    backoff: Backoff
    pending: list[ChildId] = field(default_factory=list)
    """Who is to be started once all of these are dead and the backoff is over."""
    queue: list[ChildId] = field(default_factory=list)
    """Who is started next, each when the one before serves."""
    leaving: list[ChildId] = field(default_factory=list)
    """Temporary ones that go down with the others and do not come again."""
    due_s: float = 0.0
    fell_s: float = 0.0
    """When a member last ended."""

    def blamed(self, member: ChildId, exit_code: int | None) -> ChildId:
        """Whose failure a crash is: a member may say that the one it leans on, the first, hangs."""
        return self.group.members[0].id if exit_code == COMPANION_HANGS_EXIT else member

    def failed(self, member: ChildId, served_s: float | None, now_s: float, random: float) -> None:
        """Count a crash of a member that had served for so long (None: not at all); who is affected waits."""
        self.intensity = self.intensity.failed(now_s)
        self.backoff = self.backoff.failed(served_s)
        self.fell_s = now_s
        self.due_s = now_s + self.backoff.delay_s(random)
        members = [spec.id for spec in self.group.members]
        self._await(member, affected(self.group.strategy, members, member))

    def again(self, member: ChildId, now_s: float) -> None:
        """A member that was told to end comes again, with those that lean on it; nothing is counted."""
        self.fell_s = self.due_s = now_s
        members = [spec.id for spec in self.group.members]
        self._await(member, affected(self.group.strategy, members, member))

    def gone(self, member: ChildId) -> None:
        """A member has ended for good."""
        for waiting in (self.pending, self.queue, self.leaving):
            if member in waiting:
                waiting.remove(member)

    def _await(self, member: ChildId, affected: Sequence[ChildId]) -> None:
        """Temporary children that have begun come back with nobody but themselves."""
        waiting = {member, *self.pending, *self.queue}
        temporary = {spec.id for spec in self.group.members if spec.restart is Restart.TEMPORARY} - waiting
        chosen = [spec.id for spec in self.group.members if spec.id in waiting or spec.id in affected]
        self.pending = [one for one in chosen if one not in temporary]
        self.leaving += [one for one in chosen if one in temporary and one not in self.leaving]
        self.queue.clear()
