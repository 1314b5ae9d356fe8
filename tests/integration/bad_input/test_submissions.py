"""Submissions that are no good, to a running home: refused in words, and nothing else is disturbed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import zmq
from msgspec import msgpack

from homeostat.proto.client import Client, WireRefusedError
from homeostat.proto.records import Plan, PlanStep
from tests.integration.bad_input.stand import COMMAND_UID, NOTE, Home

GOOD = '[[step]]\nthought = "Keep it."\ntool = "task.note"\n[step.args]\ntext = "kept"\n'
STEP = {"thought": "Keep it.", "tool": "task.note", "args": {"text": "kept"}}


def submit(home: Home, root: Path, plan: str | bytes, *more: str) -> tuple[int, str]:
    """Submit a plan that must be refused: exit code and the one message; no task may come of it."""
    path = root / "plan.toml"
    path.write_bytes(plan.encode() if isinstance(plan, str) else plan)
    before = home.tasks()
    refusal = home.tell("submit", "--plan", str(path), *more, "it must be refused")
    assert refusal.out == ""
    assert home.tasks() == before
    return refusal.code, refusal.message


@pytest.mark.parametrize(
    ("plan", "line", "words"),
    [
        (GOOD + '[[step]]\ntool = "task.note"\n', 6, ("step 1: thought", "missing", "expected text")),
        (GOOD.replace('"Keep it."', '"  "'), 2, ("step 0: thought", "empty")),
        (GOOD.replace('"Keep it."', "7"), 2, ("step 0: thought", "integer", "expected text")),
        (GOOD.replace("tool =", "tol ="), 3, ("step 0: tol", "unknown key", "thought, tool")),
        ("on_eror = 1\n" + GOOD, 1, ("on_eror", "unknown key")),
        ('on_error = "explode"\n' + GOOD, 1, ("on_error", "explode", '"stop" or "continue"')),
        (GOOD.replace("[step.args]\ntext", "args"), 4, ("step 0: args", "expected a table")),
        (GOOD.replace('"kept"', "2026-01-01"), 5, ("step 0: args.text", "date")),
        ("", 1, ("step", "no steps", "one or more [[step]]")),
        ("step = 7\n", 1, ("step", "not a list of steps")),
    ],
)
def test_submit_refuses_a_plan_when_its_form_is_wrong(
    running: Home, root: Path, plan: str, line: int, words: tuple[str, ...]
) -> None:
    """Exit 2 with file, line, step, what was expected and how a step looks."""
    code, message = submit(running, root, plan)
    assert code == 2
    assert f"plan.toml:{line}: " in message
    for word in (*words, "A step is [[step]]"):
        assert word in message


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (b"[[step\n", ("plan.toml", "not TOML", "line 1")),
        (b"\xff\xfe", ("plan.toml", "UTF-8")),
        (b"a = " + b"[" * 50_000, ("plan.toml", "nested too deeply")),
        (GOOD.encode() + b"#" * (100 << 20), ("plan.toml", "larger than a plan may be", "4194304 bytes")),
    ],
)
def test_submit_refuses_a_plan_when_it_can_not_be_read(
    running: Home, root: Path, plan: bytes, words: tuple[str, ...]
) -> None:
    """Exit 2: no TOML, no text, or 100 MB."""
    code, message = submit(running, root, plan)
    assert code == 2
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (GOOD + GOOD.replace("task.note", "task.nope"), ("bad_plan", "step 1", "task.nope", "PROTOCOL.md")),
        (GOOD.replace("text =", "txt ="), ("bad_plan", "step 0 (task.note)", "txt")),
        (GOOD.replace('"kept"', "7"), ("bad_plan", "step 0 (task.note)", "text", "7")),
        (GOOD.replace("[step.args]\n", "#").replace("text =", "#"), ("bad_plan", "step 0", "text")),
        (GOOD.replace('"kept"', '"' + "x" * 300_000 + '"'), ("bad_plan", "step 0", "262144")),
        (GOOD.replace("Keep it.", "x" * 30_000), ("bad_plan", "step 0", "thought", "20000")),
        (GOOD * 201, ("limit", "max_steps", "200")),
    ],
)
def test_submit_refuses_a_plan_when_the_gate_would_not_admit_it(
    running: Home, root: Path, plan: str, words: tuple[str, ...]
) -> None:
    """Exit 3 with the code, the step and what is wrong with it."""
    code, message = submit(running, root, plan)
    assert code == 3
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--agent", "nobody"), 3, ("unknown_agent", "nobody", "default")),
        (("--key", "k" * 201), 3, ("too_large", "key", "200")),
        (("--workspace", "/nowhere/at/all"), 2, ("--workspace /nowhere/at/all", "No such file")),
        (("--workspace", "/etc/passwd"), 2, ("--workspace /etc/passwd", "not a directory")),
    ],
)
def test_submit_refuses_an_option_when_it_is_wrong(
    running: Home, root: Path, arguments: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    """The option or field, and what would have been right."""
    given, message = submit(running, root, GOOD, *arguments)
    assert given == code
    for word in words:
        assert word in message


def test_submit_refuses_an_objective_when_it_is_too_long(running: Home) -> None:
    """As long as an argument can be; exit 3 with the limit."""
    refusal = running.tell("submit", "x" * 120_000)
    assert refusal.code == 3
    assert "too_large" in refusal.message
    assert "120000" in refusal.message
    assert "100000" in refusal.message


def test_client_library_raises_when_a_submission_has_100_megabytes(running: Home) -> None:
    """The gate's own words reach the program."""
    with Client.for_home(running.path) as client:
        with pytest.raises(WireRefusedError) as refused:
            client.submit("x" * (100 << 20), plan=NOTE)
        assert "4194304" in refused.value.diagnostics()
        assert client.status().ready


