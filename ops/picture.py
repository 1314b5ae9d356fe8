"""`make picture`: docs/top.svg, drawn by the real `homeostat top` over a real, busy supervisor.

Owns: a home in a temporary folder, tasks that keep it busy, the worker that is killed, the drawing.
Must not know: what `top` shows: it looks at the terminal as a person does.
Invariant: no path, user or host of the machine is in the picture: `--title` stands for the home's path.
Source: issue "Supervision", item 10; SVG 2 §11 (text).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from homeostat.proto.client import Client
from homeostat.proto.records import Plan, PlanStep
from ops.vt import Pen, Screen

TARGET = Path(__file__).resolve().parents[1] / "docs" / "top.svg"
COLUMNS, LINES = 112, 36
TASKS, STEPS = 12, 60
PATIENCE_S = 60.0
BUSY_S = 6.0
"""So long the tasks run before the worker is killed, and again before the picture is taken."""
CELL_X, CELL_Y, MARGIN = 8.4, 18, 14
INK, PAPER, FAINT = "#d8dee9", "#1c2128", "#7b8494"
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
COLOURS = {1: "#f47067", 2: "#6bc46d", 3: "#daaa3f", 6: "#56b6c2"}
CONFIG = """\
[metrics]
listen = "127.0.0.1:0"
[workers]
brains = 2
executors = 2
"""


class PictureError(Exception):
    """What the picture is to show was not seen."""


def command(home: Path, *arguments: str) -> list[str]:
    """The command on a home."""
    return [sys.executable, "-m", "homeostat.supervisor.cli.main", "--home", str(home), *arguments]


@contextlib.contextmanager
def supervised() -> Iterator[Path]:
    """The home of a running supervisor; it is stopped and its home is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="homeostat-picture-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # Workers of other users pass through it, when root draws.
        config = folder / "config.toml"
        config.write_text(CONFIG)
        home = folder / "home"
        with (
            (folder / "log.txt").open("w") as log,
            subprocess.Popen(
                command(home, "run", "--config", str(config)), stdout=subprocess.PIPE, stderr=log, text=True
            ) as process,
        ):
            try:
                if not (process.stdout and process.stdout.readline().startswith("ready")):
                    raise PictureError(f"the supervisor does not serve: {(folder / 'log.txt').read_text()}")
                yield home
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(PATIENCE_S)


def keep_busy(home: Path) -> None:
    """Submit tasks of commands, reads and notes, each at its own pace."""
    with Client.for_home(home, timeout_s=PATIENCE_S) as client:
        for number in range(TASKS):
            steps: list[PlanStep] = []
            for step in range(STEPS):
                pause = 0.2 + 0.1 * (number % 4)
                steps += [
                    PlanStep("Work.", "shell.run", {"command": f"sleep {pause:.1f}; date >> log.txt"}),
                    PlanStep("Look.", "file.read", {"path": "log.txt"}),
                    PlanStep("Note it.", "task.note", {"text": f"round {step}"}),
                ]
            client.submit(f"demo {number}", plan=Plan(step=steps))


def kill_brain(home: Path) -> None:
    """SIGKILL, as the kernel's memory killer would."""
    done = subprocess.run(command(home, "status", "--json"), capture_output=True, check=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout)
    os.kill(next(row["pid"] for row in told["workers"] if row["role"] == "brain"), signal.SIGKILL)


class Viewer:
    """`homeostat top` on a terminal of its own."""

    def __init__(self, home: Path) -> None:
        self.screen = Screen(COLUMNS, LINES)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.environ.update({"TERM": "xterm-256color", "NO_COLOR": ""})
                arguments = command(home, "top", "--title", "~/.local/state/homeostat")
                os.execv(arguments[0], arguments)
            finally:
                os._exit(127)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))

    def watch(self, seconds: float, until: Callable[[str], bool] = lambda _text: False) -> bool:
        """Take in what is drawn, for so long or until it is seen; true if it was."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left_s)[0]:
                self.screen.feed(os.read(self.fd, 65_536).decode())
            if until("\n".join(self.screen.text())):
                return True
        return False

    def quit(self) -> None:
        """Press q."""
        os.write(self.fd, b"q")
        self.watch(PATIENCE_S, lambda _text: not self.screen.modes["alternate"])
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        if status:
            raise PictureError(f"top ended with {os.waitstatus_to_exitcode(status)}")


def taken() -> Screen:
    """The screen, once it shows a busy home with a worker that has just been replaced."""
    with supervised() as home:
        keep_busy(home)
        viewer = Viewer(home)
        viewer.watch(BUSY_S)
        kill_brain(home)
        if not viewer.watch(PATIENCE_S, _healed):
            raise PictureError(
                "the killed worker was not seen to be replaced:\n" + "\n".join(viewer.screen.text())
            )
        viewer.watch(BUSY_S)
        if not viewer.watch(PATIENCE_S, lambda text: _healed(text) and "shell.run" in text):
            raise PictureError("not busy:\n" + "\n".join(viewer.screen.text()))
        drawn = [list(row) for row in viewer.screen.cells]
        viewer.quit()
        viewer.screen.cells = drawn
        return viewer.screen


def _healed(text: str) -> bool:
    served = re.search(r"^brain\.0 +\d+ +\d+ +ready ", text, re.MULTILINE)
    return bool(served) and "last crash brain.0 killed by SIGKILL" in text and "  ready  " in text


# -- the drawing -------------------------------------------------------------------------------------------
def svg(screen: Screen) -> str:
    """The screen as text in a picture."""
    width, height = COLUMNS * CELL_X + 2 * MARGIN, LINES * CELL_Y + 2 * MARGIN
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    found = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="homeostat top">',
        f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>',
        f'<g fill="{INK}" font-family="{FONTS}" font-size="14" xml:space="preserve">',
    ]
    for number, row in enumerate(screen.cells):
        found += _row(row, MARGIN + number * CELL_Y)
    return "\n".join([*found, "</g>", "</svg>"]) + "\n"


def _row(row: list[tuple[str, Pen]], top: float) -> Iterator[str]:
    """One element a run of alike cells; each as wide as its cells, whatever the reader's font."""
    column = 0
    for pen, run in groupby(row, key=lambda cell: cell[1]):
        letters = [letter for letter, _ in run]
        text, x, cells = "".join(letters), MARGIN + column * CELL_X, len(letters)
        column += cells
        if pen.reverse:
            yield f'<rect x="{x:g}" y="{top:g}" width="{cells * CELL_X:g}" height="{CELL_Y}" fill="{INK}"/>'
        lead = len(text) - len(text.lstrip())
        if text := text.strip():
            yield (
                f'<text x="{x + lead * CELL_X:g}" y="{top + 14:g}" textLength="{len(text) * CELL_X:g}"'
                f"{_look(pen)}>{escape(text)}</text>"
            )


def _look(pen: Pen) -> str:
    fill = PAPER if pen.reverse else FAINT if pen.dim else COLOURS.get(pen.colour or 0)
    return (f' fill="{fill}"' if fill else "") + (' font-weight="bold"' if pen.bold else "")


def main() -> int:
    """0 when the picture was drawn."""
    try:
        TARGET.write_text(svg(taken()), encoding="utf-8")
    except PictureError as error:
        print(f"picture: {error}", file=sys.stderr)
        return 1
    print(f"picture: {TARGET.name} is drawn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
