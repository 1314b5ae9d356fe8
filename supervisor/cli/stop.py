"""``homeostat stop``.

Owns: asking a supervisor to stop, and waiting until it is gone.
Must not know: how the supervisor drains.
Invariant: 0 is only answered when the process is gone, so that a start right after finds a free home.
Source: DESIGN §7, §13.
"""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import click

from ...proto.errors import HomeostatError, UnreachableError, UsageError
from .. import control
from .settings import Settings, common
from .status import processes
from .text import say, say_json

_LOOK_AGAIN_S = 0.05
_LONGEST_S = 1_000_000
"""poll(2) counts milliseconds in an int."""


@click.command()
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    default=60.0,
    show_default=True,
    help="Seconds to wait until it is gone.",
)
@common()
@click.pass_obj
def stop(settings: Settings, timeout_s: float) -> None:
    """Ask the supervisor to drain and stop, and wait until it is gone. Open tasks go on at the next start."""
    if not 0 <= timeout_s <= _LONGEST_S:  # NaN too
        raise UsageError(f"--timeout {timeout_s}", field="timeout", expected=f"0 to {_LONGEST_S} seconds")
    pid = processes(settings.home).pid
    pidfd = _pidfd(pid)
    control.ask(settings.home, control.Stop())
    try:
        gone = _wait_pidfd(pidfd, timeout_s) if pidfd is not None else _wait_silent(settings.home, timeout_s)
    finally:
        if pidfd is not None:
            os.close(pidfd)
    if not gone:
        raise HomeostatError(
            f"the supervisor (pid {pid}) is still stopping after {timeout_s:g} s",
            remedy="It kills what does not stop in time by itself; wait with a longer --timeout.",
        )
    if settings.as_json:
        say_json({"stopped": True, "pid": pid})
    else:
        say("stopped")


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None  # another pid namespace (a container): its silence on the control socket must do


def _wait_pidfd(pidfd: int, timeout_s: float) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(timeout_s * 1_000))


def _wait_silent(home: Path, timeout_s: float) -> bool:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        try:
            control.ask(home, control.Status())
        except UnreachableError:
            return True
        time.sleep(_LOOK_AGAIN_S)
    return False
