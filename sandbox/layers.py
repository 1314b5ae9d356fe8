"""Owns: the names of the layers of confinement, what a failing one is called, and what the operator can do
    about it.
Must not know: how a layer is built.
Invariants: a required layer that fails stops the launch; a remedy is a sentence that names a concrete
    setting.
Source: user_namespaces(7), the AppArmor and Docker documentation.
"""

import enum
import os
from typing import Final

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
    Layer.LANDLOCK: "Build the kernel with CONFIG_SECURITY_LANDLOCK and add landlock to `lsm=`.",
    Layer.SECCOMP: "Build the kernel with CONFIG_SECCOMP_FILTER.",
    Layer.ENVIRONMENT: "Correct the working directory or the variables of the launch request.",
    Layer.EXEC: "Name a program that exists in the sandbox (/usr/bin, the workspace, extra read-only paths).",
    Layer.INIT: "Look at the kernel's log: the sandbox's first process died, most likely for want of memory.",
    Layer.KILLED: "Nothing: the launch was cancelled by its owner.",
}


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
