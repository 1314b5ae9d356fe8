"""Owns: the small read-only root that every sandbox starts from: /usr, a curated /etc, /dev; made once by the
    zygote.
Must not know: workspaces, profiles, processes.
Invariants: nothing of the host is writable through it; /etc shows no account, key or host name of the
    machine.
Source: pivot_root(2), hier(7); what bash, git, gcc and python were seen to open.
"""

# ruff: noqa: S108 (the /tmp named here is the private one of a sandbox)

import os
import stat
from typing import Final

from . import mountapi as m

#: Where the host's tree hangs while a sandbox is made; gone before the command runs.
OLD_ROOT: Final = "/oldroot"
#: Any existing folder will do: the new root is mounted over it in a private namespace, then moved away.
_STAND: Final = "/tmp"

_SKELETON: Final = ("proc", "dev", "tmp", "etc", "oldroot", "workspace", "run", "var", "root", "home")
_SYSTEM: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}

#: Folders of /etc that are shown, and files that are copied: loader, alternatives, certificates, names of
#: protocols.
_ETC_FOLDERS: Final = (
    "alternatives", "ld.so.conf.d", "ssl/certs", "pki", "ca-certificates", "fonts", "terminfo", "perl",
    "python3", "python3.11", "python3.12", "python3.13", "java-17-openjdk", "java-21-openjdk",
    "crypto-policies", "gss", "vim", "groff", "ImageMagick-6", "ImageMagick-7",
)  # fmt: skip
_ETC_FILES: Final = (
    "ld.so.cache", "ld.so.conf", "ssl/openssl.cnf", "localtime", "timezone", "protocols", "services",
    "mime.types", "os-release", "debian_version", "redhat-release", "alpine-release", "inputrc", "magic",
    "locale.alias", "locale.conf", "host.conf", "gai.conf", "ca-certificates.conf", "rpc", "shells",
    "manpath.config",
)  # fmt: skip
_ETC_FILE_LIMIT_BYTES: Final = 1 << 20
_ETC_WRITTEN: Final = {
    "passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\n"
    "sandbox:x:1000:1000:sandbox:/tmp:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nprotocols: files\nservices: files\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost ip6-loopback\n",
    "hostname": "sandbox\n",
    "resolv.conf": "# no network\n",
}


def make_template() -> None:
    """Replace the root of this (private) mount namespace by the small one; the host's stays at OLD_ROOT.

    Slave, not private: a file system that the host mounts later can still become a workspace.
    """
    m.set_propagation("/", m.MS_REC | m.MS_SLAVE)
    m.mount("tmpfs", _STAND, "tmpfs", m.MS_NOSUID | m.MS_NODEV, "size=8m,nr_inodes=4096,mode=755")
    for name in _SKELETON:
        os.mkdir(f"{_STAND}/{name}", 0o755)
    _show_system()
    _curate_etc()
    _make_devices()
    os.symlink("/tmp", f"{_STAND}/var/tmp")
    os.chdir(_STAND)
    m.pivot_root(".", "oldroot")
    os.chdir("/")


def bind(source: str | int, target: str, attributes: int) -> None:
    """Attach a copy of the mount at `source` (a path or a descriptor) onto `target`, with ATTR_* added."""
    source_fd = os.open(source, os.O_PATH | os.O_CLOEXEC) if isinstance(source, str) else os.dup(source)
    with m.opened(source_fd), m.opened(m.open_tree(source_fd)) as tree:
        if attributes:
            m.mount_setattr(tree, attributes, recursive=True)
        with m.opened(os.open(target, os.O_PATH | os.O_CLOEXEC)) as place:
            m.move_mount(tree, place)


READ_ONLY: Final = m.ATTR_RDONLY | m.ATTR_NOSUID | m.ATTR_NODEV


def _show_system() -> None:
    """/usr, and /bin, /lib and their kin as links or folders, however this distribution has them."""
    os.mkdir(f"{_STAND}/usr", 0o755)
    bind("/usr", f"{_STAND}/usr", READ_ONLY)
    for name in _SYSTEM:
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{_STAND}/{name}")
        elif os.path.isdir(f"/{name}"):
            os.mkdir(f"{_STAND}/{name}", 0o755)
            bind(f"/{name}", f"{_STAND}/{name}", READ_ONLY)


def _curate_etc() -> None:
    for name in _ETC_FOLDERS:
        if os.path.isdir(f"/etc/{name}"):
            os.makedirs(f"{_STAND}/etc/{name}", 0o755)
            bind(f"/etc/{name}", f"{_STAND}/etc/{name}", READ_ONLY)
    for name in _ETC_FILES:
        _copy_etc_file(name)
    for name, text in _ETC_WRITTEN.items():
        with open(f"{_STAND}/etc/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    os.symlink("/proc/self/mounts", f"{_STAND}/etc/mtab")


def _copy_etc_file(name: str) -> None:
    """Copy a small public file or link; one that others may not read is left out, as it is for the command's
    uid.
    """
    source, target = f"/etc/{name}", f"{_STAND}/etc/{name}"
    try:
        status = os.lstat(source)
    except FileNotFoundError:
        return
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif status.st_mode & stat.S_IROTH and status.st_size <= _ETC_FILE_LIMIT_BYTES:
        with open(source, "rb") as file, open(target, "xb") as copy:
            copy.write(file.read(_ETC_FILE_LIMIT_BYTES))


def _make_devices() -> None:
    """The harmless devices, bound from the host: a user namespace can't make nodes of its own."""
    m.mount("tmpfs", f"{_STAND}/dev", "tmpfs", m.MS_NOSUID | m.MS_NOEXEC, "size=64k,nr_inodes=64,mode=755")
    for name in _DEVICES:
        os.close(os.open(f"{_STAND}/dev/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        bind(f"/dev/{name}", f"{_STAND}/dev/{name}", m.ATTR_NOSUID)
    for name, goal in _DEVICE_LINKS.items():
        os.symlink(goal, f"{_STAND}/dev/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"{_STAND}/dev/{name}", 0o755)
