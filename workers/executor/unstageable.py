"""Workspaces over which the kernel can't lay a stage.

Owns: which refusals mean that, the workspaces that were met, and the words about them.
Must not know: what class a call gets then (the gate decides), overlays.
Invariant: what was met in this life is told to every new gate; a later life finds out anew.
Source: DESIGN law 8; overlayfs.rst: a file system that can't be a layer is refused with EINVAL, a kernel or a
        container that has or allows no overlay with the others.
"""

from __future__ import annotations

import errno
from typing import Final

from ...proto import messages as m
from ...sandbox.layers import Layer
from ...sandbox.protocol import Refused

_CANNOT: Final = frozenset({
    errno.EINVAL, errno.EOPNOTSUPP, errno.ENODEV, errno.EPERM, errno.ENOSYS, errno.EROFS, errno.ELOOP,
})  # fmt: skip
_NOTED: Final = 1_000


def why_no_overlay(refused: Refused) -> str:
    """The kernel's reason, where a launch was refused for want of an overlay; else nothing."""
    about = refused.layer == Layer.WORKSPACE.value and "overlay" in refused.message
    return refused.message if about and refused.errno in _CANNOT else ""


class Unstageables:
    """The workspaces that can't have a stage."""

    def __init__(self, *, allowed: bool) -> None:
        """``allowed``: the operator lets the overlay be missing."""
        self._allowed = allowed
        self._reasons: dict[str, str] = {}

    def met(self, workspace: str, reason: str) -> tuple[str, m.Unstageable | None]:
        """What the call is told, and what the gate is told."""
        text = f"the changes of a call in {workspace} can't be staged: {reason}"
        if not self._allowed:
            remedy = (
                "Use a workspace on another file system (ext4, xfs, btrfs, tmpfs), or write "
                'sandbox.may_be_missing = ["cgroup", "overlay"] into the configuration: then calls there '
                "write at once, and are not run again after a crash."
            )
            return f"{text}\n{remedy}", None
        if len(self._reasons) < _NOTED:
            self._reasons[workspace] = reason
        text += "\nFurther calls there write at once, without a stage: propose it again."
        return text, m.Unstageable(workspace, reason)

    def told_again(self) -> list[m.Unstageable]:
        """For a new gate."""
        return [m.Unstageable(workspace, reason) for workspace, reason in self._reasons.items()]
