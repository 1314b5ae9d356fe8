"""Owns: the life of a sandbox's first process: make it, fork the command, give up power, then be its warden.
Must not know: the owner, other sandboxes.
Invariants: while anything untrusted can run it holds no power but to signal its own pid namespace; when the
    command ends it ends, and the kernel kills what is left. Source: pid_namespaces(7), kill(2).
"""

import array
import gc
import os
import socket
import traceback
from collections.abc import Callable, Mapping
from typing import NoReturn

from . import kernel, order, privileges, progress
from .command import Builtin
from .command import run as run_command
from .layers import Layer, LayerError
from .order import Making
from .warden import Warden

_FAILED = 99


def run(making: Making, builtins: Mapping[str, Builtin]) -> NoReturn:
    """Be PID 1. Never returns and never raises: the process ends here."""
    gc.disable()  # a collection would copy pages that are shared with the zygote, for a process of few steps
    end_with(lambda: _live(making, builtins), making.status)


def end_with(life: Callable[[], int], status: socket.socket) -> NoReturn:
    """Run `life` and exit with its result; a failure is told to the zygote, a bug with its traceback."""
    code = _FAILED
    try:
        code = life()
    except LayerError as failure:
        progress.tell_failure(status, failure)
    except BaseException:  # noqa: BLE001 (a bug of ours must not unwind into the zygote's loop)
        progress.tell_failure(status, LayerError(Layer.INIT, 0, traceback.format_exc()[-4000:]))
    finally:
        os._exit(code)


def _live(making: Making, builtins: Mapping[str, Builtin]) -> int:
    order.perform(order.IN_INIT, making)
    making.go, go_here = os.pipe()
    started_here, making.started = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_here)
        os.close(started_here)
        end_with(lambda: run_command(making, builtins), making.status)
    _forget(making)
    warden = Warden(making.status)
    _give_up(making)
    warden.hold()
    os.write(go_here, b"g")
    os.close(go_here)
    # The write end closes on exec or with the process: either way the story goes on in wait().
    os.read(started_here, 1)
    _tell_started(making)
    making.status.send(progress.encode(progress.Ended(warden.reap_until(child))))
    return 0


def _forget(making: Making) -> None:
    """Close the command's ends: a pipe that PID 1 held open would never come to its end."""
    slave = () if making.terminal is None else (making.terminal[1],)
    for fd in (making.go, making.started, *making.stdio, *slave):
        os.close(fd)


def _give_up(making: Making) -> None:
    try:
        privileges.drop_all_but_kill()
        privileges.check(1 << kernel.CAP_KILL)
        making.filters.init.load()
    except OSError as error:
        raise LayerError.of(Layer.PRIVILEGES, error) from error


def _tell_started(making: Making) -> None:
    ancillary = []
    if making.terminal is not None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [making.terminal[0]]))]
    making.status.sendmsg([progress.encode(progress.Started())], ancillary)
    if making.terminal is not None:
        os.close(making.terminal[0])
