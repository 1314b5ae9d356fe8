"""``homeostat diff`` and ``rewind``: what they ask for, and what they say."""

from __future__ import annotations

import json

from homeostat.proto import wire
from tests.fakes.wire_gate import WireGate
from tests.unit.cli.conftest import Command

CHANGES = [
    {"kind": "renamed", "type": "file", "path": "new", "size": 3, "mode": 0o644, "source": "old"},
    {"kind": "deleted", "type": "dir", "path": "d\x1b[2J", "size": 0, "mode": 0o755, "source": ""},
]


def one_call(text: str = "", trouble: str = "") -> wire.Diffs:
    """A step of one staged call that changed three paths, two of which were kept."""
    call = wire.CallDiff(
        index=0,
        tool="shell.run",
        key="k" * 32,
        status="ok",
        diff={"changes": CHANGES, "total": 3},
        text=text,
        trouble=trouble,
    )
    return wire.Diffs(task="t1", step=4, calls=[call])


def test_diff_prints_the_summary_and_the_text(command: Command, gate: WireGate) -> None:
    """Renames with both names, how many more there are, then the text; nothing steers the terminal."""
    gate.answers[wire.Diff] = one_call("--- a/x\n+++ b/x\n+evil\x1b[31m\n")
    ran = command("diff", "t1", "4")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0] == "call 0  shell.run  ok  3 changes"
    assert "old -> new" in ran.out
    assert "… 1 more" in lines
    assert lines[-1] == "+evil\\x1b[31m"
    assert "\x1b" not in ran.out
    asked = gate.requests[-1]
    assert isinstance(asked, wire.Diff)
    assert (asked.task, asked.step) == ("t1", 4)


def test_diff_says_why_there_is_no_text(command: Command, gate: WireGate) -> None:
    """The summary is there all the same."""
    gate.answers[wire.Diff] = one_call(trouble="the task has ended")
    out = command("diff", "t1", "4").out
    assert "old -> new" in out
    assert out.endswith("[no text: the task has ended]\n")
    gate.answers[wire.Diff] = one_call("+x\n", "cut after 3 bytes")
    assert command("diff", "t1", "4").out.endswith("[not all of the text: cut after 3 bytes]\n")
    gate.answers[wire.Diff] = wire.Diffs(task="t1", step=4, calls=[])
    assert command("diff", "t1", "4").out == "step 4 of t1 changed no files\n"


def test_diff_gives_programs_everything(command: Command, gate: WireGate) -> None:
    """As the gate said it."""
    gate.answers[wire.Diff] = one_call("+x\n")
    answer = json.loads(command("diff", "t1", "4", "--json").out)
    assert answer.keys() == {"task", "step", "calls"}
    assert answer["calls"][0]["diff"]["changes"] == CHANGES
    assert answer["calls"][0]["text"] == "+x\n"


def test_rewind_says_what_cannot_be_taken_back(command: Command, gate: WireGate) -> None:
    """Where the task is now, and the effects that stay."""
    gate.answers[wire.Rewind] = wire.Rewound(
        task="t1", status="running", to_step=2, branch=1, kept=["step 3: http.request"]
    )
    ran = command("rewind", "t1", "--to", "2")
    assert ran.code == 0
    assert ran.out == (
        "t1 is again where it was after step 2; it is running\ncan't be taken back:\n  step 3: http.request\n"
    )
    asked = gate.requests[-1]
    assert isinstance(asked, wire.Rewind)
    assert (asked.task, asked.to_step) == ("t1", 2)
    answer = json.loads(command("rewind", "t1", "--to", "-1", "--json").out)
    assert answer.keys() == {"task", "status", "to_step", "branch", "kept"}


def test_rewind_exits_3_with_the_paths_when_it_is_refused(command: Command, gate: WireGate) -> None:
    """Nothing was taken back, and what stands in the way is named."""
    gate.answers[wire.Rewind] = wire.Refused(
        code="changed_since",
        message="nothing was taken back: changed by something else since: a",
        field="to_step",
    )
    ran = command("rewind", "t1", "--to", "2")
    assert ran.code == 3
    assert "changed by something else since: a" in ran.err


def test_rewind_wants_a_step(command: Command, gate: WireGate) -> None:
    """It has no default: what is taken back is for a person to say."""
    assert command("rewind", "t1").code == 2
    assert command("rewind", "t1", "--to", "-2").code == 2
    assert gate.requests == []
