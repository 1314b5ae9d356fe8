"""Each command against a gate and a supervisor: what it prints, and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from homeostat.proto import wire
from homeostat.supervisor import control
from homeostat.supervisor.cli.ending import exit_code
from tests.fakes.wire_gate import WireGate
from tests.unit.cli.conftest import Command

PLAN = '[[step]]\nthought = "look"\ntool = "file.list"\n'


def end_soon(gate: WireGate, status: str) -> None:
    """Let the first task move to a status while a command waits for it."""

    def end() -> None:
        while not gate.tasks:
            time.sleep(0.005)
        gate.record(next(iter(gate.tasks)), "status", status=status, reason="so it is", result="")

    threading.Thread(target=end, daemon=True).start()


def test_submit_prints_the_id_alone(gate: WireGate, command: Command, tmp_path: Path) -> None:
    """The id is all that a script has to read; the plan and the workspace reach the gate."""
    (tmp_path / "p.toml").write_text(PLAN)
    (tmp_path / "link").symlink_to(tmp_path)
    ran = command(
        "submit", "--plan", str(tmp_path / "p.toml"), "--workspace", str(tmp_path / "link"), "count"
    )
    assert ran.code == 0
    assert ran.out.strip() in gate.tasks
    request = gate.requests[-1]
    assert isinstance(request, wire.Submit)
    assert request.plan is not None
    assert request.plan.step[0].tool == "file.list"
    assert request.workspace == str(tmp_path)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("done", 0),
        ("failed", 1),
        ("cancelled", 5),
        ("in_doubt", 6),
        ("waiting_human", 6),
        ("waiting_approval", 6),
    ],
)
def test_submit_wait_exits_by_status(gate: WireGate, command: Command, status: str, code: int) -> None:
    """The contract's exit codes; progress is on stderr, so that stdout stays the id."""
    end_soon(gate, status)
    ran = command("submit", "--wait", "count")
    assert ran.code == code
    assert ran.out.strip() in gate.tasks
    assert f"task is {status}: so it is" in ran.err


def test_submit_wait_json_is_one_value(gate: WireGate, command: Command) -> None:
    """A program parses stdout as a whole."""
    end_soon(gate, "done")
    ran = command("submit", "--wait", "--json", "count")
    assert json.loads(ran.out)["status"] == "done"


def test_quarantined_counts_as_failed() -> None:
    """It has ended, and it is not done."""
    assert exit_code("quarantined") == 1


def test_submit_shows_the_gates_refusal(gate: WireGate, command: Command) -> None:
    """Code, message, expectation, remedy and the time to come back; exit 3."""
    gate.answers[wire.Submit] = wire.Refused(
        code="overloaded", message="too many open tasks", expected="fewer", remedy="wait", retry_after_s=2.5
    )
    ran = command("submit", "count")
    assert ran.code == 3
    assert ran.out == ""
    for words in ("overloaded", "too many open tasks", "expected fewer", "wait", "2.5 s"):
        assert words in ran.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("submit",), "OBJECTIVE"),
        (("submit", "--plan", "/nowhere.toml", "x"), "/nowhere.toml"),
        (("submit", "--workspace", "/nowhere", "x"), "No such file"),
        (("submit", "--workspace", "/etc/passwd", "x"), "not a directory"),
        (("nonsense",), "nonsense"),
        (("watch", "--from", "x"), "--from"),
        (("resolve", "t", "perhaps"), "perhaps"),
    ],
)
def test_commands_exit_2_when_used_wrongly(
    gate: WireGate, command: Command, arguments: tuple[str, ...], words: str
) -> None:
    """One message, nothing sent."""
    ran = command(*arguments)
    assert ran.code == 2
    assert words in ran.err
    assert gate.requests == []


@pytest.mark.parametrize("name", ["status", "stop", "tasks", "watch"])
def test_commands_exit_4_when_there_is_no_supervisor(command: Command, name: str) -> None:
    """The remedy is named."""
    ran = command(name)
    assert ran.code == 4
    assert "homeostat run" in ran.err


def test_home_is_taken_after_the_command_too(gate: WireGate, command: Command, tmp_path: Path) -> None:
    """The option nearest to the command wins."""
    assert command("tasks", "--home", str(tmp_path / "other")).code == 4
    assert command("tasks", "--home", str(tmp_path)).code == 0


