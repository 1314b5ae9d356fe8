"""How a person looks at the picture: what is sorted, scrolled, paused; and what a key does to that.

Owns: the keys.
Must not know: terminals, what is drawn.
Invariant: a key changes the view and nothing else: looking at a home never changes it.
Source: top(1) and less(1), for the keys that fingers know.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Table = Literal["workers", "tasks"]
WORKER_SORTS = ("tree", "cpu", "memory", "mail", "restarts", "crashes")
TASK_SORTS = ("newest", "oldest", "status", "agent", "step")
INTERVALS_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
QUIT = frozenset({"q", "Q"})
KEYS = (
    ("q", "quit"),
    ("p, space", "stand still, go on"),
    ("+ -", "look less or more often"),
    ("Tab", "the other table"),
    ("↑↓ PgUp PgDn Home End", "scroll the table"),
    ("← →", "sort the table"),
    ("h, ?", "this help"),
)


@dataclass(frozen=True)
class View:
    """What is looked at, and how."""

    interval_s: float = 1.0
    paused: bool = False
    help: bool = False
    table: Table = "tasks"
    workers_sort: str = WORKER_SORTS[0]
    tasks_sort: str = TASK_SORTS[0]
    workers_first: int = 0
    """The first row that is shown."""
    tasks_first: int = 0


def pressed(view: View, key: str, page: int) -> View:
    """The view after a key; ``page`` rows of the table are shown. Unknown keys do nothing."""
    match key:
        case "p" | "P" | " ":
            return replace(view, paused=not view.paused)
        case "h" | "H" | "?":
            return replace(view, help=not view.help)
        case "escape":
            return replace(view, help=False)
        case "+" | "=" | "-" | "_":
            return replace(view, interval_s=_interval(view.interval_s, longer=key in "+="))
        case "tab":
            return replace(view, table="workers" if view.table == "tasks" else "tasks")
        case "left" | "right":
            return _sorted(view, 1 if key == "right" else -1)
        case _:
            return _scrolled(view, key, max(1, page))


def _interval(now_s: float, *, longer: bool) -> float:
    if longer:
        return next((one for one in INTERVALS_S if one > now_s), INTERVALS_S[-1])
    return next((one for one in reversed(INTERVALS_S) if one < now_s), INTERVALS_S[0])


def _sorted(view: View, by: int) -> View:
    if view.table == "workers":
        return replace(view, workers_sort=_next(WORKER_SORTS, view.workers_sort, by), workers_first=0)
    return replace(view, tasks_sort=_next(TASK_SORTS, view.tasks_sort, by), tasks_first=0)


def _next(choices: tuple[str, ...], now: str, by: int) -> str:
    return choices[(choices.index(now) + by) % len(choices)]


def _scrolled(view: View, key: str, page: int) -> View:
    first = view.workers_first if view.table == "workers" else view.tasks_first
    steps = {"down": 1, "j": 1, "up": -1, "k": -1, "page down": page, "page up": -page}
    if key in steps:
        first += steps[key]
    elif key == "home":
        first = 0
    elif key == "end":
        first = 1 << 30
    first = max(0, first)
    return replace(view, workers_first=first) if view.table == "workers" else replace(view, tasks_first=first)
