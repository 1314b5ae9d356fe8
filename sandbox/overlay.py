"""Owns: the overlay of a staged call: the workspace below, the stage's upper/ above, mounted for this call
    only.
Must not know: diffs, merges, who runs on it.
Invariants: never mounted before the call (after a merge a mounted overlay would serve stale names); one that
    can't be
    written is refused, not used. Source: overlayfs (userxattr, volatile); the merge syncs, so volatile loses
    nothing.
"""

import errno
import os

from . import kernel, mountapi as m
from .layers import Layer, LayerError


def attach(workspace: int, stage: int, place: str, owner: int) -> None:
    """Mount workspace and stage as one writable folder at `place`.

    `owner` (uid and gid in this user namespace) is whom overlayfs works as, so that everything it leaves in
    the stage
    belongs to the command's uid and the executor, which is mapped to no other, can remove it. Raises
    LayerError.
    """
    with m.opened(_open_part(stage, "upper")) as upper, m.opened(_open_part(stage, "work")) as work:
        try:
            with m.opened(_create(workspace, upper, work, owner)) as mounted:
                _check_writable(mounted)
                with m.opened(os.open(place, os.O_PATH | os.O_CLOEXEC)) as target:
                    m.move_mount(mounted, target)
        except OSError as error:
            raise LayerError(Layer.WORKSPACE, error.errno or 0, f"overlay: {error.strerror}") from error


def _open_part(stage: int, name: str) -> int:
    try:
        return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stage)
    except OSError as error:
        raise LayerError(Layer.WORKSPACE, error.errno or 0, f"stage/{name}: {error.strerror}") from error


def _create(workspace: int, upper: int, work: int, owner: int) -> int:
    """The detached mount. Layers are named through /proc/self/fd: descriptors as options need Linux 6.13."""
    with m.opened(m.fsopen("overlay")) as context:
        m.fsconfig_string(context, "source", "stage")
        for flag in ("userxattr", "volatile"):
            m.fsconfig_flag(context, flag)
        m.fsconfig_string(context, "index", "off")
        for key, fd in (("lowerdir", workspace), ("upperdir", upper), ("workdir", work)):
            m.fsconfig_string(context, key, f"/proc/self/fd/{fd}")
        # Overlayfs keeps the credentials of this moment for all its own work.
        kernel.setfsgid(owner)
        kernel.setfsuid(owner)
        kernel.raise_permitted()
        try:
            m.fsconfig_create(context)
        finally:
            kernel.setfsuid(0)
            kernel.setfsgid(0)
        return m.fsmount(context, m.ATTR_NOSUID | m.ATTR_NODEV)


def _check_writable(mounted: int) -> None:
    """An upper layer that the mounter may not write comes up read-only without an error: tried."""
    if os.fstatvfs(mounted).f_flag & os.ST_RDONLY:
        message = "the overlay came up read-only: upper/ and work/ must belong to the command's uid"
        raise LayerError(Layer.WORKSPACE, errno.EROFS, message)
