"""``homeostat status``.

Owns: the supervisor's words (processes) and the gate's (tasks), printed for a person.
Must not know: how either finds out; what of it the JSON has (picture.py).
Invariant: the JSON is a contract; a gate that is just restarting makes it ``ready: false``, not an error.
Source: docs/PROTOCOL.md "JSON of the command line".
"""

from __future__ import annotations

import time
from pathlib import Path

import click

from ...proto import wire
from ...proto.errors import ProtocolError, UnreachableError
from .. import control
from .amounts import UNKNOWN, age, count, size
from .picture import Look, Picture, Row, picture, status_json
from .settings import Settings, common
from .text import printable, say, say_json, table

GATE_PATIENCE_S = 3.0
"""How long status waits for a gate that is restarting."""


@click.command()
@common()
@click.pass_obj
def status(settings: Settings) -> None:
    """Show the supervisor, its workers and the counts of tasks."""
    supervisor = processes(settings.home, resources=True)
    gate = _gate(settings)
    if settings.as_json:
        say_json(status_json(supervisor, gate))
        return
    look = Look(time.monotonic(), time.time_ns(), supervisor, gate)
    _print(supervisor, picture(str(settings.home), look, None))


def processes(home: Path, *, resources: bool = False) -> control.StatusReply:
    """What the supervisor says. Raises UnreachableError when there is none."""
    answer = control.ask(home, control.Status(resources=resources))
    if not isinstance(answer, control.StatusReply):
        raise ProtocolError(f"the supervisor answered {type(answer).__name__}", expected="StatusReply")
    return answer


def _gate(settings: Settings) -> wire.StatusReply | None:
    try:
        with settings.client(timeout_s=GATE_PATIENCE_S) as client:
            return client.status()
    except UnreachableError:
        return None  # the supervisor has answered: its workers' states, printed beside, say why


def _print(supervisor: control.StatusReply, seen: Picture) -> None:
    version = f"  {printable(seen.version)}" if seen.version else ""
    standing = "ready" if seen.ready else "not ready"
    say(f"{standing}  {printable(seen.title)}{version}  up {age(seen.uptime_s)}, pid {supervisor.pid}")
    say(f"  client   {supervisor.client}")
    say(f"  metrics  {supervisor.metrics}")
    _print_gate(seen.gate)
    if seen.last_crash:
        say(f"  crash    {printable(seen.last_crash)}, {age(seen.last_crash_s)} ago")
    table(
        (
            "PROCESS",
            "PID",
            "EPOCH",
            "STATE",
            "PHASE",
            "SERVING",
            "RESTARTS",
            "CRASHES",
            "MEMORY",
            "MAIL",
            "SPARE",
        ),
        [_cells(row) for row in seen.rows],
    )
    _print_confinement(seen.rows)


def _print_gate(gate: wire.StatusReply | None) -> None:
    if gate is None:
        say("  tasks    unknown: the gate does not answer")
        return
    counts = ", ".join(f"{number} {name}" for name, number in gate.tasks.items() if number or name == "open")
    say(f"  tasks    {counts}")
    say(f"  journal  position {count(gate.position)}, {size(gate.journal_bytes)}")
    say(f"  letters  {count(gate.letters)} dropped")
    for one in gate.frozen:
        why = f": {printable(one.reason)}" if one.reason else ""
        say(f"  frozen   {printable(f'{one.scope} {one.name}'.strip())}{why}")


def _cells(row: Row) -> tuple[str, ...]:
    if row.epoch is None:  # no worker: it has neither epochs nor mail
        return (row.name, str(row.pid), "", row.state, "", "", "", "", size(row.memory_bytes), "", "")
    return (
        row.name,
        UNKNOWN if row.pid is None else str(row.pid),
        str(row.epoch),
        row.state,
        row.phase or UNKNOWN,
        age(row.serving_s),
        count(row.restarts),
        count(row.crashes),
        size(row.memory_bytes),
        count(row.mailbox),
        "yes" if row.spare else "no",
    )


def _print_confinement(rows: tuple[Row, ...]) -> None:
    """What each worker says that it gave up, alike ones together."""
    alike: dict[str, list[str]] = {}
    for row in rows:
        if row.epoch is not None and row.pid is not None:
            alike.setdefault(row.enforced, []).append(row.name)
    for enforced, names in alike.items():
        say(f"  confined {', '.join(names)}: {printable(enforced) or 'not said'}")
