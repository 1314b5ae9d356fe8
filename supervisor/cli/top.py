"""``homeostat top``: a live screen of the tree and of what the gate does.

Owns: when a look is made and when it is drawn.
Must not know: what stands where (screen.py), how terminals work (terminal.py).
Invariant: one look an interval, however often a key is pressed; an unreachable supervisor is shown, and
    looked for again.
Source: issue "Supervision", item 10; top(1).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import click

from ...proto.errors import UsageError
from .grid import ansi, plain
from .looking import Looker, Looking
from .picture import History, Picture, top_json
from .screen import arranged, screen, settled
from .settings import Settings, common
from .terminal import EndedError, Terminal, has_colours, is_smart
from .text import say, say_json
from .view import INTERVALS_S, QUIT, View, pressed

CELLS = 120
"""The width where stdout is no terminal."""


@click.command()
@click.option("--once", is_flag=True, help="Print one screen and end.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=INTERVALS_S[0], max=3_600),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--title", default=None, help="Show this instead of the home's path.")
@common()
@click.pass_obj
def top(settings: Settings, once: bool, interval_s: float, title: str | None) -> None:
    """Show the processes, the open tasks and how fast they go, live. Press h for the keys."""
    home = settings.home
    history = History(str(home) if title is None else title)
    if settings.as_json or once:
        _once(home, history, View(interval_s=interval_s), as_json=settings.as_json)
    elif not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("top needs a terminal to draw on", remedy="Use --once, or --json.")
    elif not is_smart():
        _lines(home, history, View(interval_s=interval_s))
    else:
        _live(home, history, View(interval_s=interval_s))


# -- not live ----------------------------------------------------------------------------------------------
def _once(home: Path, history: History, view: View, *, as_json: bool) -> None:
    """Two looks, so that there are rates; then one picture. Raises UnreachableError."""
    with contextlib.closing(Looker(home)) as looker:
        history.take(looker.look())
        looker.insist()
        time.sleep(view.interval_s)
        look = looker.look()
        looker.insist()
    picture = history.take(look)
    if as_json:
        say_json(top_json(look, picture))
    else:
        _print(picture, view)


def _lines(home: Path, history: History, view: View) -> None:
    """For a terminal that only knows lines: one screen after the other, until Ctrl-C."""
    with contextlib.closing(Looker(home)) as looker:
        while True:
            _print(history.take(looker.look()), view)
            say("")
            time.sleep(view.interval_s)


def _print(picture: Picture, view: View) -> None:
    """All rows, however many, as wide as the terminal."""
    colours = sys.stdout.isatty() and has_colours()
    cells = shutil.get_terminal_size((CELLS, 0)).columns
    wanted = len(picture.rows) + (len(picture.gate.open) if picture.gate else 1) + 40
    drawn = screen(picture, view, cells, wanted)[:-1]
    while drawn and not drawn[-1]:
        drawn.pop()
    for line in drawn:
        say(ansi(line, colours=True).rstrip() if colours else plain(line))


# -- live --------------------------------------------------------------------------------------------------
def _live(home: Path, history: History, view: View) -> None:
    looking = Looking(home)
    looking.start()
    try:
        with Terminal() as terminal:
            _Live(terminal, looking, history, view).run()
    except EndedError as error:
        if error.number == signal.SIGINT:
            raise KeyboardInterrupt from error
        # As if there had been no handler: our parent sees what ended us.
        signal.signal(error.number, signal.SIG_DFL)
        os.kill(os.getpid(), error.number)
    finally:
        looking.end()


class _Live:
    """One run on a terminal."""

    def __init__(self, terminal: Terminal, looking: Looking, history: History, view: View) -> None:
        self._terminal, self._looking, self._history = terminal, looking, history
        self._view = view
        self._picture: Picture | None = None
        self._asked = False
        self._due_s = 0.0

    def run(self) -> None:
        """Until q. Raises EndedError."""
        while True:
            self._ask_if_due()
            for key in self._terminal.wait(self._pause_s(), [self._looking.fd]):
                if key in QUIT:
                    return
                self._press(key)
            if (look := self._looking.take()) is not None:
                self._asked = False
                if not self._view.paused:
                    self._picture = self._history.take(look)
            self._draw()

    def _ask_if_due(self) -> None:
        now_s = time.monotonic()
        if self._asked or self._view.paused or now_s < self._due_s:
            return
        self._asked, self._due_s = True, now_s + self._view.interval_s
        self._looking.ask()

    def _pause_s(self) -> float:
        if self._asked or self._view.paused:
            return 3_600.0  # A look, a key or a signal wakes us.
        return self._due_s - time.monotonic()

    def _press(self, key: str) -> None:
        if self._picture is None:
            self._view = pressed(self._view, key, 1)
            return
        layout = arranged(self._picture, self._view, *self._terminal.size)
        before, view = self._view, pressed(self._view, key, layout.page(self._view))
        self._view = settled(self._picture, view, arranged(self._picture, view, *self._terminal.size))
        if self._view.interval_s != before.interval_s:
            self._due_s = min(self._due_s, time.monotonic() + self._view.interval_s)

    def _draw(self) -> None:
        if self._picture is not None:
            self._terminal.draw(screen(self._picture, self._view, *self._terminal.size))
