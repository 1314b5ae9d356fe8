"""What a person does with an agent's work: refuse it, look at it, take it back, over the whole system."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from homeostat.proto.config import Config
from tests.integration.cli.conftest import COMMAND_UID, Command, command_line
from tests.integration.cli.test_end_to_end import write

DATABASE_UID = Config().users.base + 6
POLICY = """
@id("few-deletions")
forbid (principal, action, resource)
when { context.phase == "commit" && context.deleted > 5 };
"""
VIM = """
[[step]]
thought = "open it"
tool = "terminal.open"
[step.args]
command = "vim -u NONE -n a.txt"

[[step]]
thought = "write above"
tool = "terminal.send"
[step.args]
terminal = "{terminal}"
text = "Ofirst"
keys = ["Escape"]

[[step]]
thought = "save"
tool = "terminal.send"
[step.args]
terminal = "{terminal}"
text = ":wq\\n"

[[step]]
thought = "let it count"
tool = "terminal.close"
[step.args]
terminal = "{terminal}"
"""


class Answers(http.server.BaseHTTPRequestHandler):
    """A server on loopback that says what it was asked."""

    def do_GET(self) -> None:
        """Answer with the path and the headers."""
        data = json.dumps({"path": self.path, "headers": dict(self.headers.items())}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of a web server on loopback."""
    with http.server.ThreadingHTTPServer(("127.0.0.2", 0), Answers) as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        yield one.server_address[1]
        one.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def home(root: Path, server: int) -> Iterator[Path]:
    """A supervisor whose agent has a database, a way out to one port, and a careful policy."""
    (root / "few.cedar").write_text(POLICY)
    data = root / "data"
    data.mkdir(mode=0o700)
    sqlite3.connect(data / "ledger.db").executescript("CREATE TABLE entry (what TEXT);")
    if os.geteuid() == 0:
        for path in (data, data / "ledger.db"):
            os.chown(path, DATABASE_UID, DATABASE_UID)
    config = root / "config.toml"
    config.write_text(f"""
[metrics]
listen = "127.0.0.1:0"
[policy]
files = ["{root}/few.cedar"]
[[credential]]
name = "token"
value_env = "HANDS_ON_TOKEN"
[[connection]]
name = "ledger"
url = "sqlite:///{data}/ledger.db"
write = true
[[agent]]
name = "default"
connections = ["ledger"]
[[agent.egress]]
host = "127.0.0.2"
ports = [{server}]
addresses = ["127.0.0.2/32"]
credential = "token"
""")
    process = subprocess.Popen(
        [*command_line(root / "home"), "run", "--config", str(config)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HANDS_ON_TOKEN": "s3cret-word"},
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith("ready")
        yield root / "home"
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        process.stdout.close()
    assert code == 0


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    """Mode and hash of everything below a folder."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(folder.rglob("*"))
    }


def step(tool: str, **args: Any) -> str:
    """One step of a plan."""
    lines = "".join(f"{key} = {_toml(value)}\n" for key, value in args.items())
    return f'[[step]]\nthought = "why not"\ntool = "{tool}"\n[step.args]\n{lines}\n'


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


@pytest.fixture
def run(command: Command, workspace: Path) -> Callable[[str], dict[str, Any]]:
    """Run a plan in the workspace to its end; give its task as `show` does."""

    def call(plan: str) -> dict[str, Any]:
        done = command(
            "submit", "--plan", write(workspace, plan), "--workspace", str(workspace), "--wait", "go"
        )
        task = done.stdout.strip()
        assert task, done.stderr
        shown: dict[str, Any] = json.loads(command("show", task, "--json").stdout)
        return shown

    return call


def outcomes(shown: dict[str, Any]) -> list[dict[str, Any]]:
    """The outcomes of all calls."""
    return [call["outcome"] for step in shown["steps"] for call in step["calls"]]


def owned(folder: Path) -> None:
    """Give what a test made to the commands' user."""
    if os.geteuid() == 0:
        for path in folder.rglob("*"):
            os.chown(path, COMMAND_UID, COMMAND_UID, follow_symlinks=False)


def test_step_that_deletes_half_of_the_workspace_is_refused_and_leaves_it_as_it_was(
    run: Callable[[str], dict[str, Any]], workspace: Path
) -> None:
    """Policy sees what it did, not what it said; byte for byte nothing has changed."""
    for number in range(12):
        (workspace / f"{number}.txt").write_text(f"number {number}\n")
    (workspace / "folder").mkdir()
    owned(workspace)
    before = tree(workspace)
    shown = run(
        step("shell.run", command="rm 0.txt 1.txt 2.txt 3.txt 4.txt 5.txt; rmdir folder; echo new > a.txt")
    )
    (outcome,) = outcomes(shown)
    assert (shown["status"], outcome["status"]) == ("failed", "refused")
    assert "few-deletions" in outcome["text"]
    assert outcome["diff"]["deleted"] == 7
    assert tree(workspace) == before


@pytest.mark.skipif(shutil.which("vim") is None, reason="vim is not installed")
def test_plan_edits_a_file_in_vim(run: Callable[[str], dict[str, Any]], workspace: Path) -> None:
    """A real editor on a live terminal; its change counts when the terminal is closed."""
    shown = run(VIM.format(terminal="t1"))
    assert shown["status"] == "done", outcomes(shown)
    assert (workspace / "a.txt").read_text() == "first\none\ntwo\n"
    opened, _, _, closed = outcomes(shown)
    assert "t1" in opened["text"]
    assert closed["diff"]["total"] == 1


def test_diff_and_rewind_take_a_frozen_task_back(command: Command, workspace: Path) -> None:
    """Files and steps are as they were after the step; the task goes on from there and ends."""
    plan = (
        step("file.write", path="a.txt", content="first\n")
        + step("shell.run", command="echo second >> a.txt; echo new > b.txt; ln -s a.txt c; mkdir d")
        + step("memory.recall", query="anything")
    )
    assert command("freeze", "--tool", "memory.recall").returncode == 0
    task = command(
        "submit", "--plan", write(workspace, plan), "--workspace", str(workspace), "go"
    ).stdout.strip()
    until(lambda: status(command, task) == "frozen")
    diff = command("diff", task, "1")
    assert "+second" in diff.stdout
    assert "b.txt" in diff.stdout
    assert command("freeze").returncode == 0
    done = command("rewind", task, "--to", "0")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in workspace.iterdir()} == {"a.txt"}
    assert (workspace / "a.txt").read_text() == "first\n"
    assert len(json.loads(command("show", task, "--json").stdout)["steps"]) == 1
    assert command("thaw").returncode == 0
    assert command("thaw", "--tool", "memory.recall").returncode == 0
    until(lambda: status(command, task) == "done")
    assert (workspace / "a.txt").read_text() == "first\nsecond\n"
    assert (workspace / "d").is_dir()
    assert "rewound" in command("watch", task).stdout


def status(command: Command, task: str) -> str:
    """The task's status."""
    return str(json.loads(command("show", task, "--json").stdout)["status"])


def until(holds: Callable[[], bool], within_s: float = 30.0) -> None:
    """Wait."""
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_plan_changes_and_asks_a_database(run: Callable[[str], dict[str, Any]]) -> None:
    """Once, and it is there; a name that the agent was not given is refused at submission."""
    shown = run(
        step(
            "db.execute",
            connection="ledger",
            sql="INSERT INTO entry VALUES (:what)",
            parameters={"what": "tea"},
        )
        + step("db.query", connection="ledger", sql="SELECT what, count(*) AS n FROM entry GROUP BY what")
    )
    assert shown["status"] == "done", outcomes(shown)
    assert [call["class"] for step in shown["steps"] for call in step["calls"]] == ["witnessed", "read"]
    assert "tea" in outcomes(shown)[1]["text"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_plan_reaches_its_host_and_no_other(
    run: Callable[[str], dict[str, Any]], command: Command, server: int
) -> None:
    """By curl through the proxy and by http.request, whose credential nobody sees."""
    url = f"http://127.0.0.2:{server}"
    shown = run(
        'on_error = "continue"\n'
        + step("shell.run", command=f"curl -sS {url}/from-curl", network=True)
        + step("http.request", url=f"{url}/from-request")
        + step(
            "shell.run",
            command="curl -sS -o /dev/null -w '%{http_code}' http://127.0.0.3:1/",
            network=True,
        )
        + step("shell.run", command=f"curl -sS --max-time 5 {url}/without || echo none", network=False)
    )
    curl, request, other, without = outcomes(shown)
    assert "/from-curl" in curl["text"]
    assert "/from-request" in request["text"]
    assert "403" in other["text"]
    assert "none" in without["text"]
    told = command("show", shown["task"], "--json").stdout + command("watch", shown["task"], "--json").stdout
    assert "s3cret-word" not in told
    events = [json.loads(line) for line in command("watch", shown["task"], "--json").stdout.splitlines()]
    verdicts = [
        (event["data"]["host"], event["data"]["verdict"]) for event in events if event["kind"] == "connected"
    ]
    assert ("127.0.0.2", "open") in verdicts
    assert ("127.0.0.3", "refused") in verdicts


def test_plan_that_names_what_its_agent_was_not_given_is_refused_at_once(command: Command) -> None:
    """Before anything of it runs, with the step named."""
    with tempfile.TemporaryDirectory() as folder:
        for text in (
            step("http.request", url="https://example.org/"),
            step("db.query", connection="x", sql="y"),
        ):
            (Path(folder) / "plan.toml").write_text(text)
            done = command("submit", "--plan", f"{folder}/plan.toml", "go")
            assert done.returncode == 3
            assert "step 0" in done.stderr
