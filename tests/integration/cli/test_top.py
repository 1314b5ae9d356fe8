"""`homeostat top` on a real terminal, over a real supervisor."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homeostat.proto.client import Client
from homeostat.proto.records import Plan, PlanStep
from homeostat.supervisor import control
from tests.fakes.pty_program import PtyProgram
from tests.integration.cli.conftest import Command, command_line

Top = Callable[..., PtyProgram]
SLOW = Plan(step=[PlanStep("wait", "shell.run", {"command": "sleep 600", "timeout_s": 600.0})])


@pytest.fixture
def top(home: Path) -> Iterator[Top]:
    """Start `top` on a terminal; it is gone at the end."""
    running: list[PtyProgram] = []

    def start(*options: str, columns: int = 110, lines: int = 30, **variables: str) -> PtyProgram:
        arguments = [*command_line(home), "top", "--interval", "0.2", *options]
        running.append(PtyProgram(arguments, columns, lines, variables))
        return running[-1]

    yield start
    for program in running:
        program.__exit__(None, None, None)


def given_back(program: PtyProgram) -> bool:
    """Whether the terminal is as it was before the program came."""
    screen = program.screen.modes == {"wraps": True, "shows_cursor": True, "alternate": False}
    return screen and program.modes == program.before


@pytest.fixture
def slow_task(home: Path) -> Iterator[str]:
    """A task whose call is under way for as long as the test runs."""
    with Client.for_home(home) as client:
        task = client.submit("wait", plan=SLOW).task
        yield task
        client.cancel(task)
        for _ in client.watch(task):
            pass


def test_top_shows_tree_and_tasks_when_on_a_terminal(top: Top, home: Path, slow_task: str) -> None:
    """Every worker with what it takes, the task with the call that it makes; `q` ends it well."""
    program = top()
    shown = program.until(lambda text: f"{slow_task}  running" in text and "shell.run" in text)
    for name in ("supervisor", "nursery", "gate.0", "memory.0", "zygote.0", "executor.0", "brain.0"):
        assert re.search(rf"^{name} +\d+ ", shown, re.MULTILINE), shown
    assert re.search(r"^gate\.0 .* MiB ", shown, re.MULTILINE)
    assert str(home) in shown.splitlines()[0]
    assert "ready" in shown.splitlines()[0]
    assert program.screen.modes["alternate"]
    program.press("q")
    assert program.ended() == 0
    assert given_back(program)


def test_top_fits_when_the_terminal_is_resized(top: Top) -> None:
    """Down to 40 × 10, to nearly nothing, and up again: the screen refuses what is wider than it is."""
    program = top()
    program.until("brain.0")
    program.resize(40, 10)
    assert "WORKER 1-" in program.until("q quit")
    program.settle()
    program.resize(3, 2)
    program.until(lambda text: bool(text.strip()))
    program.resize(140, 50)
    assert "CONFINED" in program.until("brain.0")
    program.press("q")
    assert program.ended() == 0


def test_top_answers_keys(top: Top) -> None:
    """Help, the other table, a sort, the interval, a pause; an unknown key does nothing."""
    program = top()
    program.until("by newest")
    program.press("h")
    program.until("this help")
    program.press("h\t")
    program.until("Tab workers")
    program.press("\x1b[C\x1b[99~x")
    program.until("by cpu")
    program.press("+")
    program.until("every 0.5s")
    program.press("p")
    program.until("paused")
    program.press("p")
    program.until(lambda text: "paused" not in text)
    program.press("q")
    assert program.ended() == 0


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)],
)
def test_top_gives_the_terminal_back_when_it_is_signalled(top: Top, number: int, code: int) -> None:
    """Ctrl-C, a kill, a lost line: our parent sees what it was, the terminal is as before."""
    program = top()
    program.until("brain.0")
    program.signal(number)
    assert program.ended() == code
    assert given_back(program)
    assert "Traceback" not in program.raw


def test_top_gives_the_terminal_back_while_it_is_stopped(home: Path) -> None:
    """Ctrl-Z and `fg` of a shell: it has its terminal meanwhile, and top draws anew afterwards."""
    words = shlex.join([*command_line(home), "top", "--interval", "0.2"])
    script = f"{words}; echo stopped: $?; read; fg > /dev/null; echo ended: $?"
    with PtyProgram(["bash", "--norc", "-m", "-c", script], 110, 30) as program:
        program.until("brain.0")
        program.press("\x1a")
        program.until(f"stopped: {128 + signal.SIGTSTP}")
        assert given_back(program)
        program.press("\n")
        program.until("brain.0")
        assert program.screen.modes["alternate"]
        program.press("q")
        program.until("ended: 0")
        assert program.ended() == 0
        assert given_back(program)


def test_top_goes_on_when_nobody_could_wake_it(top: Top) -> None:
    """The kernel stops no process without a shell to go on from; top takes its terminal again."""
    program = top()
    program.until("brain.0")
    program.press("\x1a")
    program.press("\t")
    program.until("Tab workers")
    assert program.screen.modes["alternate"]
    program.press("q")
    assert program.ended() == 0
    assert given_back(program)


def test_top_has_no_colours_when_none_are_wanted(top: Top) -> None:
    """NO_COLOR leaves bold, dim and reverse."""
    coloured, plain = top(), top(NO_COLOR="1")
    for program in (coloured, plain):
        program.until("brain.0")
        program.press("q")
        assert program.ended() == 0
    assert re.search(r"\x1b\[3\dm", coloured.raw)
    assert not re.search(r"\x1b\[(1;)?3\dm", plain.raw)


def test_top_prints_lines_when_the_terminal_is_dumb(top: Top) -> None:
    """One screen after the other, no control sequence at all, until Ctrl-C."""
    program = top(lines=60, TERM="dumb")
    program.until("brain.0")
    program.signal(signal.SIGINT)
    assert program.ended() == 130
    assert "\x1b" not in program.raw


def test_top_once_prints_one_screen_when_piped(command: Command) -> None:
    """Plain text; `--title` stands in the place of the home's path."""
    done = command("top", "--once", "--interval", "0.2", "--title", "mine")
    assert done.returncode == 0
    assert done.stdout.startswith("homeostat ")
    assert "  mine  ready" in done.stdout
    assert "brain.0" in done.stdout
    assert "\x1b" not in done.stdout


