"""What `homeostat top` and `status` show: one picture made of two answers, and rates between two looks.

Owns: the picture's shape, its JSON, rates and percentages.
Must not know: sockets, terminals, clocks (times are in the looks).
Invariant: what is not known is None, never 0; while the supervisor is away the last picture stays, marked so.
Source: docs/PROTOCOL.md "JSON of the command line".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from ...proto import wire
from .. import control

RATES = ("steps", "effects", "verdicts", "commits", "records", "requests", "tokens")
"""Totals of the gate whose rates are shown."""


@dataclass(frozen=True)
class Look:
    """What was answered at one moment: ``at_s`` is monotonic, ``at_ns`` since 1970."""

    at_s: float
    at_ns: int
    supervisor: control.StatusReply | None
    gate: wire.StatusReply | None
    trouble: str = ""
    """Why there is no supervisor, in words."""


@dataclass(frozen=True)
class Row:
    """One process of the tree."""

    name: str
    pid: int | None
    state: str = ""
    phase: str = ""
    epoch: int | None = None
    restarts: int | None = None
    crashes: int | None = None
    serving_s: float | None = None
    spare: bool = False
    enforced: str = ""
    cpu_percent: float | None = None
    memory_bytes: int | None = None
    open_files: int | None = None
    threads: int | None = None
    mailbox: int | None = None


@dataclass(frozen=True)
class Picture:
    """Everything that is shown at one moment."""

    title: str
    at_ns: int
    trouble: str
    """Not empty: the supervisor can't be reached, and the rest is as it was last seen."""
    ready: bool
    version: str
    uptime_s: float | None
    rows: tuple[Row, ...]
    gate: wire.StatusReply | None
    """None while the gate does not answer."""
    rates: Mapping[str, float | None]
    last_crash: str
    last_crash_s: float | None


def status_json(supervisor: control.StatusReply, gate: wire.StatusReply | None) -> dict[str, Any]:
    """The contract's form; what only the gate knows is null or empty while it does not answer."""
    return {
        "ready": supervisor.ready and gate is not None and gate.ready,
        "metrics": supervisor.metrics,
        "client": supervisor.client,
        "client_tcp": supervisor.client_tcp,
        "server_key": supervisor.server_key,
        "pid": supervisor.pid,
        "guardian": supervisor.guardian,
        "uptime_s": supervisor.uptime_s,
        "processes": msgspec.to_builtins(supervisor.processes),
        "workers": msgspec.to_builtins(supervisor.workers),
        "last_crash": supervisor.last_crash,
        "last_crash_s": supervisor.last_crash_s,
        "tasks": {"open": 0, "done": 0, **gate.tasks} if gate else {},
        "frozen": msgspec.to_builtins(gate.frozen) if gate else [],
        "mailboxes": gate.mailboxes if gate else {},
        "totals": gate.totals if gate else {},
        "journal_bytes": gate.journal_bytes if gate else None,
        "letters": gate.letters if gate else None,
        "version": gate.version if gate else None,
        "position": gate.position if gate else None,
        "tree_root": gate.tree_root if gate else None,
    }


def top_json(now: Look, picture: Picture) -> dict[str, Any]:
    """The picture for programs: the status with rates, percentages and open tasks."""
    if now.supervisor is None:
        raise ValueError("there is no JSON of a supervisor that is away")
    return {
        "at_ns": now.at_ns,
        **status_json(now.supervisor, now.gate),
        "rates": {name: None if rate is None else round(rate, 3) for name, rate in picture.rates.items()},
        "cpu_percent": {
            row.name: None if row.cpu_percent is None else round(row.cpu_percent, 1) for row in picture.rows
        },
        "open": msgspec.to_builtins(now.gate.open) if now.gate else [],
    }


