"""Owns: the command's process between the fork and its program: lock, report, exec or call.
Must not know: mounts, the zygote's loop.
Invariants: the program runs only after every step of order.IN_COMMAND and after PID 1 gave up its powers; a
    built-in
    function runs under exactly the same confinement. Source: execve(2), execvp(3) for the search of PATH.
"""

# ruff: noqa: S108 (the /tmp named here is the private one of a sandbox)

import errno
import gc
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Final

from . import namespaces, order, progress, rlimits
from .layers import Layer, LayerError
from .order import Making
from .report import Report

Builtin = Callable[[list[bytes]], int]

_BUILTIN_FAILED: Final = 70  # EX_SOFTWARE of sysexits.h
_DEFAULTS: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "USER": "sandbox",
    "LOGNAME": "sandbox",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
}


def run(making: Making, builtins: Mapping[str, Builtin]) -> int:
    """Lock this process and turn it into the command; returns only a built-in's exit code. Raises
    LayerError.
    """
    order.perform(order.IN_COMMAND, making)
    making.status.send(progress.encode(progress.Confined(_report(making))))
    if not os.read(making.go, 1):
        raise LayerError(Layer.INIT, errno.EPIPE, "PID 1 ended before the command could start")
    if making.launch.builtin is not None:
        return _call(making, builtins[making.launch.builtin])
    return _exec(making)


def environment(making: Making) -> dict[str, str]:
    """What the command gets: a few defaults and what was asked for; nothing of the zygote's own."""
    terminal = {"TERM": "xterm-256color"} if making.launch.tty else {}
    return {**_DEFAULTS, **terminal, "PWD": os.getcwd(), **making.launch.env}


def _exec(making: Making) -> int:
    argv, env = making.launch.argv, environment(making)
    name = argv[0]
    folders = [b""] if b"/" in name else [os.fsencode(part) for part in env["PATH"].split(":")]
    failure = errno.ENOENT
    for folder in folders:
        try:
            os.execve(os.path.join(folder, name), argv, env)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                failure = error.errno or failure
    raise LayerError(Layer.EXEC, failure, f"{os.fsdecode(name)}: {os.strerror(failure)}")


def _call(making: Making, builtin: Builtin) -> int:
    gc.enable()
    making.status.close()
    os.close(making.go)
    os.close(making.started)
    os.environ.clear()
    os.environ.update(environment(making))
    try:
        code = builtin(making.launch.argv)
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 (shown to whoever reads the command's stderr, as an interpreter would)
        traceback.print_exc()
        code = _BUILTIN_FAILED
    sys.stderr.flush()
    return code & 0xFF


def _report(making: Making) -> Report:
    staged, read_only = making.stage is not None, making.profile.workspace_read_only
    return Report(
        namespaces=namespaces.SANDBOX_NAMES,
        uid_inside=os.getuid(),
        uid_outside=making.ids.outside_uid,
        further_user_namespaces=namespaces.further_user_namespaces(),
        root="read-only",
        workspace="overlay" if staged else "bind-read-only" if read_only else "bind",
        no_new_privs=True,
        capabilities=(),
        rlimits=rlimits.achieved(),
        landlock_abi=making.landlock_abi,
        seccomp_sha256=making.filters.command_sha256,
        seccomp_instructions=making.filters.command_instructions,
        network=making.profile.network,
        cgroup="none",
        degraded=() if making.landlock_abi else ("landlock",),
    )
