"""``homeostat freeze`` and ``thaw``: what they ask for, how long they wait, what they say."""

from __future__ import annotations

import json

import pytest

from homeostat.proto.wire import Event
from homeostat.supervisor.cli.lines import Lines
from tests.fakes.wire_gate import WireGate
from tests.unit.cli.conftest import Command


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [((), ("all", "")), (("--agent", "a"), ("agent", "a")), (("--tool", "t"), ("tool", "t"))],
)
def test_freeze_and_thaw_name_the_same_thing(
    command: Command, gate: WireGate, arguments: tuple[str, ...], asked: tuple[str, str]
) -> None:
    """The options give scope and name; the thaw of the same ones lifts it."""
    assert command("freeze", *arguments, "--reason", "why").code == 0
    assert gate.frozen == {asked: "why"}
    assert command("thaw", *arguments).code == 0
    assert gate.frozen == {}


def test_freeze_waits_until_nothing_is_moving(command: Command, gate: WireGate) -> None:
    """It asks again until the gate says that all of it stands still; the JSON is that of the end."""
    gate.moving = 4
    ran = command("freeze", "--json")
    assert ran.code == 0
    answer = json.loads(ran.out)
    assert (answer["created"], answer["moving"]) == (True, 0)
    assert answer.keys() == {"scope", "name", "created", "since", "reason", "tasks", "moving"}


def test_freeze_exits_1_when_something_moves_on_beyond_its_time(command: Command, gate: WireGate) -> None:
    """It is frozen all the same, and says what is missing."""
    gate.moving = 1_000_000
    ran = command("freeze", "--timeout", "0")
    assert ran.code == 1
    assert "have not come to a stop" in ran.err
    assert gate.frozen


def test_thaw_of_what_is_not_frozen_says_so_and_what_is(command: Command, gate: WireGate) -> None:
    """Exit 0: what was asked for is so."""
    command("freeze", "--agent", "a")
    ran = command("thaw")
    assert (ran.code, len(gate.frozen)) == (0, 1)
    assert ran.out.startswith("everything was not frozen; nothing to do\n  still frozen: agent a since ")
    answer = json.loads(command("thaw", "--json").out)
    assert answer["changed"] is False
    assert [(view["scope"], view["name"]) for view in answer["frozen"]] == [("agent", "a")]


@pytest.mark.parametrize("name", ["freeze", "thaw"])
@pytest.mark.parametrize("arguments", [("--agent", ""), ("--tool", ""), ("--agent", "a", "--tool", "t")])
def test_freeze_of_nothing_in_particular_is_a_mistake(
    command: Command, gate: WireGate, name: str, arguments: tuple[str, ...]
) -> None:
    """An unset variable of a script must not mean everything."""
    ran = command(name, *arguments)
    assert ran.code == 2
    assert gate.frozen == {}


def test_freeze_takes_no_endless_timeout(command: Command, gate: WireGate) -> None:
    """As every other bound, it has one of its own."""
    assert command("freeze", "--timeout", "nan").code == 2
    assert gate.frozen == {}


def test_watch_tells_both_in_words() -> None:
    """Who, of what, why."""
    data = {"scope": "agent", "name": "a", "by": "local", "reason": "why"}
    line = Lines()
    assert line(Event(position=1, task="", kind="frozen", at_ns=0, data=data)).endswith(
        "frozen by local: agent a (why)"
    )
    all_of_it = {**data, "scope": "all", "name": "", "reason": ""}
    assert line(Event(position=2, task="", kind="thawed", at_ns=0, data=all_of_it)).endswith(
        "thawed by local: everything"
    )
