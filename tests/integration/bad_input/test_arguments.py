"""Arguments of the command line that are no good: exit 2 with what was expected, never exit 70."""

from __future__ import annotations

import os
import sys

import pytest

from tests.integration.bad_input.stand import COMMAND, Home, attempt

NO_TEXT = os.fsdecode(b"x\xff")


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit", NO_TEXT),
        ("submit", "--agent", NO_TEXT, "x"),
        ("submit", "--key", NO_TEXT, "x"),
        ("show", NO_TEXT),
        ("watch", NO_TEXT),
        ("trace", NO_TEXT),
        ("cancel", "taaaaaaaaaaaaaaaa", "--reason", NO_TEXT),
    ],
)
def test_command_refuses_an_argument_when_it_is_no_text(running: Home, arguments: tuple[str, ...]) -> None:
    """Bytes that are not UTF-8 can't travel in a request: exit 2, and they don't reach the terminal."""
    refusal = running.tell(*arguments)
    assert refusal.code == 2
    assert "is not UTF-8" in refusal.message
    assert NO_TEXT not in refusal.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tasks", "--limit", "0"), "x>=1"),
        (("tasks", "--status", "sleeping"), "waiting_human"),
        (("watch", "--from", "-1"), "0<=x<=9223372036854775807"),
        (("watch", "--from", str(1 << 70)), "0<=x<=9223372036854775807"),
        (("stop", "--timeout", "nan"), "0 to 1000000 seconds"),
        (("stop", "--timeout", "-1"), "0 to 1000000 seconds"),
        (("resolve", "taaaaaaaaaaaaaaaa", "maybe"), "did_not"),
        (("submit",), "OBJECTIVE"),
        (("frobnicate",), "No such command"),
        (("status", "--frobnicate"), "No such option"),
    ],
)
def test_command_refuses_an_option_when_it_is_out_of_range(
    running: Home, arguments: tuple[str, ...], words: str
) -> None:
    """Exit 2 with the range or the choices; the supervisor is not even asked."""
    refusal = running.tell(*arguments)
    assert refusal.code == 2
    assert words in refusal.err


def test_command_answers_when_the_terminal_s_encoding_is_poor(running: Home) -> None:
    """An old locale can't show every character: they are written out, the exit code is the same."""
    refusal = attempt(COMMAND, "--home", str(running.path), "show", "té…", env={"PYTHONIOENCODING": "ascii"})
    assert refusal.code == 3
    assert "t\\xe9\\u2026" in refusal.message


HOMELESS = """
import os, sys
from homeostat.supervisor.cli import main, status  # before the interpreter's own folder may be out of reach
import homeostat.proto.client
os.setuid(63_999)
sys.exit(main.run(["status"]))
"""


@pytest.mark.root
def test_command_asks_for_a_home_when_its_user_has_none() -> None:
    """A uid without an entry, without HOME: exit 7 and the option to give."""
    refusal = attempt("/usr/bin/env", "-i", sys.executable, "-c", HOMELESS)
    assert refusal.code == 7
    assert "--home DIR" in refusal.message
