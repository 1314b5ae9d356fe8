"""Owns: the layers of confinement: their names, which may be missing, what each costs when it is, what to do.
Must not know: how a layer is built or probed.
Invariants: a required layer that fails stops the launch; only an operator allows a degradable one to be
    missing; a remedy is a sentence that names a concrete setting.
Source: DESIGN, law 8; user_namespaces(7), the AppArmor and Docker documentation.
"""

import enum
import os
from typing import Final, NamedTuple

from ..proto.errors import HomeostatError


class Layer(enum.Enum):
    """Where a launch can be refused. The values travel in `Refused.layer`."""

    REQUEST = "request"
    CAPACITY = "capacity"
    LIFELINE = "lifeline"
    NAMESPACES = "namespaces"
    ROOT = "root"
    WORKSPACE = "workspace"
    OLD_ROOT = "old_root"
    TERMINAL = "terminal"
    IDENTITY = "identity"
    PRIVILEGES = "privileges"
    LIMITS = "limits"
    LANDLOCK = "landlock"
    CGROUP = "cgroup"
    SECCOMP = "seccomp"
    ENVIRONMENT = "environment"
    EXEC = "exec"
    INIT = "init"
    KILLED = "killed"


USER_NAMESPACES: Final = (
    "Allow user namespaces: `sysctl -w user.max_user_namespaces=28633`; on Ubuntu load an AppArmor profile "
    "with `userns,` for homeostat or set `kernel.apparmor_restrict_unprivileged_userns=0`; on Debian set "
    "`kernel.unprivileged_userns_clone=1`; in Docker run with `--security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined` or a seccomp profile that permits clone, unshare, mount, pivot_root."
)
UNMASKED_PROC: Final = (
    "A fresh /proc needs an unmasked one in sight: in Docker run with `--security-opt "
    "systempaths=unconfined`, in Kubernetes set `procMount: Unmasked`."
)
WORKSPACE_REACH: Final = (
    "The sandbox's set-up uid must be able to reach the folder: every parent folder needs search permission "
    "(chmod o+x), and a stage's upper/ and work/ must belong to the command's uid on a file system that "
    "overlayfs accepts as upper layer (ext4, xfs, btrfs, tmpfs)."
)

CONTROL_GROUPS: Final = (
    "Let homeostat have control groups: as an ordinary user start it by `systemd-run --user --scope -p "
    "Delegate=yes homeostat start`, as a service with `Delegate=yes` in its unit; in Docker with "
    '`--security-opt writable-cgroups=true`; or write sandbox.may_be_missing = ["cgroup"] into the '
    "configuration."
)
SECCOMP: Final = "Build the kernel with CONFIG_SECCOMP_FILTER; in Docker permit the call seccomp."
LANDLOCK: Final = (
    "Build the kernel with CONFIG_SECURITY_LANDLOCK and add landlock to `lsm=` at boot; in Docker "
    'permit its calls; or write sandbox.may_be_missing = ["landlock"] into the configuration.'
)

REMEDIES: Final[dict[Layer, str]] = {
    Layer.REQUEST: "Correct the launch request; the message names the field.",
    Layer.CAPACITY: "Wait until a running sandbox ends, or raise the number of sandboxes of this zygote.",
    Layer.LIFELINE: "Start the call again; the zygote ended while the sandbox was made.",
    Layer.NAMESPACES: USER_NAMESPACES,
    Layer.ROOT: UNMASKED_PROC,
    Layer.WORKSPACE: WORKSPACE_REACH,
    Layer.OLD_ROOT: "Report this as a bug of homeostat with `homeostat doctor`'s output.",
    Layer.TERMINAL: "Mount devpts with newinstance support (Linux 4.7) and free a pseudo-terminal.",
    Layer.IDENTITY: USER_NAMESPACES,
    Layer.PRIVILEGES: "Report this as a bug of homeostat with `homeostat doctor`'s output.",
    Layer.LIMITS: "Ask for limits that are not above the hard limits of the daemon (`ulimit -H -a`).",
    Layer.LANDLOCK: LANDLOCK,
    Layer.CGROUP: CONTROL_GROUPS,
    Layer.SECCOMP: SECCOMP,
    Layer.ENVIRONMENT: "Correct the working directory or the variables of the launch request.",
    Layer.EXEC: "Name a program that exists in the sandbox (/usr/bin, the workspace, extra read-only paths).",
    Layer.INIT: "Look at the kernel's log: the sandbox's first process died, most likely for want of memory.",
    Layer.KILLED: "Nothing: the launch was cancelled by its owner.",
}


