"""A whole homeostat whose agent has a way out: curl in a sandbox, http.request, a courier that is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from homeostat.proto.config import Config
from tests.fakes.far_host import AUTHORITY, FarHost, reply
from tests.integration.courier.stand import eventually

COMMAND_UID = Config().users.base + 11
SECRET = "whole-tree-secret"
CONFIG = """
[metrics]
listen = "127.0.0.1:0"

[[credential]]
name = "token"
value_env = "COURIER_TEST_TOKEN"

[[agent]]
name = "web"
in_doubt = "tell"
[[agent.egress]]
host = "localhost"
ports = [{plain}, {tls}]
addresses = ["127.0.0.0/8"]
credential = "token"

[[agent]]
name = "inside"
"""


@dataclass
class Home:
    """A running home, and the hosts that its agent may reach."""

    path: Path
    plain: FarHost
    tls: FarHost
    numbers: Iterator[int]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command line."""
        words = [sys.executable, "-m", "homeostat.supervisor.cli.main", "--home", str(self.path)]
        return subprocess.run([*words, *arguments], capture_output=True, text=True, check=False, timeout=100)

    def run(self, agent: str, tool: str, **arguments: object) -> dict[str, Any]:
        """A task of one call, to its end; the call as `show` gives it."""
        done = self.submit(agent, tool, **arguments)
        assert done.stdout, done.stderr
        task = done.stdout.split()[0]
        shown = json.loads(self.command("show", task, "--json").stdout)
        call: dict[str, Any] = shown["steps"][0]["calls"][0]
        return call

    def submit(self, agent: str, tool: str, **arguments: object) -> subprocess.CompletedProcess[str]:
        """A task of one call."""
        number = next(self.numbers)
        folder = self.path.parent / f"w{number}"
        folder.mkdir()
        shutil.copy(AUTHORITY, folder / "authority.pem")
        if os.geteuid() == 0:
            for path in (folder, folder / "authority.pem"):
                os.chown(path, COMMAND_UID, COMMAND_UID)
        plan = self.path.parent / f"plan{number}.toml"
        lines = ["[[step]]", 'thought = "try"', f'tool = "{tool}"', "[step.args]"]
        lines += [f"{name} = {json.dumps(value)}" for name, value in arguments.items()]
        plan.write_text("\n".join(lines))
        words = ["--agent", agent, "--plan", str(plan), "--workspace", str(folder)]
        return self.command("submit", *words, "--wait", "try")


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """One for all tests of this file."""
    root = Path(tempfile.mkdtemp(prefix="hs-way-"))
    root.chmod(0o755)
    plain, tls = FarHost(Slow()), FarHost(reply(b"encrypted"), tls=True)
    config = root / "config.toml"
    config.write_text(CONFIG.format(plain=plain.port, tls=tls.port))
    words = [sys.executable, "-m", "homeostat.supervisor.cli.main", "--home", str(root / "home")]
    process = subprocess.Popen(
        [*words, "run", "--config", str(config)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COURIER_TEST_TOKEN": SECRET},
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith("ready")
        yield Home(root / "home", plain, tls, iter(range(1_000)))
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        process.stdout.close()
        plain.close()
        tls.close()
        shutil.rmtree(root, ignore_errors=True)
    assert code == 0


class Slow:
    """Answers, but for the first request to each path that begins with /slow: that one waits for its end."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()

    def __call__(self, one: socket.socket, head: bytes) -> None:
        """One request."""
        path = head.split(b" ")[1]
        if path.startswith(b"/slow") and path not in self.seen:
            self.seen.add(path)
            one.recv(1)
        else:
            reply(b"from outside")(one, head)


CURL = "curl -sS --noproxy '' -m 20"
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl (apt-get install curl)")


@needs_curl
def test_curl_in_a_sandbox_reaches_what_is_listed(home: Home) -> None:
    """Plain and through a tunnel; the class is once; the connections are in the task's record."""
    plain, tls = home.plain.port, home.tls.port
    call = home.run(
        "web",
        "shell.run",
        command=f"{CURL} http://localhost:{plain}/ && {CURL} --cacert authority.pem https://localhost:{tls}/",
        network=True,
    )
    assert (call["class"], call["outcome"]["status"]) == ("once", "ok"), call
    assert call["outcome"]["text"] == "from outsideencrypted"


@needs_curl
def test_curl_in_a_sandbox_is_refused_what_is_not_listed(home: Home) -> None:
    """By host, by port, by address, past the proxy, and without `network`."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        call = home.run(
            "web",
            "shell.run",
            command=(
                f"{CURL} http://localhost:{port}/; {CURL} https://localhost:{port}/; "
                f"{CURL} http://127.0.0.1:{home.plain.port}/; {CURL} --proxy '' http://127.0.0.1:{port}/; "
                "true"
            ),
            network=True,
        )
        text = call["outcome"]["text"]
        assert f"localhost:{port} is not in the egress list of agent 'web'" in text
        assert "response 403" in text
        assert f"127.0.0.1:{home.plain.port} is not in the egress list" in text
        assert "Failed to connect" in text or "Couldn't connect" in text or "Could not connect" in text
        other.settimeout(0.1)
        with pytest.raises(TimeoutError):
            other.accept()
    before = home.plain.accepted
    call = home.run("web", "shell.run", command=f"{CURL} http://localhost:{home.plain.port}/; env; true")
    assert "_proxy" not in call["outcome"]["text"].lower().replace("noproxy", "")
    assert home.plain.accepted == before


def test_an_agent_without_a_list_has_no_way_out(home: Home) -> None:
    """Both tools are refused when the task is submitted."""
    for tool, arguments in (
        ("shell.run", {"command": "true", "network": True}),
        ("http.request", {"url": f"http://localhost:{home.plain.port}/"}),
    ):
        refused = home.submit("inside", tool, **arguments)
        assert refused.returncode != 0
        assert "agent 'inside'" in refused.stderr


def test_http_request_carries_the_credential_of_the_environment(home: Home) -> None:
    """It is sent, and in nothing that lies in the home."""
    call = home.run("web", "http.request", url=f"http://localhost:{home.plain.port}/x")
    assert (call["class"], call["outcome"]["status"]) == ("keyed", "ok"), call
    assert call["outcome"]["text"].endswith("from outside")
    assert f"Authorization: Bearer {SECRET}".encode() in home.plain.requests[-1]
    found = subprocess.run(
        ["grep", "-rlaF", SECRET, str(home.path)], capture_output=True, text=True, check=False
    )
    assert found.stdout == ""


@needs_curl
def test_a_killed_courier_is_replaced_while_a_command_runs(home: Home) -> None:
    """The executor offers the listener again, the gate permits it again: the command goes on."""
    pid, port, before = courier_pid(home), home.plain.port, home.plain.accepted
    retry = f"for i in $(seq 60); do {CURL} http://localhost:{port}/ && break; sleep 0.2; done"

    def kill() -> None:
        eventually(lambda: home.plain.accepted > before)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    call = home.run(
        "web", "shell.run", command=f"{CURL} http://localhost:{port}/; sleep 1.5; {retry}", network=True
    )
    thread.join()
    assert call["outcome"]["status"] == "ok", call
    assert call["outcome"]["text"].endswith("from outside")
    assert courier_pid(home) != pid


def test_a_request_under_way_when_the_courier_is_killed_ends_by_its_class(home: Home) -> None:
    """A GET is sent again under its key; a POST is in doubt, and was sent once."""
    for method, status, times in (("GET", "ok", 2), ("POST", "in_doubt", 1)):
        path = f"/slow-{method}"

        def kill(pid: int = courier_pid(home), line: bytes = f"{method} {path} ".encode()) -> None:
            eventually(lambda: any(one.startswith(line) for one in home.plain.requests))
            os.kill(pid, signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        url = f"http://localhost:{home.plain.port}{path}"
        call = home.run("web", "http.request", url=url, method=method)
        thread.join()
        assert call["outcome"]["status"] == status, call
        sent = [one for one in home.plain.requests if f" {path} ".encode() in one]
        keys = {one.partition(b"Idempotency-Key: ")[2].split(b"\r\n")[0] for one in sent}
        assert (len(sent), len(keys)) == (times, 1)


def test_a_reload_never_opens_more_than_the_list_says(home: Home) -> None:
    """53: a port that is taken off the list is closed; a list that can't be read changes nothing."""
    config = home.path.parent / "config.toml"
    url = f"https://localhost:{home.tls.port}/"
    before = config.read_text()
    for text, code, refused in (
        (before.replace(f", {home.tls.port}]", "]"), 0, True),
        (before.replace('host = "localhost"', 'host = "local host"'), 2, True),
        (before.replace('"127.0.0.0/8"', '"no network"'), 2, True),
        (before, 0, False),
    ):
        config.write_text(text)
        assert home.command("reload").returncode == code
        ended = home.submit("web", "http.request", url=url)
        assert ("is not a destination of agent" in ended.stderr) == refused, ended


def courier_pid(home: Home) -> int:
    """The pid of the courier."""
    status = json.loads(home.command("status", "--json").stdout)
    return next(int(one["pid"]) for one in status["workers"] if one["role"] == "courier")