class History:
    """Turns looks into pictures; remembers the look before."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._before: Look | None = None
        self._last: Picture | None = None

    def take(self, now: Look) -> Picture:
        """The picture of a look."""
        if now.supervisor is None:
            self._before = None
            last = self._last or picture(self._title, now, None)
            self._last = replace(last, at_ns=now.at_ns, trouble=now.trouble, ready=False)
        else:
            self._last = picture(self._title, now, self._before)
            self._before = now
        return self._last


def picture(title: str, now: Look, before: Look | None) -> Picture:
    """One look as a picture, with rates since the look before."""
    seen, gate = now.supervisor, now.gate
    return Picture(
        title=title,
        at_ns=now.at_ns,
        trouble=now.trouble,
        ready=seen is not None and seen.ready and gate is not None and gate.ready,
        version=seen.version if seen else "",
        uptime_s=seen.uptime_s if seen else None,
        rows=rows(now, before),
        gate=gate,
        rates=rates(now, before),
        last_crash=seen.last_crash if seen else "",
        last_crash_s=seen.last_crash_s if seen else None,
    )


def rates(now: Look, before: Look | None) -> dict[str, float | None]:
    """Per second; a total that has shrunk was counted by a new gate, from 0."""
    if now.gate is None or before is None or before.gate is None or now.at_s <= before.at_s:
        return dict.fromkeys(RATES)
    found: dict[str, float | None] = {}
    for name in RATES:
        after, former = now.gate.totals.get(name), before.gate.totals.get(name, 0)
        grown = None if after is None else after - former if after >= former else after
        found[name] = None if grown is None else grown / (now.at_s - before.at_s)
    return found


def rows(now: Look, before: Look | None) -> tuple[Row, ...]:
    """Supervisor, guardian and nursery, then the workers, then those that are parked."""
    if now.supervisor is None:
        return ()
    cpu = _Cpu(now, before)
    others = [_process_row(one, cpu) for one in now.supervisor.processes]
    parked = [row for row in others if row.name.startswith("spare ")]
    mailboxes = now.gate.mailboxes if now.gate else {}
    workers = [_worker_row(one, cpu, mailboxes) for one in now.supervisor.workers]
    return (*(row for row in others if row not in parked), *workers, *parked)


def _process_row(one: control.ProcessView, cpu: _Cpu) -> Row:
    return Row(
        name=one.name,
        pid=one.pid,
        state="parked" if one.name.startswith("spare ") else "runs",
        cpu_percent=cpu.percent(one.pid),
        memory_bytes=one.memory_bytes,
        open_files=one.open_files,
        threads=one.threads,
    )


def _worker_row(one: control.WorkerView, cpu: _Cpu, mailboxes: Mapping[str, int]) -> Row:
    name = f"{one.role}.{one.index}"
    return Row(
        name=name,
        pid=one.pid,
        state=one.state,
        phase=one.phase,
        epoch=one.epoch,
        restarts=one.restarts,
        crashes=one.crashes,
        serving_s=one.serving_s,
        spare=one.spare,
        enforced=one.enforced,
        cpu_percent=None if one.pid is None else cpu.percent(one.pid),
        memory_bytes=one.memory_bytes,
        open_files=one.open_files,
        threads=one.threads,
        mailbox=mailboxes.get(name),
    )


class _Cpu:
    """Processor time between two looks."""

    def __init__(self, now: Look, before: Look | None) -> None:
        self._after, self._former = _cpu_s(now), _cpu_s(before)
        self._between_s = now.at_s - before.at_s if before else 0.0

    def percent(self, pid: int) -> float | None:
        """Of one core; None for a process that was not there at the look before."""
        after, former = self._after.get(pid), self._former.get(pid)
        if after is None or former is None or after < former or self._between_s <= 0:
            return None
        return 100 * (after - former) / self._between_s


def _cpu_s(look: Look | None) -> dict[int, float]:
    if look is None or look.supervisor is None:
        return {}
    views: list[control.ProcessView | control.WorkerView] = [
        *look.supervisor.processes,
        *look.supervisor.workers,
    ]
    return {one.pid: one.cpu_s for one in views if one.pid is not None and one.cpu_s is not None}
