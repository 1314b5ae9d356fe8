"""Owns: a zygote with a workspace, for tests, and a blocking way to run one command in a sandbox of it.
Must not know: what a test attempts.
Invariants: everything it starts it ends; its files lie in a folder of its own that every uid can reach.
Source: DESIGN §9.
"""

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from homeostat.proto import codec, messages
from homeostat.sandbox import layers, protocol
from homeostat.sandbox.client import ZygoteClient
from homeostat.sandbox.delegation import HomeGroup
from homeostat.sandbox.namespaces import Ids
from homeostat.sandbox.profile import Profile
from homeostat.sandbox.protocol import Exited, Launch, Launched, Refused

SETUP_UID, COMMAND_UID, ORDINARY_UID = 64110, 64111, 65534
PATIENCE_S = 60.0
PYTHON = b"/usr/bin/python3"
#: Root's own interpreter may lie where an ordinary user can't go; the system's runs the same packages.
USER_PYTHON = "/usr/bin/python3"
IMPORTS = os.pathsep.join(path for path in sys.path if path)


def user_can_import() -> bool:
    """Whether an ordinary user could run the zygote, when it is root who tests."""
    command = [USER_PYTHON, "-c", "import homeostat.sandbox.zygote"]
    ran = subprocess.run(
        command, check=False, capture_output=True, user=ORDINARY_UID, extra_groups=[],
        env={"PYTHONPATH": IMPORTS, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    return ran.returncode == 0


class Result(msgspec.Struct):
    """What a test wants to know of one launch."""

    launched: Launched | None
    end: Exited | Refused
    out: str

    @property
    def code(self) -> int | None:
        """The exit code of a command that ran."""
        assert isinstance(self.end, Exited), self.end
        return self.end.exit_code

    @property
    def signal(self) -> int | None:
        """The signal that ended a command."""
        assert isinstance(self.end, Exited), self.end
        return self.end.signal


class Stand:
    """A zygote, as root's or as an ordinary user's, and the folders it works on."""

    def __init__(self, *, as_user: bool, armed: int = 2) -> None:
        self.armed = armed
        self.privileged = os.geteuid() == 0 and not as_user
        runner = ORDINARY_UID if os.geteuid() == 0 else os.geteuid()
        self.ids = Ids(SETUP_UID, COMMAND_UID) if self.privileged else Ids(runner)
        self.base = Path(tempfile.mkdtemp(prefix="homeostat-test-", dir="/var/tmp"))
        self.base.chmod(0o755)
        self.workspace = self.folder("workspace")
        self._count = 0
        self.groups = HomeGroup(self.base, self.ids.setup_uid if os.geteuid() == 0 else None)
        try:
            self._start()
        except BaseException:
            self.groups.close()
            shutil.rmtree(self.base)
            raise

    # -- the zygote --------------------------------------------------------------------------------

    def _start(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        owner, owner_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        lent = self.groups.lend(0)
        with theirs, owner_theirs, contextlib.ExitStack() as stack:
            for fd in lent.values():
                stack.callback(os.close, fd)
            fds = (theirs.fileno(), owner_theirs.fileno())
            ids = (self.ids.setup_uid, self.ids.command_uid or 0)
            host = Path(__file__).with_name("zygote_host.py")
            uid = None if self.privileged or os.geteuid() != 0 else self.ids.setup_uid
            self.process = subprocess.Popen(
                [
                    sys.executable if uid is None else USER_PYTHON, host, *map(str, (*fds, *ids)),
                    ",".join(layers.DEGRADABLE), *(f"{name}={fd}" for name, fd in lent.items()),
                ],
                pass_fds=(*fds, *lent.values()), stdin=subprocess.DEVNULL, user=uid, group=uid,
                extra_groups=None if uid is None else [],
                env={**os.environ, "PYTHONPATH": IMPORTS, "PYTHONDONTWRITEBYTECODE": "1",
                     "ARMED": str(self.armed)},
            )  # fmt: skip
        self.client = ZygoteClient(owner)
        self.control.settimeout(PATIENCE_S)
        said = codec.TO_SUPERVISOR.decode(self.control.recv(codec.CONTROL_LIMIT_BYTES))
        assert said == messages.Ready(), said

    def new_owner(self) -> ZygoteClient:
        """Tell the zygote of a new executor; its client."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self.control, [codec.encode(messages.Owner(epoch=2))], [theirs.fileno()])
        return ZygoteClient(ours)

    def close(self) -> None:
        """Hang up like a dying supervisor, see the zygote end by itself, remove the folders."""
        self.control.close()
        self.client.close()
        try:
            self.process.wait(PATIENCE_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.groups.close()
            _make_removable(self.base)
            shutil.rmtree(self.base)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- folders -----------------------------------------------------------------------------------

    def own(self, path: Path) -> Path:
        """Give a path to the command's uid."""
        if os.geteuid() == 0:
            os.chown(path, self.ids.outside_uid, self.ids.outside_uid, follow_symlinks=False)
        return path

    def folder(self, name: str) -> Path:
        """A folder of the command's uid."""
        path = self.base / name
        path.mkdir()
        return self.own(path)

    def file(self, path: Path, text: str) -> Path:
        """A file of the command's uid."""
        path.write_text(text)
        return self.own(path)

    def stage(self) -> Path:
        """A fresh stage, as an executor makes it."""
        self._count += 1
        stage = self.folder(f"stage{self._count}")
        self.own_folder(stage / "upper")
        self.own_folder(stage / "work")
        return stage

    def own_folder(self, path: Path) -> Path:
        """Make a folder of the command's uid at a path."""
        path.mkdir()
        return self.own(path)

    # -- commands ----------------------------------------------------------------------------------

    def launch(self, launch: Launch, *, workspace: Path | None = None, stage: Path | None = None,
               stdio: Sequence[int] = (), client: ZygoteClient | None = None) -> None:  # fmt: skip
        """Send the request with its descriptors."""
        folders = [workspace or self.workspace, *([] if stage is None else [stage])]
        fds = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for folder in folders]
        try:
            (client or self.client).launch(launch, [*fds, *stdio])
        finally:
            protocol.close(fds)

    def next_id(self) -> int:
        """An id that no other launch of this stand has."""
        self._count += 1
        return self._count

    def run(self, argv: Sequence[bytes], *, profile: Profile | None = None, stdin: int | None = None,
            workspace: Path | None = None, stage: Path | None = None, env: dict[str, str] | None = None,
            builtin: str | None = None, cwd: str = "",
            client: ZygoteClient | None = None) -> Result:  # fmt: skip
        """Run one command to its end; its output is both streams."""
        read, write = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        launch = Launch(self.next_id(), profile or Profile(), list(argv), env=env or {}, cwd=cwd,
                        builtin=builtin,
                        staged=stage is not None)  # fmt: skip
        stdio = (null if stdin is None else stdin, write, write)
        try:
            self.launch(launch, workspace=workspace, stage=stage, stdio=stdio, client=client)
        finally:
            protocol.close((write, null))
        with open(read, "rb", buffering=0) as pipe:
            launched, end, out = self._collect(launch.id, client or self.client, pipe.fileno())
        return Result(launched, end, out.decode(errors="replace"))

    def _collect(
        self, identity: int, client: ZygoteClient, pipe: int
    ) -> tuple[Launched | None, Exited | Refused, bytes]:
        """Read output while it comes, as a pipe holds only 64 KB, until the launch's end; then what is left
        in it.
        """
        launched, out, open_pipe = None, b"", True
        sources: list[ZygoteClient | int] = [client, pipe]
        while True:
            ready, _, _ = select.select(sources if open_pipe else [client], [], [], PATIENCE_S)
            assert ready, f"nothing for {PATIENCE_S} s; so far {out!r}"
            if pipe in ready:
                chunk = os.read(pipe, 1 << 16)
                out, open_pipe = out + chunk, bool(chunk)
            if client not in ready:
                continue
            for message, fds in client.receive():
                protocol.close(fds)
                assert message.id == identity
                if isinstance(message, Launched):
                    launched = message
                else:
                    assert isinstance(message, Exited | Refused)
                    return launched, message, out + _rest(pipe)

    def python(self, source: str, **options: object) -> Result:
        """Run an attack written in Python."""
        return self.run([PYTHON, b"-I", b"-S", b"-c", (GUARD + source).encode()], **options)  # type: ignore[arg-type]

    def shell(self, source: str, **options: object) -> Result:
        """Run a line of shell."""
        return self.run([b"bash", b"-c", source.encode()], **options)  # type: ignore[arg-type]


#: Every attack refuses to run where it could hit the machine itself, and has system calls at hand.
GUARD = """
import ctypes, errno, os, signal, socket, struct, sys
if open("/proc/self/uid_map").read().split() == ["0", "0", "4294967295"]:
    sys.exit("refusing: this is the initial user namespace")
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    "errno's name, or OK"
    ctypes.set_errno(0)
    kinds = {int: ctypes.c_long, bytes: ctypes.c_char_p}
    args = [kinds[type(a)](a) if type(a) in kinds else a for a in args]
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(number), *args)
    return "OK" if result >= 0 else errno.errorcode[ctypes.get_errno()]
def attempt(function, *args):
    try:
        function(*args)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "OK"
def opening(path, flags):
    return attempt(lambda: os.close(os.open(path, flags)))
"""


def receive(client: ZygoteClient) -> list[tuple[protocol.ToOwner, list[int]]]:
    """Wait for something from the zygote."""
    assert select.select([client], [], [], PATIENCE_S)[0], "the zygote said nothing"
    return client.receive()


def wait_dead(pid: int) -> None:
    """Wait until a process is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with open(pidfd, "rb"):
        assert select.select([pidfd], [], [], PATIENCE_S)[0], f"process {pid} lives"


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a process that this test started."""
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE_S)


def _rest(pipe: int) -> bytes:
    os.set_blocking(pipe, False)
    out = b""
    while True:
        try:
            chunk = os.read(pipe, 1 << 16)
        except BlockingIOError:
            return out
        if not chunk:
            return out
        out += chunk


def _make_removable(base: Path) -> None:
    """Overlayfs leaves folders of mode 000 in work/."""
    for folder, names, _ in os.walk(base):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path) and os.stat(path).st_mode & 0o700 != 0o700:
                os.chmod(path, 0o700)
