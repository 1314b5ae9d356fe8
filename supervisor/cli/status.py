"""``homeostat status``.

Owns: one picture made of the supervisor's words (processes) and the gate's (tasks).
Must not know: how either finds out.
Invariant: the JSON is a contract; a gate that is just restarting makes it ``ready: false``, not an error.
Source: docs/PROTOCOL.md "JSON of the command line".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from ...proto import wire
from ...proto.errors import ProtocolError, UnreachableError
from .. import control
from .settings import Settings, common
from .text import say, say_json, table

GATE_PATIENCE_S = 3.0
"""How long status waits for a gate that is restarting."""


@click.command()
@common()
@click.pass_obj
def status(settings: Settings) -> None:
    """Show the supervisor, its workers and the counts of tasks."""
    picture = merged(processes(settings.home), _gate(settings))
    if settings.as_json:
        say_json(picture)
    else:
        _print(settings.home, picture)


def processes(home: Path) -> control.StatusReply:
    """What the supervisor says. Raises UnreachableError when there is none."""
    answer = control.ask(home, control.Status())
    if not isinstance(answer, control.StatusReply):
        raise ProtocolError(f"the supervisor answered {type(answer).__name__}", expected="StatusReply")
    return answer


def merged(supervisor: control.StatusReply, gate: wire.StatusReply | None) -> dict[str, Any]:
    """The contract's form; ``tasks`` is empty and ``position`` null while no gate answers."""
    return {
        "ready": supervisor.ready and gate is not None and gate.ready,
        "metrics": supervisor.metrics,
        "client": supervisor.client,
        "client_tcp": supervisor.client_tcp,
        "server_key": supervisor.server_key,
        "pid": supervisor.pid,
        "workers": msgspec.to_builtins(supervisor.workers),
        "tasks": {"open": 0, "done": 0, **gate.tasks} if gate else {},
        "version": gate.version if gate else None,
        "position": gate.position if gate else None,
        "tree_root": gate.tree_root if gate else None,
    }


def _gate(settings: Settings) -> wire.StatusReply | None:
    try:
        with settings.client(timeout_s=GATE_PATIENCE_S) as client:
            return client.status()
    except UnreachableError:
        return None  # the supervisor has answered: its workers' states, printed beside, say why


def _print(home: Path, picture: dict[str, Any]) -> None:
    say(f"{'ready' if picture['ready'] else 'not ready'}  {home}")
    say(f"  client   {picture['client']}")
    say(f"  metrics  {picture['metrics']}")
    counts = ", ".join(
        f"{count} {name}" for name, count in picture["tasks"].items() if count or name == "open"
    )
    say(f"  tasks    {counts or 'unknown: the gate does not answer'}")
    table(
        ("WORKER", "PID", "EPOCH", "STATE", "RESTARTS"),
        [
            (
                f"{row['role']}.{row['index']}",
                str(row["pid"]),
                str(row["epoch"]),
                str(row["state"]),
                str(row["restarts"]),
            )
            for row in picture["workers"]
        ],
    )