def test_top_gives_json_when_asked(command: Command) -> None:
    """The status, with rates and open tasks."""
    told = json.loads(command("top", "--json", "--interval", "0.2").stdout)
    assert told["ready"] is True
    assert isinstance(told["rates"]["requests"], float)
    assert {row["role"] for row in told["workers"]} >= {"gate", "brain", "executor", "memory", "zygote"}
    assert all(row["memory_bytes"] > 0 and row["threads"] > 0 for row in told["workers"])
    assert {one["name"] for one in told["processes"]} >= {"supervisor", "nursery"}
    assert told["open"] == []


def test_top_is_refused_when_there_is_no_terminal(command: Command) -> None:
    """It names what to use instead."""
    done = command("top")
    assert done.returncode == 2
    assert "--once" in done.stderr


def test_top_once_fails_when_nobody_is_there(tmp_path: Path) -> None:
    """Exit 4, as for every other command."""
    done = subprocess.run(
        [*command_line(tmp_path), "top", "--once"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 4
    assert "no supervisor answers" in done.stderr


def test_idle_top_makes_one_request_a_look(top: Top, home: Path) -> None:
    """Keys and redrawing ask nothing; the gate counts what it is asked."""
    with Client.for_home(home) as client:
        program = top("--interval", "3600")
        program.until("brain.0")
        before = client.status().totals["requests"]
        for _ in range(20):
            program.press("\t")
            program.pump(0.02)
        after = client.status().totals["requests"]
    assert after - before == 1, "our own two questions, and nobody else's"
    program.press("q")
    assert program.ended() == 0


@pytest.fixture
def own_home() -> Iterator[Path]:
    """A home of this test's own, whose supervisor it may kill."""
    with tempfile.TemporaryDirectory(prefix="hs-top-") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "config.toml").write_text('[metrics]\nlisten = "127.0.0.1:0"\n')
        yield Path(folder) / "home"


def supervise(home: Path) -> subprocess.Popen[str]:
    """Start a supervisor and wait until it serves."""
    config = home.parent / "config.toml"
    process = subprocess.Popen(
        [*command_line(home), "run", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready")
    process.stdout.close()
    return process


def test_top_recovers_when_the_supervisor_is_killed_and_comes_back(own_home: Path) -> None:
    """It begins before there is one, keeps the last picture while there is none, goes on with the next."""
    arguments = [*command_line(own_home), "top", "--interval", "0.2"]
    with PtyProgram(arguments, 110, 30) as program:
        program.until("unreachable, trying")
        first = supervise(own_home)
        program.until(lambda text: "  ready  " in text and f"  {first.pid} " in text)
        first.kill()
        first.wait(60)
        shown = program.until("unreachable, trying")
        assert "brain.0" in shown, "the last picture stays"
        second = supervise(own_home)
        try:
            shown = program.until(lambda text: "  ready  " in text and f"  {second.pid} " in text)
            assert "unreachable" not in shown
            program.press("q")
            assert program.ended() == 0
            assert given_back(program)
        finally:
            second.send_signal(signal.SIGTERM)
            assert second.wait(60) == 0


def test_top_shows_a_stopped_supervisor_as_unreachable(own_home: Path) -> None:
    """One that stands still answers nobody: keys are answered all the same."""
    supervisor = supervise(own_home)
    try:
        with PtyProgram([*command_line(own_home), "top", "--interval", "0.2"], 110, 30) as program:
            program.until("  ready  ")
            supervisor.send_signal(signal.SIGSTOP)
            program.press("\t")
            program.until("Tab workers")
            program.until("unreachable, trying")
            supervisor.send_signal(signal.SIGCONT)
            program.until("  ready  ")
            program.press("q")
            assert program.ended() == 0
    finally:
        supervisor.send_signal(signal.SIGCONT)
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(60) == 0


def test_status_tells_what_was_enforced(command: Command, home: Path) -> None:
    """Each worker that confines itself says how, for people and for programs."""
    reply = control.ask(home, control.Status(resources=True))
    assert isinstance(reply, control.StatusReply)
    confined = {row.role: row.enforced for row in reply.workers}
    assert all("seccomp" in confined[role] for role in ("gate", "brain", "executor", "memory"))
    shown = command("status").stdout
    for role in ("gate", "brain", "executor", "memory"):
        assert confined[role] in shown
    assert str(reply.pid) in shown


def test_resources_are_looked_at_when_asked_for_only(home: Path) -> None:
    """A status that every prober asks costs no look into /proc."""
    reply = control.ask(home, control.Status())
    assert isinstance(reply, control.StatusReply)
    seen = control.ask(home, control.Status(resources=True))
    assert isinstance(seen, control.StatusReply)
    assert {row.memory_bytes for row in reply.workers} | {one.memory_bytes for one in reply.processes} == {
        None
    }
    assert all(row.memory_bytes and row.threads for row in seen.workers)
    assert all(one.memory_bytes and one.threads for one in seen.processes)
