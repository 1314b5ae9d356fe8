"""Reloads with real workers: what comes into force, what is refused, what waits for a restart."""

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.supervised import eventually
from tests.integration.upkeep.stand import CONFIG, Home

Serve = Callable[..., Home]
MORE = CONFIG + '[[agent]]\nname = "novel"\n'


def test_new_agent_works_when_the_configuration_is_reloaded(serve: Serve) -> None:
    """Gate and brain are restarted for it, the others keep their processes, no crash is counted."""
    home = serve()
    before = home.workers()
    running = home.submit("sleep 1; echo a >> log", "echo b >> log", "echo c >> log")
    home.config.write_text(MORE)
    code, out, errors = home.command("reload")
    assert code == 0, errors
    assert "in force   agent" in out
    assert home.ended(home.submit("echo x >> log", agent="novel"))["status"] == "done"
    assert home.ended(running)["status"] == "done"
    assert home.lines(running) == ["a", "b", "c"]
    after = home.workers()
    changed = {name for name in after if after[name]["pid"] != before[name]["pid"]}
    assert changed == {"gate.0", "brain.0"}
    assert {row["crashes"] for row in after.values()} == {0}


def test_worker_that_dies_has_the_new_configuration_when_it_was_reloaded(serve: Serve) -> None:
    """Also what is forked later: nursery and spares are of the new one."""
    home = serve()
    home.config.write_text(MORE)
    assert home.command("reload")[0] == 0
    for name in ("gate.0", "brain.0"):
        row = home.workers()[name]
        home.kill(name)

        def later(name: str = name, epoch: int = row["epoch"]) -> bool:
            now = home.workers()[name]
            return bool(now["epoch"] > epoch and now["state"] == "ready")

        eventually(later, f"another {name}")
    assert home.ended(home.submit("echo x >> log", agent="novel"))["status"] == "done"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("[quotas]\nopen_tasks = 0\n", "quotas.open_tasks"),
        ("[quotas]\nopen_task = 5\n", "unknown key"),
        ("nonsense\n", "not TOML"),
    ],
)
def test_configuration_in_force_is_kept_when_the_new_one_is_bad(serve: Serve, bad: str, words: str) -> None:
    """Exit 2 with file and line; nobody is restarted, and SIGHUP says the same in the log."""
    home = serve()
    before = home.epochs()
    home.config.write_text(bad)
    code, _, errors = home.command("reload")
    assert code == 2
    assert words in errors
    assert "config.toml" in errors
    assert "line" in errors or "config.toml:2:" in errors
    assert "is kept" in errors
    home.process.send_signal(signal.SIGHUP)
    home.logged("event=reload_failed", count=2)
    assert home.epochs() == before
    assert home.ended(home.submit("echo x >> log"))["status"] == "done"


def test_settings_that_need_a_restart_are_named_when_they_have_changed(serve: Serve) -> None:
    """The rest comes into force; they stay as they were."""
    home = serve()
    before = home.epochs()
    changed = CONFIG.replace("127.0.0.1:0", "127.0.0.1:1").replace("stop_s", "watch_s = 7.0\nstop_s")
    home.config.write_text(changed + "[workers]\nbrains = 3\n[journal]\nmap_bytes = 1048576\n")
    code, out, errors = home.command("reload", "--json")
    assert code == 0, errors
    picture = json.loads(out)
    assert picture["needs_a_restart"] == ["metrics.listen", "journal.map_bytes", "workers.brains"]
    assert picture["applied"] == ["supervision.watch_s"]
    assert (picture["state"], picture["workers"], picture["error"]) == ("done", [], "")
    home.logged('needs_a_restart="metrics.listen journal.map_bytes workers.brains"')
    assert home.epochs() == before
    _, out, _ = home.command("reload")
    assert "unchanged  workers.brains: needs a restart" in out


def test_gate_is_left_alone_when_its_new_policies_can_not_be_used(serve: Serve) -> None:
    """A restarted gate would refuse them and end everything."""
    home = serve()
    before = home.epochs()
    own = home.root / "own.cedar"
    own.write_text("permit (principal action, resource);")
    home.config.write_text(f'{CONFIG}[policy]\nfiles = ["{own}"]\n')
    code, _, errors = home.command("reload")
    assert code == 2
    assert "own.cedar" in errors
    assert home.epochs() == before
    own.unlink()
    assert home.command("reload")[0] == 2
    assert home.epochs() == before