def test_home_is_taken_from_the_environment(
    gate: WireGate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$HOMEOSTAT_HOME, where no option is given."""
    from homeostat.supervisor.cli.main import run

    monkeypatch.setenv("HOMEOSTAT_HOME", str(tmp_path))
    assert run(["tasks", "--json"]) == 0


def test_show_json_is_the_contract(gate: WireGate, command: Command) -> None:
    """All pages, with the names that others script against."""
    gate.add_task("t1", steps=3, status="done")
    shown = json.loads(command("--json", "show", "t1").out)
    assert {"task", "status", "objective", "steps"} <= shown.keys()
    assert [step["step"] for step in shown["steps"]] == [1, 2, 3]
    call = shown["steps"][0]["calls"][0]
    assert {"tool", "args", "class", "key", "verdict", "reason", "outcome"} <= call.keys()
    assert {"status", "exit_code", "text", "artifact", "diff", "duration_s"} <= call["outcome"].keys()


def test_show_keeps_a_models_control_characters_off_the_terminal(gate: WireGate, command: Command) -> None:
    """An escape sequence in a thought or an output is written out."""
    gate.add_task("t1", status="done")
    outcome = wire.OutcomeView(status="ok", text="\x1b]0;owned\x07 fine \u202e")
    call = wire.CallView(tool="shell.run\x1b[2J", args={"command": "\x9b2J"}, thought="t", outcome=outcome)
    gate.steps["t1"] = [wire.StepView(step=1, thought="\x1b[31mred", calls=[call])]
    out = command("show", "t1").out
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(out)
    assert "\\x1b[31mred" in out


def test_tasks_lists_rows(gate: WireGate, command: Command) -> None:
    """As columns and as JSON, filtered by status."""
    gate.add_task("t1", status="done")
    gate.add_task("t2")
    assert "t1" in command("tasks").out
    rows = json.loads(command("tasks", "--status", "running", "--json").out)["tasks"]
    assert [row["task"] for row in rows] == ["t2"]


def test_watch_gives_json_lines_from_a_cursor(gate: WireGate, command: Command) -> None:
    """Each line is an event with its position."""
    gate.add_task("t1")
    gate.record(
        "t1", "proposed", step=1, text="", calls=[{"tool": "task.note", "args": {}, "thought": "why"}]
    )
    gate.record("t1", "somethingnew", step=1, colour="green")
    gate.record("t1", "status", status="done", reason="", result="")
    lines = [json.loads(text) for text in command("watch", "t1", "--from", "1", "--json").out.splitlines()]
    assert [line["position"] for line in lines] == [2, 3]
    out = command("watch", "t1").out
    assert 'proposed task.note  "why"' in out
    assert "colour=green" in out


def test_cancel_and_resolve_say_the_new_status(gate: WireGate, command: Command) -> None:
    """What the gate answered, for people and for programs."""
    gate.add_task("t1")
    assert command("cancel", "t1", "--reason", "enough").out == "t1 is cancelled\n"
    gate.add_task("t2")
    assert json.loads(command("resolve", "t2", "happened", "--key", "k", "--json").out)["task"] == "t2"


def test_resolve_asks_for_the_key_when_there_is_no_doubt(gate: WireGate, command: Command) -> None:
    """Nothing is guessed."""
    gate.add_task("t1")
    ran = command("resolve", "t1", "happened")
    assert ran.code == 2
    assert "no effect in doubt" in ran.err


def test_trace_shows_stages(gate: WireGate, command: Command) -> None:
    """A step's stages add up to what lay between its events."""
    gate.add_task("t1")
    call = {"tool": "shell.run", "args": {}, "thought": "why"}
    gate.record("t1", "accepted", agent="default", objective="count")
    gate.record("t1", "status", status="running", reason="")
    gate.record("t1", "proposed", step=1, calls=[call])
    gate.record("t1", "decided", step=1, index=0, phase="call", verdict="admit", reason="")
    gate.record("t1", "staged", step=1, index=0, diff={})
    gate.record("t1", "decided", step=1, index=0, phase="commit", verdict="admit", reason="")
    gate.record("t1", "outcome", step=1, index=0, status="ok", exit_code=0)
    gate.record("t1", "status", status="done", reason="")
    trace = json.loads(command("trace", "t1", "--json").out)
    stages = dict.fromkeys(("think", "decide", "execute", "review", "merge"), 0.001)
    assert trace["stages_s"] == {**stages, "think": 0.002}
    (step,) = trace["span"]["children"]
    assert [stage["name"] for stage in step["children"][1]["children"]] == [
        "decide",
        "execute",
        "review",
        "merge",
    ]
    assert not trace["span"]["open"]
    assert "└─ merge" in command("trace", "t1").out


def test_status_merges_both_halves(
    gate: WireGate, supervisor: list[control.Request], command: Command
) -> None:
    """The contract's JSON: processes from the supervisor, tasks from the gate."""
    picture = json.loads(command("status", "--json").out)
    assert picture["ready"] is True
    (worker,) = picture["workers"]
    told = {"role": "gate", "index": 0, "pid": 11, "epoch": 3, "state": "ready", "restarts": 1}
    assert worker.items() >= told.items()
    assert worker.keys() >= {"crashes", "phase", "spare", "enforced", "serving_s", "memory_bytes"}
    assert picture["tasks"] == {"open": 0, "done": 0}
    assert picture["metrics"].startswith("http://")
    assert "gate.0" in command("status").out


def test_status_is_not_ready_when_the_gate_is_silent(
    gate: WireGate, supervisor: list[control.Request], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restarting gate is a state, not an error."""
    monkeypatch.setattr("homeostat.supervisor.cli.status.GATE_PATIENCE_S", 0.2)
    gate.drop = 10
    ran = command("status", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["ready"] is False


def test_stop_returns_when_the_supervisor_is_gone(
    supervisor: list[control.Request], command: Command
) -> None:
    """It asks once, and waits for silence where the process can't be seen."""
    assert command("stop").code == 0
    assert sum(isinstance(request, control.Stop) for request in supervisor) == 1


def test_unforeseen_errors_go_to_a_log(
    gate: WireGate, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 70, one line, and the traceback in a file under the home."""
    (tmp_path / "log").mkdir()
    monkeypatch.setattr("homeostat.proto.client.Client.list", None)
    ran = command("tasks")
    assert ran.code == 70
    assert str(tmp_path / "log") in ran.err
    (log,) = (tmp_path / "log").iterdir()
    assert "Traceback" in log.read_text()


def test_output_to_a_closed_pipe_is_no_error(gate: WireGate, tmp_path: Path) -> None:
    """`| head` may stop reading."""
    for number in range(2_000):
        gate.add_task(f"t{number}")
    homeostat = [sys.executable, "-m", "homeostat.supervisor.cli.main", "--home", str(tmp_path), "tasks"]
    with subprocess.Popen(
        [*homeostat, "--limit", "2000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_status_imports_no_rich(gate: WireGate, tmp_path: Path) -> None:
    """What a command does not use, it does not import: start time."""
    probe = (
        "import sys; from homeostat.supervisor.cli.main import run; run(['--home', sys.argv[1], 'status']);"
        "print(sorted({'rich', 'asyncio', 'urllib3', 'lmdb', 'prometheus_client'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_watch_without_a_task_begins_now(gate: WireGate, command: Command, tmp_path: Path) -> None:
    """History is given where it is asked for; what comes after the command is shown."""
    gate.add_task("t1")
    gate.record("t1", "task.old", step=1)
    line = [sys.executable, "-m", "homeostat.supervisor.cli.main", "--home", str(tmp_path), "watch", "--json"]
    for more, position in (([], 2), (["--from", "0"], 1)):
        with subprocess.Popen([*line, *more], stdout=subprocess.PIPE, text=True) as process:
            while not any(isinstance(request, wire.Watch) for request in gate.requests):
                time.sleep(0.005)
            gate.record("t1", "task.new", step=1)
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["position"] == position
            process.terminate()
        gate.requests.clear()


def test_cancel_says_that_an_open_call_is_still_being_ended(gate: WireGate, command: Command) -> None:
    """`t1 is running` would be true, and no answer."""
    gate.add_task("t1")
    gate.answers[wire.Cancel] = wire.Cancelled(task="t1", status="running")
    assert command("cancel", "t1").out == "cancellation of t1 requested; its open call is being ended\n"
    assert json.loads(command("cancel", "t1", "--json").out) == {"task": "t1", "status": "running"}


def test_watch_says_who_cancelled_once(gate: WireGate, command: Command) -> None:
    """The reason that the gate makes up where nobody gave one is not repeated."""
    gate.add_task("t1")
    gate.record("t1", "cancel_requested", by="local", reason="cancelled by local")
    gate.record("t1", "status", status="cancelled", reason="cancelled by local", result="")
    out = command("watch", "t1").out
    assert "local asks to cancel\n" in out
    assert "task is cancelled: by local\n" in out


def test_a_doubt_names_the_next_command(gate: WireGate, command: Command) -> None:
    """In `show`, `watch` and `submit --wait`."""
    next_command = "homeostat resolve {} happened|did_not|fail"
    end_soon(gate, "in_doubt")
    ran = command("submit", "--wait", "count")
    task = ran.out.strip()
    assert next_command.format(task) in ran.err
    gate.record(task, "status", status="failed", reason="", result="")
    assert next_command.format(task) in command("watch", task).out
    gate.tasks[task] = msgspec.structs.replace(gate.tasks[task], status="in_doubt", in_doubt=["k1", "k2"])
    assert next_command.format(task) + " --key k1\n" in command("show", task).out


def test_show_lists_changes_rules_and_where_the_output_is(
    gate: WireGate, command: Command, tmp_path: Path
) -> None:
    """The first ten paths; one change is one; no exit code of a file tool; no time of a note."""
    gate.add_task("t1", status="done")

    def call(tool: str, total: int = 0, rule: str = "", **outcome: Any) -> wire.CallView:
        changes = [
            {"kind": "create", "type": "file", "path": f"f{n}", "size": n, "mode": 0} for n in range(total)
        ]
        diff = {"total": total, "changes": changes[:11]} if total else None
        ended = wire.OutcomeView(status="ok", diff=diff, **outcome)
        return wire.CallView(
            tool=tool, args={}, thought="t", klass="staged", verdict="admit", rule=rule, outcome=ended
        )

    calls = [
        call("shell.run", 13, "own-workspace", exit_code=0, duration_s=0.5, artifact="ab" * 32),
        call("file.write", 1, exit_code=0, duration_s=0.01),
        call("task.note"),
    ]
    gate.steps["t1"] = [wire.StepView(step=0, thought="t", calls=calls)]
    out = command("show", "t1").out
    for words in (
        "admit (staged): rule own-workspace\n",
        "    ok (exit 0) in 500.0 ms\n",
        "    13 changes\n",
        "      create file  f9, 9 bytes\n      … 3 more\n",
        f"{tmp_path}/artifacts/ab/{'ab' * 32}\n",
        "    admit (staged)\n    ok in 10.0 ms\n    1 change\n      create file  f0, 0 bytes\n",
        "    admit (staged)\n    ok\n",
    ):
        assert words in out, out


def test_outcome_of_a_file_tool_has_no_exit_code(gate: WireGate, command: Command) -> None:
    """Which tool it was is remembered from the proposal."""
    gate.add_task("t1")
    calls = [
        {"tool": "file.read", "args": {}, "thought": ""},
        {"tool": "shell.run", "args": {}, "thought": ""},
    ]
    gate.record("t1", "proposed", step=0, calls=calls)
    for index in (0, 1):
        gate.record("t1", "outcome", step=0, index=index, status="error", exit_code=1, duration_s=0.0)
    gate.record("t1", "status", status="done", reason="", result="")
    out = command("watch", "t1").out
    assert "step 0   error\n" in out
    assert "step 0   error (exit 1)\n" in out


def test_submit_names_the_plans_file_and_line_when_the_gate_refuses_it(
    gate: WireGate, command: Command, tmp_path: Path
) -> None:
    """The gate knows a step; a person has a file."""
    path = tmp_path / "p.toml"
    path.write_text(PLAN + PLAN)
    gate.answers[wire.Submit] = wire.Refused(code="bad_plan", message="step 1: no", field="plan.step[1]")
    assert f"{path}:4: step 1: no" in command("submit", "--plan", str(path), "x").err


@pytest.mark.parametrize("name", ["status", "stop", "tasks", "watch", "show", "cancel", "submit", "trace"])
def test_commands_say_whom_to_ask_when_the_socket_is_closed_to_them(
    gate: WireGate, supervisor: list[control.Request], command: Command, tmp_path: Path, name: str
) -> None:
    """Another user than the supervisor's gets one wording, exit 7."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)
    else:
        (tmp_path / "run").chmod(0)
    try:
        ran = command(name, *([] if name in ("status", "stop", "tasks", "watch") else ["t1"]))
    finally:
        if root:
            os.seteuid(0)
        else:
            (tmp_path / "run").chmod(0o700)
    assert ran.code == 7
    assert "permission denied" in ran.err
    assert "Ask as the user who runs the supervisor." in ran.err


@pytest.mark.root
def test_commands_name_another_home_to_root_when_run_would_refuse_this_one(command: Command) -> None:
    """A hint that leads to the next refusal is none."""
    with tempfile.TemporaryDirectory(prefix="hs-hint-") as closed:
        for name in ("status", "tasks"):
            said = command(name, "--home", f"{closed}/h").err
            assert "Start it with `homeostat run --home /var/lib/homeostat`" in said
        Path(closed).chmod(0o755)
        for name in ("status", "tasks"):
            said = command(name, "--home", f"{closed}/h").err
            assert f"Start it with `homeostat run --home {closed}/h`." in said
