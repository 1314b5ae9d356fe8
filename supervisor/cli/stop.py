"""``homeostat stop``.

Owns: asking a supervisor and its guardian to stop, and waiting until both are gone.
Must not know: how the supervisor drains.
Invariant: 0 is only answered when the processes are gone, so that a start right after finds a free home.
Source: DESIGN §7, §13.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Sequence
from pathlib import Path

import click

from ...proto.errors import HomeostatError, UnreachableError, UsageError
from .. import control, daemonize
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
    with daemonize.holder(settings.home) as guardian:
        pid = _stop(settings.home, guardian, timeout_s)
    if settings.as_json:
        say_json({"stopped": True, "pid": pid, "guardian": guardian.pid if guardian else None})
    else:
        say("stopped")


def _stop(home: Path, guardian: daemonize.Holder | None, timeout_s: float) -> int | None:
    """Stop both; give the supervisor's pid, None if there was none at the moment.

    Raises UnreachableError when there is nobody, HomeostatError when somebody is still there after the time.
    """
    with contextlib.ExitStack() as stack:
        pidfds = [guardian.pidfd] if guardian and guardian.pidfd is not None else []
        try:
            pid: int | None = processes(home).pid
            if (pidfd := _pidfd(pid)) is not None:
                stack.callback(os.close, pidfd)
                pidfds.append(pidfd)
            control.ask(home, control.Stop())  # It tells its guardian; a signal too would hurry it.
        except UnreachableError:
            if not pidfds or guardian is None:
                raise
            # It rests between two supervisors, or the one that it has does not answer yet, or any more.
            pid = None
            guardian.stop()
        if not (_wait(pidfds, timeout_s) if pidfds else _wait_silent(home, timeout_s)):
            who = f"the supervisor (pid {pid})" if pid else "the daemon"
            raise HomeostatError(
                f"{who} is still stopping after {timeout_s:g} s",
                remedy="It kills what does not stop in time by itself; wait with a longer --timeout.",
            )
    return pid


def _pidfd(pid: int | None) -> int | None:
    try:
        return os.pidfd_open(pid) if pid is not None else None
    except OSError:
        return None  # another pid namespace (a container): its silence on the control socket must do


def _wait(pidfds: Sequence[int], timeout_s: float) -> bool:
    """Wait for the end of all of them."""
    until_s = time.monotonic() + timeout_s
    for pidfd in pidfds:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        if not poller.poll(max(0.0, until_s - time.monotonic()) * 1_000):
            return False
    return True


def _wait_silent(home: Path, timeout_s: float) -> bool:
    """Wait until neither the control socket nor the guardian's lock is held by anyone."""
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        try:
            control.ask(home, control.Status())
        except UnreachableError:
            with daemonize.holder(home) as guardian:
                if guardian is None:
                    return True
        time.sleep(_LOOK_AGAIN_S)
    return False
