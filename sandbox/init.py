"""Owns: the life of a sandbox's first process: make it, fork the command, give up power, then be its warden.
Must not know: the owner, other sandboxes.
Invariants: while anything untrusted can run it holds no power but to signal its own pid namespace; when the
    command ends, it ends all the rest and then itself. Source: pid_namespaces(7), kill(2).
"""

import array
import gc
import os
import socket
import traceback
from collections.abc import Callable, Mapping
from typing import NoReturn

from . import kernel, mounts, order, privileges, progress, protocol
from .command import Builtin, run as run_command
from .layers import Layer, LayerError
from .order import Making
from .warden import Warden

_FAILED = 99


def run(making: Making, builtins: Mapping[str, Builtin]) -> NoReturn:
    """Be PID 1. Never returns and never raises: the process ends here."""
    gc.disable()  # a collection would copy pages that are shared with the zygote, for a process of few steps
    end_with(lambda: _live(making, builtins), making.status)


def end_with(life: Callable[[], int], channel: socket.socket) -> NoReturn:
    """Run `life` and exit with its result; a failure is told to the zygote, a bug with its traceback."""
    code = _FAILED
    try:
        code = life()
    except LayerError as failure:
        progress.tell_failure(channel, failure)
    except BaseException:  # noqa: BLE001 (a bug of ours must not unwind into the zygote's loop)
        progress.tell_failure(channel, LayerError(Layer.INIT, 0, traceback.format_exc()[-4000:]))
    finally:
        os._exit(code)


def _live(making: Making, builtins: Mapping[str, Builtin]) -> int:
    order.perform(order.AHEAD_IN_INIT, making)
    if making.workspace is not None:
        order.perform(order.ATTACHING, making)
    link, link_there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Not os.fork(): what Python does after it for threads, of which there are none, took 0.6 ms.
    child, pidfd = kernel.clone_pidfd(0)
    if child == 0:
        link.close()
        end_with(lambda: run_command(making, link_there, builtins), making.request)
    os.close(pidfd)
    link_there.close()
    warden = Warden(making.status, child, link)
    inside = _keep_own(making)
    if making.workspace is None:
        _say(making, progress.Open(), inside)
        _take_workspace(making, warden)
        inside = []
    _give_up(making)
    _say(making, progress.Guarded(), inside)
    if making.ahead:
        warden.rehearse()
    warden.hold()
    link.send(b"g")
    making.status.send(progress.encode(warden.reap()))
    return 0


def _keep_own(making: Making) -> list[int]:
    """Close the command's ends: a terminal that PID 1 held open would never come to its end. Gives what was
    born in here and is to be handed out.
    """
    making.request.close()
    inside = []
    if making.terminal is not None:
        os.close(making.terminal[1])
        inside.append(making.terminal[0])
    return inside if making.listener is None else [*inside, making.listener]


def _say(making: Making, word: progress.Open | progress.Guarded, fds: list[int]) -> None:
    """Tell the zygote, and give these descriptors away."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    making.status.sendmsg([progress.encode(word)], ancillary)
    protocol.close(fds)


def _take_workspace(making: Making, warden: Warden) -> None:
    """Wait for the workspace, and attach it."""
    packet, fds = warden.receive()
    staged = progress.decode_attach(packet).staged
    try:
        making.workspace = mounts.place_of(fds[0])
        making.stage = mounts.place_of(fds[1]) if staged else None
    except OSError as error:
        raise LayerError.of(Layer.WORKSPACE, error) from error
    making.passed = tuple(fds)
    order.perform(order.ATTACHING, making)


def _give_up(making: Making) -> None:
    try:
        privileges.drop_all_but_kill()
        privileges.check(1 << kernel.CAP_KILL)
    except OSError as error:
        raise LayerError.of(Layer.PRIVILEGES, error) from error
    try:
        making.filters.init.load()
    except OSError as error:
        raise LayerError.of(Layer.SECCOMP, error) from error
