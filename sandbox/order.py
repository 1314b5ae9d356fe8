"""Owns: the order in which a sandbox is confined. This is the one place that states it.
Must not know: the zygote's loop, messages to the executor, how a layer does its work.
Invariants: a step that fails stops everything (LayerError); nothing untrusted runs before the last step;
    what the report calls enforced was seen to refuse something; Landlock and control groups alone may be
    missing, and then the report says so. Source: DESIGN §9.

    in the zygote, once      own user and mount namespace → the small read-only root → empty bounding set
    in PID 1                 (cloned with mount, pid, net, ipc, uts, cgroup namespaces)
                             control group → lifeline → loopback, way out, host name
                             → /proc /tmp /dev/pts /dev/shm
                             → terminal → extra paths, mount point
                             ← one armed for any workspace, staged or not, waits here
                             → overlay or workspace by descriptor → old root gone → hidden
                             → no_new_privs, no capability but to signal (checked), its own filter
    in the command, meanwhile  unprivileged uid, no further user namespaces → no_new_privs, no capabilities
                             (checked) → rlimits → signals, umask
                             → (the workspace is there) Landlock → seccomp
                             ← one armed for a certain workspace waits here, all locked
                             → descriptors, folder → session, controlling terminal → exec
"""

# ruff: noqa: S108 (the /tmp named here is the private one of a sandbox)

import errno
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from . import (
    kernel,
    landlock,
    mountapi as m,
    mounts,
    namespaces,
    overlay,
    privileges,
    pty,
    rlimits,
    rootfs,
    seccomp,
    title,
)
from .cgroups import Group, sit_down
from .kernel import FilterProgram
from .layers import Layer, LayerError
from .namespaces import Ids
from .profile import Profile
from .protocol import EGRESS_PORT

T = TypeVar("T")


class Step(NamedTuple, Generic[T]):
    """One layer and how it is put in place."""

    layer: Layer
    run: Callable[[T], None]


@dataclass(frozen=True)
class Filters:
    """The compiled seccomp programs and what the report says of the command's."""

    command: FilterProgram
    init: FilterProgram
    command_sha256: str
    command_instructions: int


class Kind(NamedTuple):
    """What sandboxes have in common that stand in for each other; `place` None: any workspace, staged too."""

    profile: Profile
    tty: bool
    egress: bool
    place: mounts.Place | None


@dataclass
class Making:
    """One sandbox while it is made: of which kind, what was passed, what the steps leave for each other.

    `status` is the socket of PID 1, `request` that of the command's process; `passed` keeps the folders open
    as long as their places are looked for; `ahead`: nobody waits for it yet.
    """

    kind: Kind
    ids: Ids
    filters: Filters
    status: socket.socket
    request: socket.socket
    passed: tuple[int, ...] = ()
    workspace: mounts.Place | None = None
    stage: mounts.Place | None = None
    points: mounts.MountPoints = field(default_factory=mounts.MountPoints)
    terminal: tuple[int, int] | None = None
    listener: int | None = None
    ahead: bool = False
    landlock_abi: int = 0
    group: Group | None = None

    @property
    def profile(self) -> Profile:
        """What is asked of this sandbox."""
        return self.kind.profile


def perform(steps: Sequence[Step[T]], subject: T) -> None:
    """Take the steps one after the other. Raises LayerError, named after the step that failed."""
    for step in steps:
        try:
            step.run(subject)
        except OSError as error:
            raise LayerError.of(step.layer, error) from error
        except ValueError as error:
            # setrlimit above the hard limit comes as ValueError.
            raise LayerError(step.layer, errno.EINVAL, str(error)) from error


# -- in PID 1 of the sandbox -----------------------------------------------------------------------


def _enter_group(making: Making) -> None:
    """First of all, so that everything that will be is counted; the next step closes the seats."""
    if making.group is not None:
        sit_down(making.group)


def _hold_lifeline(making: Making) -> None:
    """Die with the zygote, and hold nothing of it; its name and arguments neither."""
    title.take(b"init")
    kernel.set_parent_death_signal(signal.SIGKILL)
    kernel.close_all_but({0, 1, 2, making.status.fileno(), making.request.fileno(), *making.passed})
    # The zygote may have died before the signal was armed; getppid() is 0 in here whether it lives or not.
    try:
        ended = not making.status.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        ended = False
    if ended:
        raise LayerError(Layer.LIFELINE, errno.EPIPE, "the zygote ended while the sandbox was made")


def _set_up_namespaces(making: Making) -> None:
    namespaces.raise_loopback()
    socket.sethostname(making.profile.hostname)
    if making.kind.egress:
        making.listener = namespaces.listen_on_loopback(EGRESS_PORT)


