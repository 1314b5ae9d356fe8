"""What keys do to the view of `homeostat top`."""

from __future__ import annotations

import pytest

from homeostat.supervisor.cli.view import INTERVALS_S, TASK_SORTS, WORKER_SORTS, View, pressed


def after(view: View, *keys: str, page: int = 10) -> View:
    """The view after some keys."""
    for key in keys:
        view = pressed(view, key, page)
    return view


def test_pause_and_help_are_switched_back_when_pressed_again() -> None:
    """Each key is its own way back; Escape closes the help too."""
    view = after(View(), "p", "h")
    assert (view.paused, view.help) == (True, True)
    assert after(view, " ", "?") == after(view, "p", "escape") == View()


@pytest.mark.parametrize(("key", "last"), [("+", INTERVALS_S[-1]), ("-", INTERVALS_S[0])])
def test_interval_ends_at_its_bounds(key: str, last: float) -> None:
    """It takes the next of the known intervals, from whatever was given, and stops at the last."""
    assert after(View(interval_s=3.0), "+").interval_s == 5.0
    assert after(View(interval_s=3.0), "-").interval_s == 2.0
    assert after(View(), *[key] * 20).interval_s == last


def test_tab_gives_the_keys_to_the_other_table() -> None:
    """Scrolling and sorting are of one table at a time."""
    view = after(View(), "down", "tab", "down", "down", "page down")
    assert (view.tasks_first, view.workers_first) == (1, 12)
    assert after(view, "tab", "up", "up").tasks_first == 0


def test_sorts_go_round_and_begin_at_the_top() -> None:
    """After as many keys as there are sorts it is the first again."""
    scrolled = View(tasks_first=3)
    assert after(scrolled, "right") == View(tasks_sort=TASK_SORTS[1])
    assert after(View(), *["right"] * len(TASK_SORTS)) == View()
    assert after(View(table="workers"), "left").workers_sort == WORKER_SORTS[-1]


def test_unknown_keys_change_nothing() -> None:
    """A cat may walk over the keyboard."""
    assert after(View(), "x", "resized", "\x00", "ü") == View()
