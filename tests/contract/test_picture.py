"""docs/top.svg, the picture in the README: what the program draws today, and nothing of the machine."""

from __future__ import annotations

import getpass
import re
import socket
from pathlib import Path
from xml.etree import ElementTree as ET

from homeostat.supervisor.cli.screen import WORKERS
from homeostat.supervisor.cli.view import View
from ops.picture import COLUMNS, LINES, svg
from ops.vt import Screen

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "top.svg"


def words(source: str) -> str:
    """All text of a picture."""
    return "\n".join(ET.fromstring(source).itertext())  # noqa: S314  our own file


def test_picture_has_the_columns_that_are_drawn() -> None:
    """A column that was renamed makes the picture old: `make picture` draws it anew. The last may not fit."""
    shown = words(PICTURE.read_text(encoding="utf-8"))
    heading = next(line for line in shown.splitlines() if line.startswith("WORKER"))
    assert heading.split() == [column.title for column in WORKERS][: len(heading.split())]
    assert len(heading.split()) >= len(WORKERS) - 1
    assert f"by {View().tasks_sort}" in shown


def test_picture_names_no_machine() -> None:
    """No path but the one that stands for a home, no host, no user."""
    shown = words(PICTURE.read_text(encoding="utf-8"))
    assert re.findall(r"[~\w.]*/[\w./-]+", shown) == ["~/.local/state/homeostat"]
    assert socket.gethostname() not in shown
    assert getpass.getuser() in ("root", "nobody") or getpass.getuser() not in shown


def test_picture_is_in_the_readme() -> None:
    """It is what a reader sees first of the program."""
    assert "docs/top.svg" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_svg_is_text_that_says_what_the_screen_says() -> None:
    """Characters that mean something to XML are written out; colours and places are kept."""
    screen = Screen(COLUMNS, LINES)
    screen.feed("\x1b[2;3H\x1b[32ma <b> & c\x1b[0m \x1b[7mhead\x1b[0m")
    drawn = ET.fromstring(svg(screen))  # noqa: S314  our own
    texts = [one for one in drawn.iter() if one.tag.endswith("}text")]
    assert [one.text for one in texts] == ["a <b> & c", "head"]
    assert texts[0].get("fill") != texts[1].get("fill")
    assert float(texts[0].get("x", "0")) < float(texts[1].get("x", "0"))
