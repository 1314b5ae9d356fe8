"""`homeostat top`, drawn: (picture, view, size) → lines.

Owns: what stands where, and what is left out where room is short.
Must not know: terminals, sockets, clocks.
Invariant: never more lines than the size has, nor a line wider; at any size, 1 × 1 included.
Source: issue "Supervision", item 10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ...proto import wire
from .amounts import UNKNOWN, age, count, rate, size
from .cells import clip, fit, safe
from .grid import Column, Line, Span, cut, dimmed, flow, grid
from .picture import Picture, Row
from .view import KEYS, View

ROOMY = 20
"""From so many lines on, blank ones part the tables."""


def screen(picture: Picture, view: View, cells: int, lines: int) -> list[Line]:
    """Everything, in at most ``lines`` lines of at most ``cells`` cells."""
    layout = arranged(picture, view, cells, lines)
    view = settled(picture, view, layout)
    stale = dimmed if picture.trouble else _as_it_is
    found = [*layout.header]
    if view.help:
        found += [cut((Span(f"  {fit(keys, 22)}", "key"), Span(what)), cells) for keys, what in KEYS]
    else:
        for table, height in (("workers", layout.workers), ("tasks", layout.tasks)):
            if layout.roomy and height:
                found.append(())
            drawn = (
                _workers(picture, view, cells, height)
                if table == "workers"
                else _tasks(picture, view, cells, height)
            )
            found += [stale(line) for line in drawn]
    if not layout.footer:
        return found[:lines]
    body = found[: lines - 1]
    return [*body, *[()] * (lines - 1 - len(body)), cut(_footer(view), cells)]


def settled(picture: Picture, view: View, layout: Layout) -> View:
    """The view with nothing scrolled beyond its last page."""
    workers = max(0, len(picture.rows) - max(0, layout.workers - 1))
    tasks = max(0, len(_open(picture)) - max(0, layout.tasks - 1))
    return replace(
        view, workers_first=min(view.workers_first, workers), tasks_first=min(view.tasks_first, tasks)
    )


@dataclass(frozen=True)
class Layout:
    """How the lines are shared out; a table's lines include its heading, 0: it is not shown."""

    header: list[Line]
    workers: int
    tasks: int
    footer: bool
    roomy: bool

    def page(self, view: View) -> int:
        """How many rows of the table that has the keys are shown."""
        return max(0, (self.workers if view.table == "workers" else self.tasks) - 1)