def ask(home: Home, kind: int, data: bytes) -> dict[str, Any] | None:
    """One answer to bare bytes, None when there is none within a while."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(kind)
    try:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"ipc://{home.path}/run/client.sock")
        socket.send(data)
        if not socket.poll(20_000 if len(data) <= 128 << 20 else 1_500):
            return None
        answer: dict[str, Any] = msgpack.decode(socket.recv())
        return answer
    finally:
        socket.close()
        context.term()


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"v": 2}, "version", "v"),
        ({"colour": "green"}, "bad_field", "colour"),
        ({"objective": 7}, "bad_field", "objective"),
        ({"objective": None}, "bad_field", "objective"),
        ({"plan": {"step": []}}, "bad_plan", "plan"),
        ({"plan": {"step": [STEP], "on_error": "explode"}}, "bad_plan", "plan.on_error"),
        ({"plan": {"step": [{**STEP, "hurry": True}]}}, "bad_field", "plan.step"),
        ({"plan": {"step": [{**STEP, "args": {"text": b"bytes"}}]}}, "bad_plan", "plan.step[0].args"),
        ({"plan": {"step": [{**STEP, "thought": ""}]}}, "bad_plan", "plan.step[0]"),
        ({"plan": None}, "no_plan", "plan"),
        ({"limits": {"max_steps": 10_000}}, "limit", "limits.max_steps"),
        ({"limits": {"max_wall_s": 1e12}}, "limit", "limits.max_wall_s"),
        ({"limits": {"max_wall_s": float("nan")}}, "", "limits.max_wall_s"),
        ({"limits": {"call_timeout_s": -1}}, "", "limits.call_timeout_s"),
        ({"limits": {"max_stepz": 1}}, "bad_field", "limits"),
        ({"workspace": "not/absolute"}, "bad_field", "workspace"),
        ({"workspace": "/a\0b"}, "bad_field", "workspace"),
    ],
)
def test_gate_refuses_a_submit_when_a_field_is_wrong(
    running: Home, change: dict[str, Any], code: str, field: str
) -> None:
    """A typed refusal names the field, to a DEALER and to a REQ; no task comes of it."""
    good = {"type": "submit", "v": 1, "rid": "r", "objective": "must be refused", "plan": {"step": [STEP]}}
    before = running.tasks()
    for kind in (zmq.DEALER, zmq.REQ):
        answer = ask(running, kind, msgpack.encode({**good, **change}))
        assert answer is not None
        assert answer["type"] == "refused", answer
        assert code in ("", answer["code"]), answer
        assert answer["field"].startswith(field), answer
        assert answer["message"]
        assert "Traceback" not in str(answer)
    assert running.tasks() == before


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ], ids=["dealer", "req"])
def test_gate_refuses_100_megabytes_of_garbage(running: Home, kind: int) -> None:
    """Bytes that are no message at all, and far too many."""
    answer = ask(running, kind, b"\xc1" * (100 << 20))
    assert answer is not None
    assert (answer["type"], answer["code"]) == ("refused", "too_large")


def test_gate_hangs_up_on_more_than_it_would_ever_read(running: Home) -> None:
    """Beyond 128 MiB the connection is closed, as the page says; everyone else is served."""
    assert ask(running, zmq.DEALER, bytes(129 << 20)) is None
    assert running.tell("status").code == 0


@pytest.mark.parametrize("command", ["show", "watch", "cancel", "trace", "resolve"])
def test_command_refuses_a_task_when_there_is_none(running: Home, command: str) -> None:
    """Exit 3; the name is shown without what could steer a terminal."""
    for task in ("taaaaaaaaaaaaaaaa", "x" * 300, "t/../\x1b[2J"):
        refusal = running.tell(command, task, *(["happened"] if command == "resolve" else []))
        assert refusal.code == 3
        assert "unknown_task" in refusal.message or "not_open" in refusal.message
        assert "homeostat tasks lists them" in refusal.message
        assert "\x1b" not in refusal.err


def test_call_names_the_mend_when_its_workspace_is_another_users(running: Home, root: Path) -> None:
    """As root: commands work in folders of their own user; the outcome names the chown."""
    if os.geteuid() != 0:
        pytest.skip("an ordinary user's workspaces are that user's own")
    folder = root / "foreign"
    folder.mkdir()
    (root / "plan.toml").write_text(
        '[[step]]\nthought = "Write."\ntool = "shell.run"\n[step.args]\ncommand = "echo x > x"\n'
    )
    arguments = ("--plan", str(root / "plan.toml"), "--workspace", str(folder), "--wait", "--json", "write")
    ran = running.tell("submit", *arguments)
    assert ran.code == 1
    shown = json.loads(running.tell("show", json.loads(ran.out)["task"], "--json").out)
    outcome = shown["steps"][0]["calls"][0]["outcome"]
    assert outcome["status"] == "error"
    assert f"chown -R {COMMAND_UID}:{COMMAND_UID} {folder}" in outcome["text"]
    assert list(folder.iterdir()) == []


def test_call_is_refused_when_its_workspace_is_gone(running: Home, root: Path) -> None:
    """What was there at the submit may be away at the call: an outcome, not a crash."""
    plan = Plan(step=[PlanStep(thought="Look.", tool="file.list")])
    with Client.for_home(running.path) as client:
        task = client.submit("look", plan=plan, workspace=str(root / "gone")).task
    assert running.ends(task) == "failed"
    with Client.for_home(running.path) as client:
        outcome = client.show(task).steps[0].calls[0].outcome
    assert outcome is not None
    assert outcome.status == "error"
    assert f"{root}/gone is gone" in outcome.text
