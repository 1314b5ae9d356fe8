"""Plans: what is read, and what each mistake is told as."""

from __future__ import annotations

from pathlib import Path

import pytest

from homeostat.proto.errors import PlanError
from homeostat.supervisor import plan

GOOD = """on_error = "continue"

[[step]]
thought = "see what is here"
tool = "file.list"
[step.args]
path = "."

[[step]]
thought = "count"
tool = "shell.run"
args = { command = "wc -l *" }
"""


def test_plan_reads_its_steps() -> None:
    """Both ways to write arguments, and the default for none."""
    read = plan.parse(GOOD)
    assert read.on_error == "continue"
    assert [(step.tool, step.args) for step in read.step] == [
        ("file.list", {"path": "."}),
        ("shell.run", {"command": "wc -l *"}),
    ]
    assert plan.parse('[[step]]\nthought = "a"\ntool = "task.note"').step[0].args == {}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('thought = "count"\n', "", "p.toml:9: step 1: thought: missing"),
        ('thought = "count"', 'thought = " "', "p.toml:10: step 1: thought: empty"),
        ('thought = "count"', "thought = 7", "p.toml:10: step 1: thought: integer"),
        ('tool = "shell.run"', 'tool = "shell.run"\ntols = 1', "p.toml:12: step 1: tols: unknown key"),
        ('path = "."', "path = 2020-01-01", "p.toml:7: step 0: args.path: a date or time"),
        ('path = "."', "path = [1, nan]", "p.toml:7: step 0: args.path[1]: not a finite number"),
        ('path = "."', f"path = {2**63}", "p.toml:7: step 0: args.path: an integer of more than 64 bits"),
        ("args = { command", "args = 3\nx = { command", "step 1: x: unknown key"),
        ('"continue"', '"maybe"', "p.toml:1: on_error: 'maybe'"),
        ("on_error", "on_eror", "p.toml:1: on_eror: unknown key"),
        ('tool = "file.list"', "tool = ", "p.toml: not TOML"),
    ],
)
def test_plan_names_file_line_and_step_when_wrong(old: str, new: str, words: str) -> None:
    """One sentence a mistake."""
    assert old in GOOD
    with pytest.raises(PlanError) as caught:
        plan.parse(GOOD.replace(old, new, 1), "p.toml")
    assert words in caught.value.diagnostics()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "step = []", "step = 3", "[step]\nthought = 'a'"])
def test_plan_is_refused_when_it_has_no_steps(text: str) -> None:
    """A plan without steps does nothing, and is a mistake."""
    with pytest.raises(PlanError):
        plan.parse(text)


def test_plan_is_refused_when_nested_without_end() -> None:
    """Thousands of brackets are a message, not a traceback."""
    with pytest.raises(PlanError):
        plan.parse("step = " + "[" * 100_000)


def test_plan_is_refused_when_unreadable(tmp_path: Path) -> None:
    """A missing file, a folder, bytes that are not UTF-8, and a file beyond the limit."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(plan.LIMIT_BYTES + 1)
    (tmp_path / "folder").mkdir()
    for name in ("missing", "folder", "bytes", "large"):
        with pytest.raises(PlanError, match=name):
            plan.load(tmp_path / name)


def test_place_gives_the_line_of_the_step_that_the_gate_names(tmp_path: Path) -> None:
    """Steps count from 0; what has no line of its own is the file."""
    path = tmp_path / "p.toml"
    path.write_text(GOOD)
    assert plan.place(path, "plan.step[0]") == f"{path}:3"
    assert plan.place(path, "plan.step[1].args") == f"{path}:9"
    for field in ("plan", "plan.step[2]"):
        assert plan.place(path, field) == str(path)