class Protection(NamedTuple):
    """What a kernel gives or doesn't, as `probe.PROBES` tries it under this name.

    `layer` is where a launch is refused without it; `costs` is what its absence means.
    """

    name: str
    layer: Layer
    degradable: bool
    costs: str
    remedy: str


PROTECTIONS: Final[tuple[Protection, ...]] = (
    Protection(
        "user_namespaces",
        Layer.NAMESPACES,
        degradable=False,
        costs="no sandbox at all: namespaces without the host's root are what every other layer stands on",
        remedy=USER_NAMESPACES,
    ),
    Protection(
        "mount_api",
        Layer.ROOT,
        degradable=False,
        costs="folders could be bound by path only, and a path can be swapped while it is walked",
        remedy="Run Linux 5.12 or newer; in Docker permit fsopen, fsconfig, fsmount, open_tree, move_mount, "
        "mount_setattr (seccomp profile).",
    ),
    Protection(
        "fresh_proc",
        Layer.ROOT,
        degradable=False,
        costs="a command would see the host's processes in /proc",
        remedy=UNMASKED_PROC,
    ),
    Protection(
        "terminal",
        Layer.TERMINAL,
        degradable=False,
        costs="commands and live terminals would have no terminal of their own",
        remedy="Build the kernel with CONFIG_UNIX98_PTYS (Linux 4.7 or newer); raise kernel.pty.max.",
    ),
    Protection(
        "overlay",
        Layer.WORKSPACE,
        degradable=True,
        costs="no stages: a command's writes count at once, can't be decided on, and a crash leaves them in "
        "doubt",
        remedy=WORKSPACE_REACH,
    ),
    Protection(
        "pidfd",
        Layer.LIFELINE,
        degradable=False,
        costs="a signal could hit a process that took over the number of a dead one",
        remedy="Run Linux 5.3 or newer; in Docker permit pidfd_open and pidfd_send_signal.",
    ),
    Protection(
        "close_range",
        Layer.LIFELINE,
        degradable=False,
        costs="a command could inherit a descriptor",
        remedy="Run Linux 5.9 or newer; in Docker permit close_range.",
    ),
    Protection(
        "no_new_privs",
        Layer.PRIVILEGES,
        degradable=False,
        costs="set-uid programs would give a command rights",
        remedy="In Docker permit prctl (seccomp profile).",
    ),
    Protection(
        "rlimits",
        Layer.LIMITS,
        degradable=False,
        costs="nothing would bound a process's time, memory, files",
        remedy="In Docker permit prlimit64 (seccomp profile).",
    ),
    Protection(
        "seccomp",
        Layer.SECCOMP,
        degradable=False,
        costs="a command would reach all of the kernel's calls, and with them its bugs",
        remedy=SECCOMP,
    ),
    Protection(
        "landlock",
        Layer.LANDLOCK,
        degradable=True,
        costs="files are held by mounts, uids and permissions alone; of the workers of an ordinary user, "
        "nothing holds gate, brain and memory back from that user's files",
        remedy=LANDLOCK,
    ),
    Protection(
        "cgroup",
        Layer.CGROUP,
        degradable=True,
        costs="memory is bounded for each process and not for all of a command together; for processes "
        "RLIMIT_NPROC alone counts",
        remedy=CONTROL_GROUPS,
    ),
    Protection(
        "packet_size",
        Layer.REQUEST,
        degradable=False,
        costs="a launch with large arguments could not be asked for",
        remedy="sysctl -w net.core.wmem_max=262144",
    ),
)
"""Every layer that a kernel may lack, in the order in which they come; docs/SECURITY.md tells it."""

DEGRADABLE: Final = frozenset(one.name for one in PROTECTIONS if one.degradable)


def remedy(name: str) -> str:
    """What to do about a protection, by its name in the table."""
    return next(one.remedy for one in PROTECTIONS if one.name == name)


def missing(*, landlock: bool, cgroup: bool) -> tuple[str, ...]:
    """Which degradable layers a sandbox does without, for its report; overlay is the report's `workspace`."""
    held = {"landlock": landlock, "cgroup": cgroup}
    return tuple(name for name, there in held.items() if not there)


class LayerError(HomeostatError):
    """A layer of the confinement could not be put in place; nothing was run."""

    code = "layer_failed"
    exit_code = 8

    def __init__(self, layer: Layer, errno: int, message: str, remedy: str | None = None) -> None:
        super().__init__(message, field=layer.value, remedy=REMEDIES[layer] if remedy is None else remedy)
        self.layer = layer
        self.errno = errno

    @classmethod
    def of(cls, layer: Layer, error: OSError) -> "LayerError":
        """The failure of a system call or a Python file function, told as one of `layer`."""
        reason = error.strerror or str(error)
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return cls(layer, error.errno or 0, where + reason)