def _set_up_root(making: Making) -> None:
    mounts.make_private(making.profile)
    # Be the kernel's first choice when memory runs out. While hidden, our own /proc files are not ours to
    # write.
    kernel.set_dumpable(True)
    with open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
        file.write("500")


def _make_terminal(making: Making) -> None:
    if making.kind.tty:
        making.terminal = pty.create(_ROWS, _COLS, making.ids.payload_id)


def _make_place(making: Making) -> None:
    mounts.show_extra(making.profile, making.points)
    making.points.folder(making.profile.workspace)


def _attach_workspace(making: Making) -> None:
    profile = making.profile
    if making.workspace is None:
        raise LayerError(Layer.WORKSPACE, errno.EBADF, "no workspace was passed")
    with m.opened(mounts.locate(making.workspace, "workspace")) as workspace:
        if making.stage is None:
            mounts.attach_bind(workspace, profile.workspace, read_only=profile.workspace_read_only)
            return
        with m.opened(mounts.locate(making.stage, "stage")) as stage:
            overlay.attach(workspace, stage, profile.workspace, making.ids.payload_id)


def _leave_old_root(making: Making) -> None:
    m.unmount(rootfs.OLD_ROOT)
    making.points.close()
    for fd in making.passed:
        os.close(fd)


def _hide(_: Making) -> None:
    """Nothing inside may open PID 1's memory, descriptors or environment."""
    kernel.set_dumpable(False)


# -- in the command's process, before its program --------------------------------------------------


def _become_command(making: Making) -> None:
    namespaces.become_command(making.ids)


def _drop_privileges(_: Making) -> None:
    privileges.drop()
    privileges.check()


def _apply_limits(making: Making) -> None:
    rlimits.apply(making.profile.limits)
    rlimits.prove(making.profile.limits)


def _restrict_files(making: Making) -> None:
    """Everything can be read and run; written is only what is the command's own."""
    workspace = landlock.READ_EXECUTE if making.profile.workspace_read_only else landlock.ALL
    making.landlock_abi = landlock.restrict((
        ("/", landlock.READ_EXECUTE),
        (making.profile.workspace, workspace),
        ("/tmp", landlock.ALL),
        ("/dev/shm", landlock.ALL),
        ("/dev/pts", landlock.DEVICE),
        ("/dev/null", landlock.DEVICE),
        ("/dev/zero", landlock.DEVICE),
        ("/dev/full", landlock.DEVICE),
        ("/dev/tty", landlock.DEVICE),
    ))  # fmt: skip
    if making.landlock_abi:
        landlock.prove()


def _filter_calls(making: Making) -> None:
    making.filters.command.load()
    seccomp.prove()


def _settle(_: Making) -> None:
    """Default signals, no mask, the usual umask."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)


# -- the order -------------------------------------------------------------------------------------

_ROWS: Final = 24
_COLS: Final = 80

IN_ZYGOTE: Final[tuple[Step[Ids], ...]] = (
    Step(Layer.NAMESPACES, namespaces.enter_own),
    Step(Layer.ROOT, lambda _: rootfs.make_template()),
    # For every PID 1 at once. A command's own namespace begins with a full one again, and drops that.
    Step(Layer.PRIVILEGES, lambda _: kernel.drop_bounding_set()),
)

AHEAD_IN_INIT: Final[tuple[Step[Making], ...]] = (
    Step(Layer.CGROUP, _enter_group),
    Step(Layer.LIFELINE, _hold_lifeline),
    Step(Layer.NAMESPACES, _set_up_namespaces),
    Step(Layer.ROOT, _set_up_root),
    Step(Layer.TERMINAL, _make_terminal),
    Step(Layer.WORKSPACE, _make_place),
)

ATTACHING: Final[tuple[Step[Making], ...]] = (
    Step(Layer.WORKSPACE, _attach_workspace),
    Step(Layer.OLD_ROOT, _leave_old_root),
    Step(Layer.PRIVILEGES, _hide),
)

AHEAD_IN_COMMAND: Final[tuple[Step[Making], ...]] = (
    Step(Layer.IDENTITY, _become_command),
    Step(Layer.PRIVILEGES, _drop_privileges),
    Step(Layer.LIMITS, _apply_limits),
    Step(Layer.ENVIRONMENT, _settle),
)

LOCKING: Final[tuple[Step[Making], ...]] = (
    Step(Layer.LANDLOCK, _restrict_files),
    Step(Layer.SECCOMP, _filter_calls),
)
