"""Owns: whether and how one zygote's sandboxes are placed in control groups.
Must not know: how a group is made (cgroups.py), where it lies (delegation.py), what runs in it.
Invariants: decided once, by trying, before the first sandbox; then a sandbox is in its group or is refused.
Source: DESIGN §9; law 8.
"""

import errno
import os
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Final

from . import cgroups, kernel, landlock
from .cgroups import Bounds, Group, Groups
from .layers import Layer, LayerError
from .profile import Limits

MAY_BE_MISSING: Final = ("cgroup", "overlay")
"""What an operator who says nothing allows (proto/settings.py says the same)."""


class Placement:
    """The zygote's way to its groups: `settle`, then the change of uid, then `try_out`, then the rest."""

    def __init__(
        self,
        folders: Mapping[str, int] | None = None,
        may_be_missing: Collection[str] = MAY_BE_MISSING,
    ) -> None:
        """`folders` are what delegation.HomeGroup lends; none of them: there are no control groups."""
        self._groups = Groups(folders) if folders else None
        self._may_be_missing = may_be_missing

    @property
    def fds(self) -> set[int]:
        """What must stay open."""
        return set() if self._groups is None else self._groups.fds

    def settle(self) -> None:
        """While this process still has the uid that it was started with. Raises LayerError."""
        if self._groups is not None:
            self._or_missing(self._groups.settle)

    def try_out(self, limits: Limits | None = None) -> None:
        """See that what was delegated works, and that nothing is missing that must not. Raises LayerError."""
        if not landlock.abi() and "landlock" not in self._may_be_missing:
            raise LayerError(Layer.LANDLOCK, errno.ENOSYS, "this kernel has no Landlock")
        if (groups := self._groups) is not None:
            self._or_missing(lambda: groups.try_out(_bounds(limits or Limits())))
        if self._groups is None and "cgroup" not in self._may_be_missing:
            raise LayerError(Layer.CGROUP, errno.ENOENT, "no control groups were delegated to us")

    def take(self, limits: Limits) -> Group | None:
        """A group for one sandbox; None where there are none. Raises LayerError."""
        if self._groups is None:
            return None
        try:
            return self._groups.take(_bounds(limits))
        except OSError as error:
            raise LayerError.of(Layer.CGROUP, error) from error

    def clone(self, flags: int, group: Group | None) -> tuple[int, int]:
        """kernel.clone_pidfd into the group; the child must `sit_down` in it first. Raises OSError."""
        if self._groups is None or group is None:
            return kernel.clone_pidfd(flags)
        return self._groups.clone(flags, group)

    def cloned(self, group: Group | None) -> None:
        """In the parent, after the clone: close the seats, and have the next group ready meanwhile."""
        if self._groups is not None and group is not None:
            cgroups.stand_up(group)
            self._groups.make_ahead(group.bounds)

    def kill(self, group: Group | None) -> None:
        """Kill all in it, where a group can (v2); beside the death of PID 1, which always does."""
        if self._groups is not None and group is not None:
            self._groups.kill(group)

    def oom_kills(self, group: Group | None) -> int:
        """How many processes of a dead sandbox were killed because all together had too much memory."""
        return 0 if self._groups is None or group is None else self._groups.new_oom_kills(group)

    def leave(self, group: Group | None) -> None:
        """Its sandbox is dead, and what there was to say of it has been said."""
        if self._groups is not None and group is not None:
            self._groups.give_back(group)

    def _or_missing(self, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            failure = LayerError.of(Layer.CGROUP, error)
            if "cgroup" not in self._may_be_missing:
                raise failure from error
            print(f"zygote: no control groups: {failure.message}", file=sys.stderr, flush=True)
            for fd in self.fds:
                os.close(fd)
            self._groups = None


def _bounds(limits: Limits) -> Bounds:
    return Bounds(limits.total_memory_bytes, limits.processes)
