"""``homeostat doctor``: findings, their levels, and the exit code."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

from homeostat.proto.config import Agent, Config, Metrics, Model, Quotas, Sandbox, parse
from homeostat.sandbox import probe
from homeostat.supervisor import daemon
from homeostat.supervisor.cli import doctor
from homeostat.supervisor.cli.homecheck import check
from homeostat.supervisor.secrets import troubles
from tests.unit.cli.conftest import Command

MISSING = probe.Finding("landlock", False, False, "this kernel has none", None, "boot with lsm=landlock")
FREE = Config(metrics=Metrics("127.0.0.1:0"))
BROKEN = probe.Finding("user_namespaces", False, True, "Operation not permitted", 1, "allow them")


def failed(home: Path, config: Config) -> set[str]:
    """The names of the findings that stop a start."""
    return {finding.name for finding in check(home, config) if finding.level == "fail"}


def test_doctor_agrees_with_what_the_kernel_gives(command: Command, tmp_path: Path) -> None:
    """The exit code follows the findings, every failing one has a remedy, and nothing is left behind."""
    before = sorted(tmp_path.rglob("*"))
    ran = command("doctor", "--json")
    said = json.loads(ran.out)
    levels = {finding["name"]: finding["level"] for finding in said["findings"]}
    assert said["runnable"] == ("fail" not in levels.values())
    assert ran.code == (0 if said["runnable"] else 8)
    assert {"path length", "writable", "room", "lock", "overlay", "seccomp", "landlock"} <= levels.keys()
    assert all(finding["remedy"] for finding in said["findings"] if finding["level"] == "fail")
    assert {"homeostat", "python", "kernel", "libzmq"} <= said["versions"].keys()
    assert sorted(tmp_path.rglob("*")) == before


def test_doctor_exits_8_with_the_remedy_when_a_protection_is_missing(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The errno and what to do are shown."""
    monkeypatch.setattr(probe, "probe_all", lambda _directory: [BROKEN])
    ran = command("doctor")
    assert ran.code == 8
    assert "FAIL  user_namespaces  Operation not permitted (errno 1)" in ran.out
    assert "-> allow them" in ran.out


def test_a_layer_may_be_missing_only_where_the_operator_wrote_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 8: fail closed, say so."""
    monkeypatch.setattr(probe, "probe_all", lambda _directory: [MISSING])
    strict, lenient = Config(), Config(sandbox=Sandbox(may_be_missing=("landlock",)))
    assert [finding.level for finding in doctor.protection(tmp_path, strict)] == ["fail"]
    assert [finding.level for finding in doctor.protection(tmp_path, lenient)] == ["warn"]


def test_doctor_says_what_a_missing_layer_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the errno: what the operator who allows it goes without."""
    found = probe.Finding("cgroup", False, False, "Permission denied", 13, "delegate", "no bound for all")
    monkeypatch.setattr(probe, "probe_all", lambda _directory: [found])
    (finding,) = doctor.protection(tmp_path, Config())
    assert finding.level == "warn"
    assert finding.detail == "Permission denied (errno 13); without it: no bound for all"


def test_doctor_says_what_ways_out_and_tools_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that isn't installed is named; programs may be missing, bash had better not."""
    config = parse(
        'connection = [{name = "db", url = "postgresql://127.0.0.1/x"}]\n'
        '[[agent]]\nname = "a"\nprovider = "script"\nconnections = ["db"]\n'
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "psycopg" else object())
    (database,) = doctor.ways_out(config)
    assert (database.level, database.remedy) == ("warn", "pip install psycopg")
    assert doctor.ways_out(Config()) == []
    nowhere = doctor.tools(Config(sandbox=Sandbox(path="/nonexistent")))
    assert nowhere.level == "warn"
    assert "bash" in nowhere.detail


def test_check_fails_where_a_home_can_not_be(tmp_path: Path) -> None:
    """Too long a path, a file in the way, too little room."""
    (tmp_path / "file").write_text("")
    greedy = Config(metrics=FREE.metrics, quotas=Quotas(min_free_bytes=1 << 62))
    assert failed(tmp_path / "home", FREE) - {"reach"} == set()
    assert failed(tmp_path / ("x" * 100), FREE) - {"reach"} == {"path length"}
    assert "writable" in failed(tmp_path / "file" / "home", FREE)
    assert failed(tmp_path / "home", greedy) - {"reach"} == {"room"}


