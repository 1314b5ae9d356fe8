"""Owns: the order in which a sandbox is confined. This is the one place that states it.
Must not know: the zygote's loop, messages to the executor, how a layer does its work.
Invariants: a step that fails stops everything (LayerError); nothing untrusted runs before the last step;
    Landlock is
    the only layer that may be missing, and then the report says so. Source: DESIGN §9.

    in the zygote, once      own user and mount namespace → the small read-only root
    in PID 1, per launch     (cloned with mount, pid, net, ipc, uts, cgroup namespaces)
                             lifeline → loopback, host name → /proc /tmp /dev/pts /dev/shm
                             ← an armed sandbox would wait here for its request
                             → overlay or workspace by descriptor, extra paths → old root gone → terminal
    in the command           unprivileged uid, no further user namespaces → no_new_privs, no capabilities
    (checked)
                             → rlimits → Landlock → seccomp → signals, descriptors, folder
                             → session, controlling terminal → (PID 1 has given up everything too) → exec
"""

# ruff: noqa: S108 (the /tmp named here is the private one of a sandbox)

import errno
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from . import kernel, landlock, mounts, namespaces, overlay, privileges, pty, rlimits, rootfs
from . import mountapi as m
from .kernel import FilterProgram
from .layers import Layer, LayerError
from .namespaces import Ids
from .profile import Profile
from .protocol import Launch

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


@dataclass
class Making:
    """One sandbox while it is made: what was asked, what was passed, what the steps leave for each other."""

    launch: Launch
    ids: Ids
    filters: Filters
    status: socket.socket
    workspace: int
    stage: int | None
    stdio: tuple[int, ...]
    points: mounts.MountPoints = field(default_factory=mounts.MountPoints)
    terminal: tuple[int, int] | None = None
    go: int = -1
    started: int = -1
    landlock_abi: int = 0

    @property
    def profile(self) -> Profile:
        """What is asked of this sandbox."""
        return self.launch.profile


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


def _hold_lifeline(making: Making) -> None:
    """Die with the zygote, and hold nothing of it."""
    kernel.set_parent_death_signal(signal.SIGKILL)
    kept = {0, 1, 2, making.status.fileno(), making.workspace, *making.stdio}
    kernel.close_all_but(kept if making.stage is None else {*kept, making.stage})
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


def _set_up_root(making: Making) -> None:
    mounts.make_private(making.profile)
    # Be the kernel's first choice when memory runs out. While hidden, our own /proc files are not ours to
    # write.
    kernel.set_dumpable(True)
    with open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
        file.write("500")


def _attach_workspace(making: Making) -> None:
    profile = making.profile
    mounts.show_extra(profile, making.points)
    place = making.points.folder(profile.workspace)
    with m.opened(mounts.locate(making.workspace, "workspace")) as workspace:
        if making.stage is None:
            mounts.attach_bind(workspace, place, read_only=profile.workspace_read_only)
            return
        with m.opened(mounts.locate(making.stage, "stage")) as stage:
            overlay.attach(workspace, stage, place, making.ids.payload_id)


def _leave_old_root(making: Making) -> None:
    m.unmount(rootfs.OLD_ROOT)
    making.points.close()
    for fd in (making.workspace, *(() if making.stage is None else (making.stage,))):
        os.close(fd)


def _make_terminal(making: Making) -> None:
    if making.launch.tty:
        owner = making.ids.payload_id
        making.terminal = pty.create(making.launch.rows, making.launch.cols, owner)


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


def _filter_calls(making: Making) -> None:
    making.filters.command.load()


def _rebuild_environment(making: Making) -> None:
    """Descriptors 0, 1, 2 and ours (which close on exec), default signals, no mask, the working folder."""
    stdio = making.stdio if making.terminal is None else (making.terminal[1],) * 3
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)
    kernel.close_all_but({0, 1, 2, making.status.fileno(), making.go, making.started})
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    os.chdir(os.path.join(making.profile.workspace, making.launch.cwd))


def _lead_session(making: Making) -> None:
    os.setsid()
    if making.terminal is not None:
        pty.make_controlling(0)


# -- the order -------------------------------------------------------------------------------------

IN_ZYGOTE: Final[tuple[Step[Ids], ...]] = (
    Step(Layer.NAMESPACES, namespaces.enter_own),
    Step(Layer.ROOT, lambda _: rootfs.make_template()),
)

IN_INIT: Final[tuple[Step[Making], ...]] = (
    Step(Layer.LIFELINE, _hold_lifeline),
    Step(Layer.NAMESPACES, _set_up_namespaces),
    Step(Layer.ROOT, _set_up_root),
    Step(Layer.WORKSPACE, _attach_workspace),
    Step(Layer.OLD_ROOT, _leave_old_root),
    Step(Layer.TERMINAL, _make_terminal),
    Step(Layer.PRIVILEGES, _hide),
)

IN_COMMAND: Final[tuple[Step[Making], ...]] = (
    Step(Layer.IDENTITY, _become_command),
    Step(Layer.PRIVILEGES, _drop_privileges),
    Step(Layer.LIMITS, _apply_limits),
    Step(Layer.LANDLOCK, _restrict_files),
    Step(Layer.SECCOMP, _filter_calls),
    Step(Layer.ENVIRONMENT, _rebuild_environment),
    Step(Layer.TERMINAL, _lead_session),
)