def test_policy_file_is_read_again_when_only_its_contents_have_changed(serve: Serve) -> None:
    """The configuration names the same file; the gate decides by its new text."""
    home = serve()
    own = home.root / "own.cedar"
    own.write_text("// nothing yet\n")
    home.config.write_text(f'{CONFIG}[policy]\nfiles = ["{own}"]\n')
    assert home.command("reload")[0] == 0
    assert home.ended(home.submit("echo x >> log"))["status"] == "done"
    own.write_text('@id("no-shell") forbid (principal, action == Action::"shell.run", resource);\n')
    code, out, _ = home.command("reload")
    assert (code, "policy.files" in out) == (0, True)
    shown = home.ended(home.submit("echo x >> log"))
    assert shown["status"] == "failed"
    assert shown["steps"][0]["calls"][0]["rule"] == "no-shell"
    _, out, _ = home.command("reload")
    assert "nothing has changed" in out


def test_reload_waits_when_it_comes_over_a_restart(serve: Serve) -> None:
    """SIGHUP at any moment: the restart ends first, then the file is read, once for all of them."""
    home = serve()
    task = home.submit("echo > begun; sleep 2; echo x >> log", agent="bold")
    home.begun(task)
    restart = home.begin("restart")
    home.logged("event=draining worker=executor.0")
    home.config.write_text(MORE)
    for _ in range(3):
        home.process.send_signal(signal.SIGHUP)
    code, out, errors = home.end(restart)
    assert code == 0, out + errors
    home.logged("what=reload", count=2)
    log = home.log()
    assert log.index("what=restart") < log.index("event=roll_over") < log.index("event=reload ")
    assert home.ended(task)["status"] == "done"
    assert home.lines(task) == ["x"]
    assert home.ended(home.submit("echo x >> log", agent="novel"))["status"] == "done"


def test_level_of_the_log_is_another_when_it_was_reloaded(serve: Serve) -> None:
    """The supervisor takes its own settings over at once, and nobody is restarted."""
    home = serve()
    before = home.epochs()
    home.config.write_text(CONFIG + '[log]\nform = "json"\n')
    assert home.command("reload")[0] == 0
    assert home.command("restart", "nobody")[0] == 3
    assert home.command("restart", "brain")[0] == 0
    last = home.log().splitlines()[-1]
    assert json.loads(last)["event"] == "roll_over"
    assert home.epochs() == {**before, "brain.0": before["brain.0"] + 1}


def test_log_is_opened_anew_when_it_was_moved_away(serve: Serve) -> None:
    """As logrotate wants it: SIGHUP, also where the configuration has not changed."""
    home = serve()
    log = home.path / "log" / "supervisor.log"
    log.rename(log.with_suffix(".old"))
    home.process.send_signal(signal.SIGHUP)
    eventually(log.exists, "a new log")
    home.logged("event=reload")


def test_service_manager_hears_of_a_reload_and_of_its_end(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """RELOADING, then READY when everybody that it concerned serves again; a bad one ends too."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        home = serve()

        def hear(word: str) -> None:
            while not manager.recv(4096).decode().startswith(word):
                pass

        hear("READY=1")
        for text in (MORE, "nonsense\n"):
            home.config.write_text(text)
            home.process.send_signal(signal.SIGHUP)
            hear("RELOADING=1\nMONOTONIC_USEC=")
            hear("READY=1")
        assert home.epochs()["gate.0"] == 2


def test_executor_gets_its_settings_later_when_a_command_runs(serve: Serve) -> None:
    """The command is not cut; the reload says who is left, and the supervisor tries again by itself."""
    limits = CONFIG.replace("stop_s", "drain_s = 0.3\ncool_down_s = 1.0\nstop_s")
    home = serve(limits)
    before = home.epochs()["executor.0"]
    task = home.submit("echo > begun; sleep 4; echo x >> log", agent="bold")
    home.begun(task)
    home.config.write_text(limits + "[sandbox]\nmax_open_files = 77\n")
    code, out, errors = home.command("reload")
    assert code == 1, out + errors
    assert "executor.0 was not restarted: a command still runs" in errors
    assert "tried again" in errors
    assert home.ended(task)["status"] == "done"
    assert home.lines(task) == ["x"]

    def renewed() -> bool:
        row = home.workers()["executor.0"]
        return bool(row["epoch"] > before and row["state"] == "ready")

    eventually(renewed, "the executor with its new settings", within_s=60)
    task = home.submit("ulimit -Hn >> log")
    assert home.ended(task)["status"] == "done"
    assert home.lines(task) == ["77"]
    assert "what=retry" in home.log()