@pytest.mark.root
def test_check_fails_where_the_workers_users_can_not_come() -> None:
    """As root: what `run` refuses, in its words; the chmod that is named mends it."""
    with tempfile.TemporaryDirectory(prefix="hs-doc-") as name:
        closed = Path(name) / "closed"
        Path(name).chmod(0o755)
        closed.mkdir(mode=0o700)
        found = {finding.name: finding for finding in check(closed / "home", FREE)}
        assert found["reach"].level == "fail"
        assert found["reach"].remedy.startswith(f"chmod o+x {closed}")
        closed.chmod(0o711)
        assert failed(closed / "home", FREE) == set()


@pytest.mark.root
def test_check_fails_where_a_folder_of_the_home_is_another_users(tmp_path: Path) -> None:
    """As `run` would: another's journal is not taken over."""
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "data.mdb").touch()
    os.chown(tmp_path / "journal", 12_345, 12_345)
    assert failed(tmp_path, FREE) - {"reach"} == {"private"}


@pytest.mark.parametrize("key", ["metrics.listen", "client.listen"])
def test_check_fails_where_a_port_is_in_use(tmp_path: Path, key: str) -> None:
    """`run` would be refused it; with port 0 it would not."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        metrics = f'metrics.listen = "{address if key == "metrics.listen" else "127.0.0.1:0"}"\n'
        client = f'client.listen = "{address}"\n' if key == "client.listen" else ""
        assert failed(tmp_path, parse(metrics + client)) - {"reach"} == {key}


def test_check_warns_while_a_supervisor_holds_the_lock(tmp_path: Path) -> None:
    """With its pid; a second one would be refused, and its ports are taken by right."""
    (tmp_path / "run").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = Config(metrics=Metrics(f"127.0.0.1:{taken.getsockname()[1]}"))
        fd = daemon.lock(tmp_path)
        daemon.write_pid(fd)
        found = {finding.name: finding for finding in check(tmp_path, config)}
        os.close(fd)
    assert (found["lock"].level, found["metrics.listen"].level) == ("warn", "ok")
    assert f"pid {os.getpid()}" in found["lock"].detail


def test_check_warns_of_an_agent_without_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unset variable, a missing and an empty file; never of one that is there, nor of a plan's agent."""
    monkeypatch.setenv("A_MADE_UP_KEY", "x")
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    (tmp_path / "empty").touch()

    def agent(name: str, **model: Any) -> Agent:
        return Agent(name, provider="chat", model=Model("http://h/v1", "m", **model))

    config = Config(
        metrics=FREE.metrics,
        agent=(
            Agent("script"),
            agent("keyless"),
            agent("set", key_env="A_MADE_UP_KEY"),
            agent("unset", key_env="NO_SUCH_KEY"),
            agent("missing", key_file=str(tmp_path / "nothing")),
            agent("empty", key_file=str(tmp_path / "empty")),
        ),
    )
    warned = [finding for finding in check(tmp_path, config) if finding.name == "model key"]
    assert {finding.level for finding in warned} == {"warn"}
    assert [finding.detail.split("'")[1] for finding in warned] == ["unset", "missing", "empty"]
    assert "NO_SUCH_KEY" in warned[0].detail


@pytest.mark.root
def test_check_warns_of_a_key_that_the_brain_may_not_read() -> None:
    """As root the file is tried as the brain's user."""
    with tempfile.TemporaryDirectory(prefix="hs-doc-") as name:
        Path(name).chmod(0o755)
        key = Path(name) / "key"
        key.write_text("sk-made-up")
        key.chmod(0o600)
        config = Config(agent=(Agent("a", provider="chat", model=Model("http://h/v1", "m", str(key))),))
        ((_, reason),) = troubles(config)
        assert "permission denied" in reason
        assert "sk-made-up" not in reason
        os.chown(key, config.users.base + 2, -1)
        assert list(troubles(config)) == []


@pytest.mark.unprivileged
def test_check_fails_where_a_home_is_not_ones_own() -> None:
    """An ordinary user can't use the root folder."""
    assert {"writable", "private"} <= {
        found.name for found in check(Path("/"), Config()) if found.level == "fail"
    }
