"""What the gate says of itself: counts, mailboxes, totals, and the open tasks that a live view shows.

Owns: the form of a status reply.
Must not know: sockets, who asks.
Invariant: nothing here reads the disk: a view that asks every second costs the gate microseconds.
Source: docs/PROTOCOL.md `status_reply`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from ... import __version__
from ...proto import wire
from . import plug
from .core import GateCore
from .journal.store import Store
from .peers import Peers
from .state import Task


def status(
    request: wire.Status,
    core: GateCore,
    store: Store,
    peers: Peers,
    *,
    totals: Mapping[str, int],
    letters: int,
    ready: bool,
) -> wire.StatusReply:
    """Answer a status request, whose ``open_limit`` is within bounds."""
    return wire.StatusReply(
        rid=request.rid,
        ready=ready,
        version=__version__,
        tasks=_counts(core),
        workers=peers.names(),
        position=store.last_position,
        tree_root=store.root().hex(),
        mailboxes=peers.mailboxes(),
        totals=dict(totals),
        journal_bytes=_used_bytes(store),
        letters=letters,
        frozen=plug.views(core),
        open=[_row(task) for task in _ends(core.tasks, request.open_limit)],
    )


def _counts(core: GateCore) -> dict[str, int]:
    counts = {"open": len(core.tasks), "done": 0, "failed": 0, "cancelled": 0, "quarantined": 0}
    counts.update(core.counts)
    for task in core.tasks.values():
        counts[task.status] = counts.get(task.status, 0) + 1
    return counts


def _used_bytes(store: Store) -> int:
    """How much of the journal's map is in use: the size of its file, free pages within included."""
    env = store.environment.env
    return int((env.info()["last_pgno"] + 1) * env.stat()["psize"])


def _ends(tasks: dict[int, Task], limit: int) -> list[Task]:
    """The oldest and the newest, half of each; tasks are kept in the order of their acceptance."""
    if len(tasks) <= limit:
        return list(tasks.values())
    newest = list(islice(reversed(tasks.values()), limit - limit // 2))
    return [*islice(tasks.values(), limit // 2), *reversed(newest)]


def _row(task: Task) -> wire.OpenTask:
    under_way = (call.tool for call in task.calls if call.phase in ("admitted", "merging", "doubt"))
    return wire.OpenTask(
        task=task.id,
        agent=task.agent,
        status=task.status,
        step=task.step,
        accepted_at_ns=task.accepted_ns,
        tool=next(under_way, ""),
    )
