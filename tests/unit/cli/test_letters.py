"""``homeostat letters``: a table for people, JSON for programs, and nothing that steers a terminal."""

from __future__ import annotations

import json

from homeostat.proto import wire
from tests.fakes.wire_gate import WireGate
from tests.unit.cli.conftest import Command


def letter(number: int, **fields: object) -> wire.LetterView:
    """One letter."""
    common = {"at_ns": 1_790_000_000_000_000_000, "reason": "undecodable", "sender": "brain.0.1"}
    view: wire.LetterView = wire.LetterView(
        **{"number": number, "size_bytes": 9, "data": "\\xc1x", **common, **fields}  # type: ignore[arg-type]
    )
    return view


def test_letters_prints_a_row_each(gate: WireGate, command: Command) -> None:
    """Reason, sender, what it was about, its bytes; hostile words are written out."""
    hostile = letter(7, sender="a\x1b[2Jb\u202e", detail="why", subject="propose t 5", times=3)
    gate.answers[wire.Letters] = wire.DeadLetters(letters=[hostile, letter(6, unkept=12)])
    ran = command("letters")
    assert ran.code == 0
    heading, first, second, more = ran.out.splitlines()
    assert heading.split()[0] == "NUMBER"
    assert "undecodable, 3 times" in first
    assert "propose t 5; why" in first
    assert "\\xc1x" in second
    assert "12 more" in more
    assert "\x1b" not in ran.out
    assert "\u202e" not in ran.out


def test_letters_gives_json_when_asked(gate: WireGate, command: Command) -> None:
    """All fields, under the names of the wire."""
    gate.answers[wire.Letters] = wire.DeadLetters(letters=[letter(7)])
    (found,) = json.loads(command("letters", "--json", "--limit", "5").out)["letters"]
    assert set(found) == set(wire.LetterView.__struct_fields__)
    request = gate.requests[-1]
    assert isinstance(request, wire.Letters)
    assert request.limit == 5


def test_letters_says_so_when_there_is_none(gate: WireGate, command: Command) -> None:
    """An empty table would look like an error."""
    assert gate.requests == []
    assert command("letters").out == "no dead letters\n"


def test_letters_shows_the_refusal_when_it_is_refused(gate: WireGate, command: Command) -> None:
    """With its remedy, and the exit code of a refusal."""
    gate.answers[wire.Letters] = wire.Refused(code="local_only", message="no", remedy="Ask there.")
    ran = command("letters")
    assert ran.code != 0
    assert "local_only" in ran.err
    assert "Ask there." in ran.err
