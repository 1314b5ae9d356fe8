"""Owns: the mounts of one sandbox: private file systems, mount points, the way from a passed descriptor to a
    mount.
Must not know: the zygote's template (rootfs.py), what a stage means, credentials.
Invariants: what is attached is the very folder whose descriptor was passed (device and inode compared); host
    folders
    arrive nosuid and nodev. Source: open_tree(2): a copy can only be made of a mount of one's own namespace.
"""

# ruff: noqa: S108 (the /tmp named here is the private one of a sandbox)

import errno
import os
from typing import Final, NamedTuple

from ..proto.confinement import SYSTEM_FOLDERS
from . import mountapi as m
from .layers import WORKSPACE_REACH, Layer, LayerError
from .profile import Profile
from .rootfs import OLD_ROOT, READ_ONLY, bind

#: Readable by everybody on the host, telling about the host, needed by nobody in here.
_MASKED: Final = ("/proc/kallsyms", "/proc/keys", "/proc/timer_list", "/proc/sched_debug")
_TMPFS_FLAGS: Final = m.MS_NOSUID | m.MS_NODEV


class Place(NamedTuple):
    """A folder of the host: its name as a hint, and which one it is."""

    path: str
    dev: int
    ino: int


def make_private(profile: Profile) -> None:
    """Fresh /proc of this pid namespace, /tmp, /dev/shm and /dev/pts. The caller is PID 1 of the sandbox."""
    m.mount("proc", "/proc", "proc", m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC)
    for path in _MASKED:
        if os.path.exists(path):
            bind("/dev/null", path, 0)
    sizes = f"size={profile.tmp_bytes},nr_inodes={profile.tmp_inodes},mode=1777"
    m.mount("tmpfs", "/tmp", "tmpfs", _TMPFS_FLAGS, sizes)
    sizes = f"size={profile.shm_bytes},nr_inodes=4096,mode=1777"
    m.mount("tmpfs", "/dev/shm", "tmpfs", _TMPFS_FLAGS | m.MS_NOEXEC, sizes)
    m.mount("devpts", "/dev/pts", "devpts", m.MS_NOSUID | m.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")


class MountPoints:
    """Makes the folders that mounts go onto.

    The template's root is shared by all sandboxes, so below a top-level folder of it everything is made on a
    small
    file system of this sandbox's own; only the name of the top-level folder is seen by later ones.
    """

    def __init__(self) -> None:
        self._own: list[str] = []

    def folder(self, path: str) -> str:
        """Make `path` and give it back."""
        top = "/" + path.split("/")[1]
        if path not in (top, "/tmp") and top not in ("/tmp", *self._own):
            self._cover(top)
        os.makedirs(path, 0o755, exist_ok=True)
        return path

    def file(self, path: str) -> str:
        """Make an empty file at `path` for a file to be bound onto."""
        self.folder(os.path.dirname(path))
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o444))
        return path

    def _cover(self, top: str) -> None:
        os.makedirs(top, 0o755, exist_ok=True)
        m.mount("tmpfs", top, "tmpfs", _TMPFS_FLAGS, "size=256k,nr_inodes=256,mode=755")
        self._own.append(top)

    def close(self) -> None:
        """Make the root, /dev and every own file system read-only: from here on nothing can be made on
        them.
        """
        for path in ("/", "/dev", *self._own):
            with m.opened(os.open(path, os.O_PATH | os.O_CLOEXEC)) as fd:
                m.mount_setattr(fd, m.ATTR_RDONLY, recursive=False)


def show_extra(profile: Profile, points: MountPoints) -> None:
    """Bind the profile's extra paths at their own names, read-only.

    What the system folders or another extra path show already stays as it is.
    """
    shown = [*SYSTEM_FOLDERS]
    with m.opened(os.open(OLD_ROOT, os.O_PATH | os.O_CLOEXEC)) as host:
        for path in sorted(profile.read_only):
            if any(path == other or path.startswith(other + "/") for other in shown):
                continue
            with m.opened(_open_extra(host, path)) as source:
                place = points.folder(path) if _is_folder(source) else points.file(path)
                bind(source, place, READ_ONLY)
            shown.append(path)


def _open_extra(host: int, path: str) -> int:
    try:
        return m.openat2(host, path, os.O_PATH, m.RESOLVE_IN_ROOT | m.RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        reason = f"extra read-only path {path}: {error.strerror}"
        raise LayerError(Layer.WORKSPACE, error.errno or 0, reason, WORKSPACE_REACH) from error


def _is_folder(fd: int) -> bool:
    return os.path.isdir(f"/proc/self/fd/{fd}")


def place_of(passed_fd: int, proc: str = "/proc") -> Place:
    """Where the folder behind a descriptor of the host's mount namespace lies, as `proc` has it."""
    status = os.fstat(passed_fd)
    return Place(os.readlink(f"{proc}/self/fd/{passed_fd}"), status.st_dev, status.st_ino)


def locate(place: Place, what: str) -> int:
    """This folder of the host as an O_PATH descriptor of this mount namespace, no link followed on the way.

    Its path is only a hint; that the same folder was found is checked, which means something as long as
    whoever asks holds it open: so long no other folder has its number. Raises LayerError.
    """
    path = place.path
    with m.opened(os.open(OLD_ROOT, os.O_PATH | os.O_CLOEXEC)) as host:
        try:
            relative = path.lstrip("/") or "."
            fd = m.openat2(
                host, relative, os.O_PATH | os.O_DIRECTORY, m.RESOLVE_BENEATH | m.RESOLVE_NO_SYMLINKS
            )
        except OSError as error:
            reason = f"{what} {path}: {error.strerror}"
            raise LayerError(Layer.WORKSPACE, error.errno or 0, reason, WORKSPACE_REACH) from error
    found = os.fstat(fd)
    if (found.st_dev, found.st_ino) != (place.dev, place.ino):
        os.close(fd)
        raise LayerError(Layer.WORKSPACE, errno.ESTALE, f"{what}: {path} is not the folder that was passed")
    return fd


def is_there(place: Place) -> bool:
    """Whether this folder of the host still has this name."""
    try:
        status = os.lstat(OLD_ROOT + place.path)
    except OSError:  # whatever the reason, nobody could be given it under this name
        return False
    return (status.st_dev, status.st_ino) == (place.dev, place.ino)


def attach_bind(folder: int, place: str, *, read_only: bool) -> None:
    """Show the folder itself at `place`."""
    bind(folder, place, READ_ONLY if read_only else m.ATTR_NOSUID | m.ATTR_NODEV)
