"""Homes that can't be used: exit 7 (or 2 for a name that is none), one message, the remedy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.integration.bad_input.stand import COMMAND, Home, attempt

COMMANDS = (["status"], ["stop"], ["submit", "x"], ["tasks"], ["show", "t"], ["watch", "t"], ["cancel", "t"])


def test_second_supervisor_is_refused_and_the_first_goes_on(running: Home) -> None:
    """Exit 7 with the pid of the one that runs; the fixture sees that its tasks and workers are unharmed."""
    assert running.process is not None
    refusal = running.refused()
    assert refusal.code == 7
    assert f"(pid {running.process.pid})" in refusal.message
    assert "homeostat stop" in refusal.message
    assert "event=" not in refusal.err, "a second one writes no log"


def test_commands_say_so_when_no_supervisor_runs(root: Path) -> None:
    """Exit 4, with the command that starts one."""
    for command in COMMANDS:
        refusal = attempt(COMMAND, "--home", str(root / "h"), *command)
        assert refusal.code == 4, command
        assert f"homeostat run --home {root}/h" in refusal.message
    assert not (root / "h").exists()


def test_commands_say_so_when_the_home_is_a_file(root: Path) -> None:
    """HOMEOSTAT_HOME may point anywhere; a supervisor can't be made of a file."""
    (root / "h").write_text("a file")
    env = {"HOMEOSTAT_HOME": str(root / "h")}
    refusal = attempt(COMMAND, "run", env=env)
    assert refusal.code == 7
    assert f"{root}/h is not a folder" in refusal.message
    assert attempt(COMMAND, "status", env=env).code == 4
    assert (root / "h").read_text() == "a file"


@pytest.mark.parametrize(
    "way", ["a file above", "a file within", "a log that is a folder", "a dangling link"]
)
def test_run_refuses_a_home_when_something_is_in_the_way(home: Home, way: str) -> None:
    """The message names what is in the way."""
    at = home.path
    match way:
        case "a file above":
            at = home.root / "above"
            home.name = "above/h"
            at.write_text("")
        case "a file within":
            at = at / "log"
            home.path.mkdir()
            at.write_text("")
        case "a log that is a folder":
            at = at / "log" / "supervisor.log"
            at.mkdir(parents=True)
        case _:
            at.symlink_to(home.root / "nowhere")
    refusal = home.refused()
    assert refusal.code == 7
    assert str(at) in refusal.message
    assert "\n  " in refusal.message, "nothing says what to do"


@pytest.mark.unprivileged
@pytest.mark.parametrize("what", ["parent", "run"])
def test_run_refuses_a_home_when_it_is_not_writable(home: Home, what: str) -> None:
    """The system's refusal and the folder; one of its own folders that lost its mode is mended instead."""
    home.path.mkdir()
    if what == "parent":
        home.name = "h/below"
        home.root.joinpath("h").chmod(0o555)
        refusal = home.refused()
        assert refusal.code == 7
        assert "permission denied" in refusal.message
        assert str(home.path) in refusal.message
    else:
        for name in ("run", "log"):
            (home.path / name).mkdir(mode=0)
        home.start()
        assert home.stop() == 0


def test_commands_refuse_a_home_when_its_path_is_too_long(root: Path) -> None:
    """Exit 7 with both lengths, before anything is made."""
    long = root / ("x" * 100)
    length = len(str(long / "run" / "terminal.63.sock"))
    refusal = attempt(COMMAND, "--home", str(long), "run")
    assert refusal.code == 7
    assert f"{length} bytes" in refusal.message
    assert "107" in refusal.message
    assert f"{length - 107} bytes shorter" in refusal.message
    for command in COMMANDS:
        refusal = attempt(COMMAND, "--home", str(long), *command)
        assert refusal.code == 7, command
        assert "too long for a unix socket" in refusal.message
    assert not long.exists()


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("", 2, "--home is empty"),
        ("~nobody-at-all/h", 2, "no such user"),
        (os.fsdecode(b"/tmp/\xff"), 7, "not UTF-8"),
    ],
)
def test_commands_refuse_a_home_when_its_name_is_none(name: str, code: int, words: str) -> None:
    """An unset variable, a user who isn't there, bytes that are no text."""
    for command in (["run"], ["status"], ["submit", "x"], ["doctor"]):
        refusal = attempt(COMMAND, "--home", name, *command)
        assert refusal.code == code, command
        assert words in refusal.message


@pytest.mark.root
def test_run_refuses_a_home_when_its_workers_can_not_reach_it(home: Home) -> None:
    """As root: beneath a folder that is closed to the workers' users; the chmod that is named mends it."""
    closed = home.root / "closed"
    closed.mkdir(mode=0o700)
    (home.root / "link").symlink_to(closed)
    for name in ("closed/h", "closed/deep/h", "link/h"):
        home.name = name
        refusal = home.refused()
        assert refusal.code == 7
        assert f"{closed} is closed" in refusal.message
        assert f"chmod o+x {closed}" in refusal.message
        assert list(closed.iterdir()) == []
    closed.chmod(0o711)
    home.name = "closed/deep/h"
    home.start()
    assert home.ends(home.accept()) == "done"
    assert home.stop() == 0


@pytest.mark.root
def test_run_accepts_a_home_when_an_access_list_lets_its_workers_in(home: Home) -> None:
    """What counts is whether they get there, not how the mode reads."""
    if shutil.which("setfacl") is None:
        pytest.skip("needs setfacl (apt-get install acl)")
    closed = home.root / "closed"
    closed.mkdir(mode=0o700)
    users = ",".join(f"u:{64_100 + number}:x" for number in range(1, 12))
    assert attempt("setfacl", "-m", users, str(closed)).code == 0
    home.name = "closed/h"
    home.start()
    assert home.stop() == 0


@pytest.mark.root
def test_run_refuses_a_home_when_its_journal_is_another_users(home: Home) -> None:
    """Somebody else's records are not taken over; the owner and the chown are named."""
    journal = home.path / "journal"
    journal.mkdir(parents=True)
    (journal / "data.mdb").write_bytes(b"")
    os.chown(journal, 12_345, 12_345)
    refusal = home.refused()
    assert refusal.code == 7
    assert f"{journal} belongs to uid 12345" in refusal.message
    assert "chown -R" in refusal.message
    assert journal.stat().st_uid == 12_345
