"""Following a task to its end, and the exit code that its status means.

Owns: the map from statuses to exit codes; when a person has to act before a task can go on.
Must not know: how events are shown.
Invariant: a task that waits for a person ends the waiting too: nobody waits for themselves.
Source: docs/PROTOCOL.md "Exit codes".
"""

from __future__ import annotations

from collections.abc import Callable

from ...proto.client import Client
from ...proto.ids import ENDED
from ...proto.wire import Event, TaskView

DONE, FAILED, CANCELLED, PERSON = 0, 1, 5, 6
NEEDS_PERSON = frozenset({"in_doubt", "waiting_human", "waiting_approval"})
_CODES = {"done": DONE, "failed": FAILED, "quarantined": FAILED, "cancelled": CANCELLED}


def exit_code(status: str) -> int:
    """0 done, 1 failed or quarantined, 5 cancelled, 6 for what only a person can move."""
    return _CODES.get(status, PERSON)


def follow(client: Client, task: str, cursor: int, show: Callable[[Event], None]) -> TaskView:
    """Show events until the task has ended or needs a person; give its row."""
    row = client.get(task, limit=1).task
    if row.status in NEEDS_PERSON:
        for event in client.history(task, cursor=cursor):
            show(event)
        return row
    for event in client.watch(task, cursor=cursor):
        show(event)
        if event.kind == "status" and event.data.get("status") in NEEDS_PERSON:
            row = client.get(task, limit=1).task  # it may be long over: events can be old
            if row.status in NEEDS_PERSON | ENDED:
                return row
    return client.get(task, limit=1).task
