"""What the attacks aim at: canaries on the host that nobody may touch, in a folder of their own.

Owns: the folder, canary files, listeners, a process, a terminal, shared memory; seeing what disturbs them.
Must not know: sandboxes, cases.
Invariants: every target is made here and belongs to the attack's own uid, so that no permission of files does
    the sandbox's work; all of it is gone after `close`. Source: docs/SECURITY.md "Proving it".
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pty
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

TEXT: Final = "of the host\n"
_SHM_KEY_BASE: Final = 0x48530000
_IPC_CREAT, _IPC_EXCL, _IPC_RMID = 0o1000, 0o2000, 0
_libc = ctypes.CDLL(None, use_errno=True)


class Ground:
    """The host as the attacks could hit it, for commands that run as ``uid`` outside."""

    def __init__(self, uid: int, base: Path | None = None) -> None:
        self.uid = uid
        # Not in /tmp: some of the sandboxes that are compared let everything be written there.
        self.base = Path(tempfile.mkdtemp(prefix="homeostat-selftest-", dir=base or "/var/tmp"))  # noqa: S108  named by mkdtemp
        self._keep = contextlib.ExitStack()
        self._keep.callback(remove, self.base)
        self._count = 0
        try:
            self.base.chmod(0o755)
            self._make_files()
            self._make_listeners()
            self._make_others()
        except BaseException:
            self._keep.close()
            raise
        self.workspace = self.fresh_workspace()
        self.stage: Path | None = None

    # -- making ------------------------------------------------------------------------------------

    def _make_files(self) -> None:
        self.outside = self.folder(self.base / "outside")
        self.canary = self.file(self.outside / "canary", TEXT)
        self.secret = self.file(self.outside / "secret", TEXT)
        self.secret.chmod(0o600)
        self.shown = self.file(self.outside / "shown", TEXT * 400)
        self._names = sorted(os.listdir(self.outside))
        self.shared = self.own(Path(f"/dev/shm/homeostat-selftest-{os.getpid()}-{id(self)}"), TEXT)  # noqa: S108
        self._keep.callback(self.shared.unlink, missing_ok=True)

    def _make_listeners(self) -> None:
        self.sockets: dict[str, socket.socket] = {}
        self._listen("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        self._listen("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        with contextlib.suppress(OSError):  # A host without IPv6 can't be reached over it.
            self._listen("tcp6", socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0))
            self._listen("udp6", socket.AF_INET6, socket.SOCK_DGRAM, ("::1", 0))
        for name, kind in (("stream", socket.SOCK_STREAM), ("datagram", socket.SOCK_DGRAM)):
            path = self.outside / name
            self._listen(name, socket.AF_UNIX, kind, str(path))
            self.give(path)
            path.chmod(0o777)
            self._listen(f"abstract {name}", socket.AF_UNIX, kind, f"\0{self.base.name}-{name}")
        self._names = sorted(os.listdir(self.outside))

    def _listen(self, name: str, family: int, kind: int, address: Any) -> None:
        made = self._keep.enter_context(socket.socket(family, kind))
        made.bind(address)
        if kind == socket.SOCK_STREAM:
            made.listen()
        made.setblocking(False)
        self.sockets[name] = made

    def _make_others(self) -> None:
        who = self.uid if os.geteuid() == 0 else None
        self.victim = subprocess.Popen(
            ["/bin/sleep", "3600"], user=who, group=who, extra_groups=None if who is None else [], cwd="/",
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._keep.callback(self._end_victim)
        self.terminal, slave = pty.openpty()
        self._keep.callback(os.close, self.terminal)
        self._keep.callback(os.close, slave)
        self.tty = os.ttyname(slave)
        os.chmod(slave, 0o666)  # noqa: S103  open to all: only the sandbox shall stand before it
        os.set_blocking(self.terminal, False)
        self.memory_key = _SHM_KEY_BASE + os.getpid() % 0xFFFF
        self._memory = _libc.shmget(self.memory_key, 4096, 0o666 | _IPC_CREAT | _IPC_EXCL)
        if self._memory >= 0:
            self._keep.callback(_libc.shmctl, self._memory, _IPC_RMID, None)

    def _end_victim(self) -> None:
        self.victim.kill()
        self.victim.wait()

    # -- files -------------------------------------------------------------------------------------

    def give(self, path: Path) -> Path:
        """Give a path to the attack's uid."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.uid, follow_symlinks=False)
        return path

    def own(self, path: Path, text: str) -> Path:
        """A file of the attack's uid that everybody may write."""
        path.write_text(text)
        path.chmod(0o666)
        return self.give(path)

    def file(self, path: Path, text: str) -> Path:
        """A file of the attack's uid."""
        return self.own(path, text)

    def folder(self, path: Path) -> Path:
        """A folder of the attack's uid."""
        path.mkdir()
        path.chmod(0o755)
        return self.give(path)

    def fresh_workspace(self) -> Path:
        """A new and empty workspace, for the next attack."""
        self._count += 1
        self.workspace = self.folder(self.base / f"workspace{self._count}x")
        self.stage = None
        return self.workspace

    def fresh_stage(self) -> Path:
        """A new stage, as an executor makes it."""
        self._count += 1
        self.stage = self.folder(self.base / f"stage{self._count}")
        for part in ("upper", "work"):
            self.folder(self.stage / part)
        return self.stage

    @property
    def written(self) -> Path:
        """Where what the last attack wrote into its workspace lies."""
        return self.workspace if self.stage is None else self.stage / "upper"

    # -- what the attacks are told, and what they did ----------------------------------------------

    def values(self) -> dict[str, Any]:
        """The variables of every attack."""
        ports = {
            name: made.getsockname()[1]
            for name, made in self.sockets.items()
            if made.family != socket.AF_UNIX
        }
        return {
            "HOST_USER_NAMESPACE": os.readlink("/proc/self/ns/user"),
            "HOST_PID_NAMESPACE": os.readlink("/proc/self/ns/pid"),
            "BASE": str(self.base),
            "OUTSIDE": str(self.outside),
            "CANARY": str(self.canary),
            "SECRET": str(self.secret),
            "SHOWN": str(self.shown),
            "SHARED": str(self.shared),
            "ABSTRACT": f"\0{self.base.name}-",
            "PORTS": ports,
            "VICTIM": self.victim.pid,
            "TTY": self.tty,
            "MEMORY_KEY": self.memory_key,
            "NAME": f".{self.base.name}",
        }

    def disturbed(self) -> str:
        """What of the host was touched since the last look; empty when nothing was."""
        return "; ".join(self._disturbances())

    def _disturbances(self) -> Iterator[str]:
        if not self.outside.exists():
            yield "the canaries' folder was moved away"
            Path(f"{self.outside}2").rename(self.outside)
        for path, text in (
            (self.canary, TEXT),
            (self.secret, TEXT),
            (self.shown, TEXT * 400),
            (self.shared, TEXT),
        ):
            if not path.is_file() or path.read_text(errors="replace") != text:
                yield f"{path.name} was changed"
                self.own(path, text)
        if (names := sorted(os.listdir(self.outside))) != self._names:
            yield f"beside the canaries: {sorted(set(names) ^ set(self._names))}"
            self._names = names
        if self.victim.poll() is not None:
            yield "the canary process was killed"
            self._make_victim_again()
        with contextlib.suppress(BlockingIOError):
            yield f"the host's terminal got {os.read(self.terminal, 64)!r}"
        for name, made in self.sockets.items():
            if _heard(made):
                yield f"the host's {name} socket was reached"

    def _make_victim_again(self) -> None:
        """One disturbance must not be told again of every later case."""
        self.victim.wait()
        self.victim = subprocess.Popen(["/bin/sleep", "3600"], stdin=subprocess.DEVNULL)

    def close(self) -> None:
        """Take everything away."""
        self._keep.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _heard(listener: socket.socket) -> bool:
    """Whether somebody dialled or sent; all of it is taken, descriptors too."""
    heard = False
    while True:
        try:
            if listener.type == socket.SOCK_STREAM:
                listener.accept()[0].close()
            else:
                _, fds, _, _ = socket.recv_fds(listener, 4096, 8)
                for fd in fds:
                    os.close(fd)
        except BlockingIOError:
            return heard
        heard = True


def remove(base: Path) -> None:
    """Remove a folder in which overlayfs left folders of mode 000."""
    for folder, names, _ in os.walk(base):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(base, ignore_errors=True)
