"""Owns: the command's process between the fork and its program: lock, wait for the request, exec or call.
Must not know: mounts, the zygote's loop.
Invariants: the program runs only after every step of AHEAD_IN_COMMAND and LOCKING (order.py), and after PID 1
    gave up its powers; a built-in function runs under exactly the same confinement; nothing of the zygote's
    environment or descriptors gets to it. Source: execve(2), execvp(3) for the search of PATH.
"""

# ruff: noqa: S108 (the /tmp named here is the private one of a sandbox)

import errno
import gc
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from . import kernel, layers, namespaces, order, progress, protocol, pty, rlimits
from .layers import Layer, LayerError
from .order import Making
from .progress import Request
from .report import Report
from .succession import announce, see_off

Builtin = Callable[[list[bytes]], int]

_BUILTIN_FAILED: Final = 70  # EX_SOFTWARE of sysexits.h
_ORPHANED: Final = 99
_DEFAULTS: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "USER": "sandbox",
    "LOGNAME": "sandbox",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
}
_ROOM: Final = 16
"""With fewer processes allowed, one more for a moment could be what the command then can't have."""
_REHEARSED: Final = Request([b"none"], {"PATH": "/nonexistent"}, "", False, 24, 80, None)


def run(making: Making, link: socket.socket, builtins: Mapping[str, Builtin]) -> int:
    """Lock this process, wait for what to run and turn into it; returns only a built-in's exit code.

    Where the workspace is known all is locked before the wait; else what must be locked to it comes after.
    Raises LayerError.
    """
    order.perform(order.AHEAD_IN_COMMAND, making)
    whole = making.workspace is not None
    if whole:
        _lock(making, staged=False)
    _let_go(making, link.fileno())
    if making.ahead:
        _rehearse(making, link.fileno())
    request, stdio = _receive(making.request)
    if not link.recv(1):
        return _ORPHANED  # PID 1 is dead; why, its own end says
    if not whole:
        _lock(making, staged=request.staged)
    env = _enter(making, request, stdio, (link.fileno(),))
    making.request.send(progress.encode(progress.Going()))
    if request.builtin is not None:
        link.close()
        return _call(making, request.argv, env, builtins[request.builtin])
    if making.terminal is None and making.profile.limits.processes >= _ROOM:
        kernel.set_dumpable(False)  # what we share memory with until its exec must not write to us after it
        announce(link)
        pid = _spawn(request.argv, env)
        making.request.close()
        see_off(pid, link)
        return 0
    _lead_session(making)
    return _exec(request.argv, env)


def _lock(making: Making, *, staged: bool) -> None:
    order.perform(order.LOCKING, making)
    making.request.send(progress.encode(progress.Confined(_report(making, staged=staged))))


def _let_go(making: Making, link: int) -> None:
    """Close all but what leads to PID 1 and the zygote, and the terminal."""
    slave = () if making.terminal is None else (making.terminal[1],)
    kernel.close_all_but({0, 1, 2, making.request.fileno(), link, *slave})


def _rehearse(making: Making, link: int) -> None:
    """Go the way of a request once, without effect, so that the pages it writes are copied ahead."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        protocol.send(ours, progress.encode(_REHEARSED), [0])
        request, stdio = _receive(theirs)
    slave = () if making.terminal is None else (making.terminal[1],)
    env = _enter(making, request, stdio, (link, *slave))
    with suppress(LayerError):
        _spawn(request.argv, env)


def _receive(sock: socket.socket) -> tuple[Request, list[int]]:
    """The one request of this process."""
    packet, fds = protocol.receive(sock)
    if not packet:
        raise LayerError(Layer.LIFELINE, errno.EPIPE, "the zygote ended before the command could start")
    return progress.decode_request(packet), fds


def _enter(making: Making, request: Request, stdio: list[int], kept: tuple[int, ...]) -> dict[str, str]:
    """Take the request's descriptors and folder; of ours only what closes on exec is left: the socket and
    what is `kept`.
    """
    if making.terminal is not None:
        stdio = [making.terminal[1]] * 3
        pty.set_size(stdio[0], request.rows, request.cols)
    try:
        for target, fd in enumerate(stdio):
            os.dup2(fd, target)
        kernel.close_all_but({0, 1, 2, making.request.fileno(), *kept})
        os.chdir(os.path.join(making.profile.workspace, request.cwd))
        return environment(request, tty=making.kind.tty)
    except OSError as error:
        raise LayerError.of(Layer.ENVIRONMENT, error) from error


def environment(request: Request, *, tty: bool) -> dict[str, str]:
    """What the command gets: a few defaults and what was asked for; nothing of the zygote's own."""
    terminal = {"TERM": "xterm-256color"} if tty else {}
    return {**_DEFAULTS, **terminal, "PWD": os.getcwd(), **request.env}


def _spawn(argv: list[bytes], env: dict[str, str]) -> int:
    """Start the command as a child with a session of its own, like posix_spawn(3): its pid.

    Why not exec here: succession.py.
    """
    return _try(argv, env, lambda path: os.posix_spawn(path, argv, env, setsid=True))


def _exec(argv: list[bytes], env: dict[str, str]) -> int:
    """Become the command."""
    return _try(argv, env, lambda path: os.execve(path, argv, env))


def _try(argv: list[bytes], env: dict[str, str], start: Callable[[bytes], int]) -> int:
    """Search the program as execvp(3) does. Raises LayerError."""
    name = argv[0]
    folders = [b""] if b"/" in name else [os.fsencode(part) for part in env["PATH"].split(":")]
    failure = errno.ENOENT
    for folder in folders:
        path = os.path.join(folder, name)
        try:
            os.stat(path)  # much cheaper than a child that finds out
            return start(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                failure = error.errno or failure
    raise LayerError(Layer.EXEC, failure, f"{os.fsdecode(name)}: {os.strerror(failure)}")


def _lead_session(making: Making) -> None:
    """As the leader of a session of its own, on its terminal if there is one."""
    os.setsid()
    if making.terminal is not None:
        try:
            pty.make_controlling(0)
        except OSError as error:
            raise LayerError.of(Layer.TERMINAL, error) from error


def _call(making: Making, argv: list[bytes], env: dict[str, str], builtin: Builtin) -> int:
    gc.enable()
    _lead_session(making)
    making.request.close()
    os.environ.clear()
    os.environ.update(env)
    try:
        code = builtin(argv)
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 (shown to whoever reads the command's stderr, as an interpreter would)
        traceback.print_exc()
        code = _BUILTIN_FAILED
    sys.stderr.flush()
    return code & 0xFF


def _report(making: Making, *, staged: bool) -> Report:
    read_only = making.profile.workspace_read_only
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
        network="none" if making.listener is None else "courier",
        cgroup="none" if making.group is None else making.group.version,
        degraded=layers.missing(landlock=making.landlock_abi > 0, cgroup=making.group is not None),
    )
