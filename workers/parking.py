"""A worker from its fork to its start: child of the supervisor, its role's user, confined, then waiting.

Owns: what a worker is before it begins: parent, identity, descriptors, signals.
Must not know: what a worker does.
Invariant: it goes on only as the supervisor's child, and dies with it; nothing that it was not given is open.
Source: prctl(2) PR_SET_PDEATHSIG; pidfd_open(2); unix(7); DESIGN §3 (parentage).

The order is fixed by the kernel: PDEATHSIG fires when the intermediate parent ends, so it is armed after the
reparenting; a change of credentials clears it, so it is armed again after that.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import msgspec
import prctl

from ..proto import codec, config, messages as m
from .identity import COMMAND_OFFSET, become, become_executor

IDENTIFIED, MAPPED = b"identified", b"mapped"
"""Words between a worker and the nursery that forked it; a number is the pid that wants its maps."""
FDS_LIMIT = 16
ENVIRONMENT_LIMIT_BYTES = 1 << 20
REPARENT_S = 5.0
"""Longest wait for the intermediate's end; it has nothing left to do."""

Begin = Callable[[m.WorkerStart, dict[str, int]], NoReturn]
Arm = Callable[[m.Park, config.Config], Begin]
"""Gives up the role's powers, warms up, and gives what is to be called with the start."""


@dataclass(frozen=True)
class House:
    """What all workers of a nursery have in common."""

    settings: config.Config
    supervisor: int
    """Its pid."""
    arm: Arm


def parked(
    house: House, park: m.Park, start: socket.socket, nursery: socket.socket, intermediate: int
) -> NoReturn:
    """Be the worker; never returns."""
    status, supervisor = 1, house.supervisor
    try:
        os.setsid()
        _await_reparenting(intermediate)
        bind_to(supervisor)
        _close_all_but(start.fileno(), nursery.fileno())
        _introduce(start)
        os.chdir(park.home)
        _take_identity(park, house.settings, nursery)
        _tell(nursery, IDENTIFIED)
        nursery.close()
        bind_to(supervisor)
        _reset_signals()
        _name_process(f"{park.role} (parked)")
        begin = house.arm(park, house.settings)
        bind_to(supervisor)
        message, fds = _await_start(start)
        gc.enable()
        begin(message, fds)
    except SystemExit as error:
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
        status = error.code if isinstance(error.code, int) else 1 if error.code else 0
    except BaseException:  # noqa: BLE001 - the trace goes to the log, the exit status is the crash
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def bind_to(supervisor: int) -> None:
    """Arm PDEATHSIG, and only then look who the parent is: one that died before would never be noticed."""
    prctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != supervisor:
        sys.exit(f"the parent is {os.getppid()} and not the supervisor {supervisor}")


def _introduce(start: socket.socket) -> None:
    """Tell the supervisor who waits here; it may have sent the start already."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        socket.send_fds(start, [codec.encode(m.Parked(os.getpid()))], [pidfd])
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)  # It has hung up: nobody wants us any more.
    os.close(pidfd)


def _await_start(start: socket.socket) -> tuple[m.WorkerStart, dict[str, int]]:
    """Wait for the start; without one there is nothing to do."""
    try:
        data, received, _, _ = socket.recv_fds(
            start, codec.CONTROL_LIMIT_BYTES, FDS_LIMIT, socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        data, received = b"", []
    if not data:
        sys.exit(0)
    start.close()
    message: m.WorkerStart = codec.TO_PARKED.decode(data)
    fds = dict(zip(message.fds, received, strict=True))
    if (log := fds.pop("log", None)) is not None:
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
    _name_process(f"{message.role}.{message.index}")
    _take_environment(fds)
    return message, fds


def _name_process(name: str) -> None:
    """Let ps and top tell the workers apart."""
    prctl.set_name(name)
    prctl.set_proctitle(f"homeostat: {name}")


def _close_all_but(*kept: int) -> None:
    """Keep the standard streams and these."""
    low = 3
    for fd in sorted(kept):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 1 << 20)


def _take_identity(park: m.Park, settings: config.Config, nursery: socket.socket) -> None:
    """As root: be the role's own user. The zygote has no uid given and stays root."""
    if park.uid is None or park.gid is None or os.geteuid() != 0:
        return
    base = settings.users.base
    # The base's group may connect to the gate's socket; the gate itself has no need to.
    groups = [] if park.role == "gate" else [base]
    if park.role == "executor":
        become_executor(park.uid, base + COMMAND_OFFSET, groups, lambda: _ask_for_maps(nursery))
    else:
        become(park.uid, park.gid, groups)


def _tell(nursery: socket.socket, word: bytes) -> None:
    """Say how far we are; a nursery that has died meanwhile need not know."""
    with contextlib.suppress(OSError):
        nursery.send(word)


def _ask_for_maps(nursery: socket.socket) -> None:
    nursery.send(b"%d" % os.getpid())
    if nursery.recv(len(MAPPED)) != MAPPED:
        raise OSError(errno.EPIPE, "the nursery ended before it had written the maps")


def _await_reparenting(intermediate: int) -> None:
    """Wait until the intermediate has ended: from then on the supervisor is the parent."""
    poll = select.poll()
    poll.register(intermediate, select.POLLIN)
    poll.poll(REPARENT_S * 1000)


def _take_environment(fds: dict[str, int]) -> None:
    """Take the variables that are for this worker alone; the nursery itself never had them."""
    fd = fds.pop("env", None)
    if fd is not None:
        data = os.pread(fd, ENVIRONMENT_LIMIT_BYTES, 0)
        os.environ.update(msgspec.msgpack.decode(data, type=dict[str, str]))
        os.close(fd)


def _reset_signals() -> None:
    """Take nothing from the nursery; Python itself needs SIGPIPE ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
