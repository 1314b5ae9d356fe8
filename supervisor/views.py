"""What the control port says of the supervisor: the tree as rows, the processes beside it, the addresses.

Owns: which field of a child becomes which field of a row.
Must not know: sockets, who asks.
Invariant: nothing is looked at in /proc unless it was asked for.
Source: supervisor/control.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Any

from .. import __version__
from . import control, listeners
from .child import Child
from .lifecycle import State
from .listeners import Listeners
from .process import Exit
from .tree import Tree
from .usage import usage


class Views:
    """The supervisor of one home, as others see it. ``metrics`` is the address of the endpoint."""

    def __init__(self, home: Path, tree: Tree, found: Listeners, metrics: str) -> None:
        self._home, self._tree, self._listeners, self._metrics = home, tree, found, metrics
        self._since_s = time.monotonic()
        self._last_crash, self._last_crash_at_s = "", 0.0
        self._report, tree.report = tree.report, self._crashed

    def status(self, guardian: int | None, *, resources: bool) -> control.StatusReply:
        """The whole, now."""
        tcp, now_s = self._listeners.client_tcp, time.monotonic()
        spares = self._tree.spares.pids
        return control.StatusReply(
            ready=self._tree.ready,
            pid=os.getpid(),
            metrics=self._metrics,
            client=f"ipc://{self._listeners.client.getsockname()}",
            client_tcp=f"tcp://{listeners.address_of(tcp)}" if tcp is not None else None,
            server_key=_public_key(self._home) if tcp is not None else None,
            workers=workers(self._tree.children.values(), spares, now_s, resources=resources),
            processes=processes(
                [
                    ("guardian", guardian),
                    ("supervisor", os.getpid()),
                    ("nursery", self._tree.nursery_pid),
                    *((f"spare {role}", pid) for role, pid in spares.items()),
                ],
                resources=resources,
            ),
            version=__version__,
            uptime_s=now_s - self._since_s,
            guardian=guardian,
            last_crash=self._last_crash,
            last_crash_s=now_s - self._last_crash_at_s if self._last_crash else None,
        )

    def _crashed(self, child: Child, exit_: Exit) -> Callable[[], str]:
        """Remember it on its way to whoever reports it."""
        why = f" ({child.blame})" if child.blame else ""
        self._last_crash, self._last_crash_at_s = f"{child.name} {exit_}{why}", time.monotonic()
        return self._report(child, exit_)


def workers(
    children: Iterable[Child], spares: Container[str], now_s: float, *, resources: bool
) -> tuple[control.WorkerView, ...]:
    """One row a worker; ``spares`` are the roles of which one is parked."""
    return tuple(
        control.WorkerView(
            role=child.spec.id.role,
            index=child.spec.id.index,
            pid=child.pid,
            epoch=child.epoch,
            state=child.state.value,
            restarts=child.restarts,
            crashes=child.crashes,
            phase=_phase(child),
            spare=child.spec.id.role in spares,
            enforced=child.enforced,
            serving_s=_serving_s(child, now_s),
            **_taken(child.pid, resources),
        )
        for child in children
    )


def processes(named: Iterable[tuple[str, int | None]], *, resources: bool) -> tuple[control.ProcessView, ...]:
    """One row for each process that is no worker and is there: name and pid."""
    return tuple(
        control.ProcessView(name, pid, **_taken(pid, resources)) for name, pid in named if pid is not None
    )


def _taken(pid: int | None, wanted: bool) -> dict[str, Any]:
    found = usage(pid) if wanted and pid is not None else None
    return {} if found is None else {**vars(found)}


def _phase(child: Child) -> str:
    if child.process is not None and child.process.stopped_since_s is not None:
        return "stopped"
    word = child.phase()
    return "" if word is None else word.name


def _serving_s(child: Child, now_s: float) -> float | None:
    if child.state is not State.READY or child.ready_at_s is None:
        return None
    return now_s - child.ready_at_s


def _public_key(home: Path) -> str | None:
    """The gate's public CURVE key, once the gate has made it."""
    try:
        return (home / "keys" / "server.pub").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