def arranged(picture: Picture, view: View, cells: int, lines: int) -> Layout:
    """Share the lines out: each table gets what it wants, or tasks at least a third."""
    header = flow(_header(picture), cells, max(1, lines // 3))
    footer, roomy = lines >= 4, lines >= ROOMY
    rest = max(0, lines - len(header) - footer - 2 * roomy)
    wanted_workers, wanted_tasks = len(picture.rows) + 1, max(1, len(_open(picture))) + 1
    if rest < 4:
        focused = view.table == "workers"
        return Layout(header, rest if focused else 0, 0 if focused else rest, footer, roomy)
    workers = min(wanted_workers, max(2, rest - min(wanted_tasks, max(2, rest // 3))))
    return Layout(header, workers, rest - workers, footer, roomy)


# -- the header --------------------------------------------------------------------------------------------
def _header(picture: Picture) -> list[list[Line]]:
    gate = picture.gate
    clock = datetime.fromtimestamp(picture.at_ns / 1e9).astimezone().strftime("%H:%M:%S")
    first: list[Line] = [
        (Span("homeostat" + (f" {safe(picture.version)}" if picture.version else ""), "title"),),
        (Span(safe(picture.title)),),
        (_standing(picture),),
        (Span(f"up {age(picture.uptime_s)}"),),
    ]
    if frozen := _frozen(gate):
        first.append((Span(f"frozen: {frozen}", "warn"),))
    if picture.trouble:
        first.append((Span(safe(picture.trouble), "dim"),))
    stale = dimmed if picture.trouble else _as_it_is
    groups = [[*first, (Span(clock, "dim"),)]]
    if gate is None:
        silent = "" if picture.trouble else "the gate does not answer"
        groups.append([(Span("tasks", "head"), Span(f" unknown {silent}".rstrip(), "warn"))])
    else:
        groups += [_counts(gate), _rates(picture), _journal(gate, picture)]
    return [groups[0], *([stale(item) for item in group] for group in groups[1:])]


def _frozen(gate: wire.StatusReply | None) -> str:
    """What stands still, in words; empty while nothing does."""
    scopes = (f"{one.scope} {one.name}" if one.name else "everything" for one in gate.frozen) if gate else ()
    return safe(", ".join(scopes))


def _standing(picture: Picture) -> Span:
    if picture.trouble:
        return Span("unreachable, trying", "bad")
    return Span("ready", "good") if picture.ready else Span("not ready", "bad")


def _counts(gate: wire.StatusReply) -> list[Line]:
    waits = {"waiting_approval": "approvals", "in_doubt": "in doubt"}
    known = [name for name in gate.tasks if name not in waits and (gate.tasks[name] or name == "open")]
    items: list[Line] = [(Span("tasks", "head"),)]
    items += [
        (Span(f"{count(gate.tasks[name])} {safe(name.replace('_', ' '))}", _task_style(name)),)
        for name in known
    ]
    for name, words in waits.items():
        number = gate.tasks.get(name, 0)
        items.append((Span(f"{words} {count(number)}", "warn" if number else ""),))
    return items


def _rates(picture: Picture) -> list[Line]:
    return [
        (Span("per second", "head"),),
        *((Span(f"{name} {rate(per_s)}"),) for name, per_s in picture.rates.items()),
    ]


def _journal(gate: wire.StatusReply, picture: Picture) -> list[Line]:
    return [
        (Span("journal", "head"),),
        (Span(f"position {count(gate.position)}"),),
        (Span(size(gate.journal_bytes)),),
        (Span(f"dead letters {count(gate.letters)}", "warn" if gate.letters else ""),),
        *([_crash(picture)] if picture.last_crash else []),
    ]


def _crash(picture: Picture) -> Line:
    ago = "" if picture.last_crash_s is None else f", {age(picture.last_crash_s)} ago"
    return (Span(f"last crash {safe(picture.last_crash)}{ago}", "warn"),)


# -- the tables --------------------------------------------------------------------------------------------
def _state_style(row: Row) -> str:
    return {"ready": "good", "runs": "good", "parked": "dim", "dead": "bad", "backoff": "bad"}.get(
        row.state, "warn"
    )


def _task_style(status: str) -> str:
    styles = {"running": "good", "in_doubt": "warn", "waiting_approval": "warn", "waiting_human": "warn"}
    return styles.get(status, "bad" if status in ("failed", "quarantined") else "")


def _percent(row: Row) -> str:
    return UNKNOWN if row.cpu_percent is None else f"{row.cpu_percent:.1f}"


WORKERS: tuple[Column[Row], ...] = (
    Column("WORKER", lambda row: row.name, 0, widest=20),
    Column("PID", lambda row: _known(row.pid), 2, right=True),
    Column("EPOCH", lambda row: _counted(row, row.epoch), 8, right=True),
    Column("STATE", lambda row: row.state, 1, style=_state_style),
    Column(
        "PHASE", lambda row: row.phase, 5, style=lambda row: "busy" if row.phase not in ("", "idle") else ""
    ),
    Column("SERVING", lambda row: _counted(row, age(row.serving_s)), 9, right=True),
    Column("RESTARTS", lambda row: _counted(row, row.restarts), 4, right=True),
    Column("CRASHES", lambda row: _counted(row, row.crashes), 6, right=True),
    Column("CPU%", _percent, 5, right=True),
    Column("MEMORY", lambda row: size(row.memory_bytes), 3, right=True),
    Column("FDS", lambda row: _known(row.open_files), 10, right=True),
    Column("THR", lambda row: _known(row.threads), 11, right=True),
    Column("MAIL", lambda row: _known(row.mailbox), 7, right=True),
    Column("CONFINED", lambda row: row.enforced, 12, widest=200),
)

_SORTED: dict[str, Callable[[Row], float]] = {
    "cpu": lambda row: row.cpu_percent or 0.0,
    "memory": lambda row: row.memory_bytes or 0,
    "mail": lambda row: row.mailbox or 0,
    "restarts": lambda row: row.restarts or 0,
    "crashes": lambda row: row.crashes or 0,
}


def _known(number: int | None) -> str:
    return UNKNOWN if number is None else str(number)


def _counted(row: Row, value: object) -> str:
    """Blank for a process that is no worker: there it has no meaning."""
    return "" if row.epoch is None else UNKNOWN if value is None else str(value)


def _workers(picture: Picture, view: View, cells: int, lines: int) -> list[Line]:
    rows = list(picture.rows)
    if (by := _SORTED.get(view.workers_sort)) is not None:
        rows.sort(key=by, reverse=True)
    return grid(WORKERS, rows, cells, lines, view.workers_first, focused=view.table == "workers")


def _open(picture: Picture) -> Sequence[wire.OpenTask]:
    return picture.gate.open if picture.gate else ()


def _tasks(picture: Picture, view: View, cells: int, lines: int) -> list[Line]:
    columns: tuple[Column[wire.OpenTask], ...] = (
        Column("TASK", lambda task: task.task, 0, widest=24),
        Column("STATUS", lambda task: task.status, 1, style=lambda task: _task_style(task.status)),
        Column("STEP", lambda task: str(task.step), 4, right=True),
        Column("AGE", lambda task: age((picture.at_ns - task.accepted_at_ns) / 1e9), 2, right=True),
        Column(
            "TOOL", lambda task: task.tool or UNKNOWN, 3, style=lambda task: "busy" if task.tool else "dim"
        ),
        Column("AGENT", lambda task: task.agent, 5),
    )
    rows = _ordered(_open(picture), view.tasks_sort)
    drawn = grid(columns, rows, cells, lines, view.tasks_first, focused=view.table == "tasks")
    if not rows and lines > 1 and picture.gate is not None:
        drawn.append((Span(clip("no open task", cells), "dim"),))
    if picture.gate is not None and (more := picture.gate.tasks.get("open", 0) - len(rows)) > 0 and lines > 2:
        drawn = [
            *drawn[: lines - 1],
            (Span(clip(f"… and {count(more)} between the oldest and newest", cells), "dim"),),
        ]
    return drawn


def _ordered(tasks: Sequence[wire.OpenTask], by: str) -> list[wire.OpenTask]:
    """Of equal ones the newest first."""
    newest = list(reversed(tasks))
    match by:
        case "oldest":
            return list(tasks)
        case "status":
            return sorted(newest, key=lambda task: task.status)
        case "agent":
            return sorted(newest, key=lambda task: task.agent)
        case "step":
            return sorted(newest, key=lambda task: task.step, reverse=True)
        case _:
            return newest


# -- the footer --------------------------------------------------------------------------------------------
def _footer(view: View) -> Line:
    sort = view.workers_sort if view.table == "workers" else view.tasks_sort
    paused = (Span("paused", "warn"), Span("  ")) if view.paused else ()
    return (
        *paused,
        *_hint("q", "quit"),
        *_hint("p", "go on" if view.paused else "pause"),
        *_hint("h", "help"),
        *_hint("Tab", view.table),
        *_hint("←→", f"by {sort}"),
        *_hint("+-", f"every {view.interval_s:g}s"),
    )


def _hint(key: str, what: str) -> Line:
    return (Span(key, "key"), Span(f" {what}  "))


def _as_it_is(line: Line) -> Line:
    return line
