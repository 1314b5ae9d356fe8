"""A group at run time: how often it failed, and which members wait to be started together.

Owns: the running figures of one group.
Must not know: processes, the clock, the random source (both are arguments).
Invariant: a member that waits stays waiting until all that wait with it are dead and the backoff is over.
Source: Erlang/OTP supervisor(3).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..proto.errors import COMPANION_HANGS_EXIT
from .restart import Backoff, Intensity, affected
from .specs import ChildId, Group


@dataclass
class Kin:
    """One group and its recent past."""

    group: Group
    intensity: Intensity
    backoff: Backoff
    pending: list[ChildId] = field(default_factory=list)
    due_s: float = 0.0

    def blamed(self, member: ChildId, exit_code: int | None) -> ChildId:
        """Whose failure a crash is: a member may say that the one it leans on, the first, hangs."""
        return self.group.members[0].id if exit_code == COMPANION_HANGS_EXIT else member

    def failed(self, member: ChildId, served_s: float | None, now_s: float, random: float) -> None:
        """Count a crash of a member that had served for so long (None: not at all); who is affected waits."""
        self.intensity = self.intensity.failed(now_s)
        self.backoff = self.backoff.failed(served_s)
        self.due_s = now_s + self.backoff.delay_s(random)
        members = [spec.id for spec in self.group.members]
        chosen = {*affected(self.group.strategy, members, member), *self.pending}
        self.pending = [one for one in members if one in chosen]
