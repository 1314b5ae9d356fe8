"""The command line, the bare client and the whole system behind them."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.integration.cli.conftest import Command, command_line

EXAMPLES = Path(__file__).parents[3] / "ops" / "examples"
PLAN = """
[[step]]
thought = "count the lines"
tool = "shell.run"
[step.args]
command = "wc -l < a.txt > count.txt; cat count.txt"

[[step]]
thought = "note it"
tool = "task.note"
[step.args]
text = "counted"
"""


def write(folder: Path, text: str) -> str:
    """A plan file."""
    path = folder.parent / f"{folder.name}.toml"
    path.write_text(text)
    return str(path)


def test_submit_wait_carries_a_plan_out(command: Command, workspace: Path) -> None:
    """The effect is in the workspace, and every command tells the same story."""
    ran = command(
        "submit", "--plan", write(workspace, PLAN), "--workspace", str(workspace), "--wait", "count"
    )
    assert ran.returncode == 0, ran.stderr
    task = ran.stdout.strip()
    assert (workspace / "count.txt").read_text() == "2\n"
    shown = json.loads(command("show", task, "--json").stdout)
    assert shown["status"] == "done"
    first, second = (step["calls"][0] for step in shown["steps"])
    assert (first["class"], first["verdict"], first["outcome"]["exit_code"]) == ("staged", "admit", 0)
    assert first["outcome"]["text"].strip() == "2"
    assert first["outcome"]["diff"]["total"] == 1
    assert second["tool"] == "task.note"
    events = [json.loads(line) for line in command("watch", task, "--json").stdout.splitlines()]
    assert [event["kind"] for event in events].count("outcome") == 2
    trace = json.loads(command("trace", task, "--json").stdout)
    assert trace["span"]["open"] is False
    assert trace["stages_s"]["execute"] > 0
    assert task in command("tasks").stdout


def test_submit_with_a_key_gives_the_same_task(command: Command, workspace: Path) -> None:
    """A repeated submit waits for, and exits as, the first one."""
    arguments = (
        "submit",
        "--plan",
        write(workspace, PLAN),
        "--workspace",
        str(workspace),
        "--key",
        workspace.name,
        "--wait",
    )
    first, again = command(*arguments, "count"), command(*arguments, "count")
    assert first.stdout == again.stdout
    assert again.returncode == 0


def test_submit_wait_exits_1_when_a_step_fails(command: Command, workspace: Path) -> None:
    """on_error = "stop" is the default."""
    plan = write(workspace, PLAN.replace("wc -l < a.txt", "exit 3; true"))
    ran = command("submit", "--plan", plan, "--workspace", str(workspace), "--wait", "fail")
    assert ran.returncode == 1
    assert "task is failed" in ran.stderr


def test_submit_is_refused_for_what_the_gate_knows(command: Command, workspace: Path) -> None:
    """Unknown tool, wrong arguments, unknown agent, no plan: exit 3 with code and reason."""
    for old, new, words in (
        ('tool = "task.note"', 'tool = "task.nope"', "task.nope"),
        ('text = "counted"', "text = 7", "text"),
    ):
        ran = command("submit", "--plan", write(workspace, PLAN.replace(old, new)), "x")
        assert ran.returncode == 3
        assert "bad_plan" in ran.stderr
        assert "step 1" in ran.stderr
        assert ".toml:8: " in ran.stderr
        assert words in ran.stderr
    assert "unknown_agent" in command("submit", "--agent", "nobody", "x").stderr
    assert "no_plan" in command("submit", "x").stderr
    assert command("show", "tnope").returncode == 3


def test_cancel_ends_a_running_task(command: Command, workspace: Path) -> None:
    """The open effect is killed, and watchers are told."""
    plan = write(workspace, PLAN.replace("wc -l < a.txt", "sleep 50"))
    task = command("submit", "--plan", plan, "--workspace", str(workspace), "sleep").stdout.strip()
    assert command("cancel", task, "--reason", "enough").returncode == 0
    assert "task is cancelled" in command("watch", task).stdout
    assert json.loads(command("show", task, "--json").stdout)["status"] == "cancelled"


def test_status_is_ready_and_metrics_are_served(command: Command) -> None:
    """The contract's JSON, with an address that answers."""
    picture = json.loads(command("status", "--json").stdout)
    assert picture["ready"] is True
    assert {row["role"] for row in picture["workers"]} >= {"gate", "brain", "executor", "memory"}
    with urllib.request.urlopen(picture["metrics"], timeout=10) as answer:  # noqa: S310  our own address
        assert b"homeostat_" in answer.read()


def test_bare_client_submits_and_watches(home: Path) -> None:
    """Sixty lines written from docs/PROTOCOL.md alone."""
    source = EXAMPLES / "client_bare.py"
    assert len(source.read_text().splitlines()) <= 60
    done = subprocess.run(
        [sys.executable, str(source), f"ipc://{home}/run/client.sock"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("done")
    assert "outcome" in done.stdout


def test_bare_client_prints_its_usage_when_not_told_where(root: Path) -> None:
    """Words instead of a traceback."""
    line = [sys.executable, str(EXAMPLES / "client_bare.py")]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "Usage: client_bare.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_schema_is_cut_without_a_word_when_its_reader_goes(root: Path) -> None:
    """`| head` may stop reading."""
    line = [sys.executable, "-m", "homeostat.proto.schema"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_submit_is_refused_a_workspace_that_is_homeostats_own(command: Command, home: Path) -> None:
    """At once, with the field, and not by a task that fails."""
    plan = home.parent / "note.toml"
    plan.write_text('[[step]]\nthought = "t"\ntool = "task.note"\nargs = { text = "x" }\n')
    for folder in (home, home / "workspaces", home.parent):
        ran = command("submit", "--workspace", str(folder), "--plan", str(plan), "x")
        assert ran.returncode == 3
        assert "the home of homeostat" in ran.stderr


def test_a_second_supervisor_is_told_to_go(home: Path) -> None:
    """One message, exit 7."""
    done = subprocess.run(
        [*command_line(home), "run"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 7
    assert "supervisor is running" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_names_file_and_key_when_the_configuration_is_wrong(root: Path) -> None:
    """Exit 2 before anything is touched."""
    config = root / "wrong.toml"
    config.write_text("[metrics]\nlisten = 9464\n")
    line = [*command_line(root / "untouched"), "run", "--config", str(config)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "wrong.toml:2: metrics.listen" in done.stderr
    assert not (root / "untouched").exists()


def test_run_warns_of_an_agent_without_its_key(root: Path) -> None:
    """At the start, in the log, and not only in its first task; it is no reason not to start."""
    config = root / "keyless.toml"
    config.write_text(
        '[metrics]\nlisten = "127.0.0.1:0"\n[[agent]]\nname = "chatty"\nprovider = "chat"\n[agent.model]\n'
        'base_url = "http://127.0.0.1:9/v1"\nmodel = "m"\nkey_env = "NO_SUCH_KEY_IS_SET"\n'
    )
    line = [*command_line(root / "keyless"), "run", "--config", str(config)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        process.terminate()
    assert process.returncode == 0
    log = (root / "keyless" / "log" / "supervisor.log").read_text()
    assert "level=warning event=model_key agent=chatty" in log
    assert "NO_SUCH_KEY_IS_SET" in log
