"""The peers: how each one is told to keep the same small child alive, and how it is asked whether it does.

Owns: their configurations.
Must not know: what is measured.
Invariant: each is set up as its own documentation does for a service that must be up: restarted always, and
    at once where that can be said.
Source: runsvdir(8), s6-svscan(1), supervisord.conf, circus.ini, gunicorn's settings, erlang:open_port/2.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

CHILD = Path(__file__).parents[1] / "peers" / "supervised_child.py"
APP = Path(__file__).parents[1] / "peers"
ASK_S = 5.0

Start = Callable[[Path, Path, int], subprocess.Popen[bytes]]
"""Folder, the peers' Python, how many children; they answer on FOLDER/cN.sock."""


@dataclass(frozen=True)
class Peer:
    """One supervisor. ``package`` is Debian's, empty for one of Python's."""

    name: str
    program: str
    package: str
    start: Start
    ask: Callable[[Path], int]
    """Give the pid of who answers on this socket; raises OSError while nobody does."""
    killed_among: int = 4
    """How many children there are while one is killed again and again."""
    stop_signal: int = signal.SIGTERM

    def found(self, python: Path) -> bool:
        """Whether it is installed."""
        if self.package:
            return shutil.which(self.program) is not None
        return (python.parent / self.program).exists()


def _spawn(folder: Path, *command: str | Path) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _child(folder: Path, python: Path, number: int) -> list[str]:
    return [str(python), str(CHILD), str(folder / f"c{number}.sock")]


# -- asking --------------------------------------------------------------------------------------------
def _ask_child(path: Path) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.settimeout(ASK_S)
        caller.connect(str(path))
        caller.send(b"?")
        return int(caller.recv(32) or _hung_up())


def _ask_gunicorn(path: Path) -> int:
    """All its workers answer on one socket, which is the master's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(ASK_S)
        caller.connect(str(path.parent / "c1.sock"))
        caller.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while data := caller.recv(4_096):
            answer += data
        return int(answer.rpartition(b"\r\n\r\n")[2] or _hung_up())


def _hung_up() -> bytes:
    raise ConnectionResetError("it hung up instead of an answer")


# -- starting ------------------------------------------------------------------------------------------
def _services(folder: Path, python: Path, count: int) -> Path:
    """A scan folder as runit and s6 both read it."""
    scan = folder / "sv"
    for number in range(1, count + 1):
        service = scan / f"c{number}"
        service.mkdir(parents=True)
        run = service / "run"
        run.write_text("#!/bin/sh\nexec " + " ".join(_child(folder, python, number)) + "\n")
        run.chmod(0o755)
    return scan


def _runit(folder: Path, python: Path, count: int) -> subprocess.Popen[bytes]:
    return _spawn(folder, "runsvdir", _services(folder, python, count))


def _s6(folder: Path, python: Path, count: int) -> subprocess.Popen[bytes]:
    return _spawn(folder, "s6-svscan", _services(folder, python, count))


def _supervisord(folder: Path, python: Path, count: int) -> subprocess.Popen[bytes]:
    lines = ["[supervisord]", "nodaemon=true", f"logfile={folder}/s.log", f"pidfile={folder}/s.pid"]
    lines += [f"childlogdir={folder}"]
    for number in range(1, count + 1):
        lines += [f"[program:c{number}]", f"command={' '.join(_child(folder, python, number))}"]
        lines += ["autorestart=true", "startsecs=1"]
    configuration = folder / "s.conf"
    configuration.write_text("\n".join(lines) + "\n")
    return _spawn(folder, python.parent / "supervisord", "-n", "-c", configuration)


def _circus(folder: Path, python: Path, count: int) -> subprocess.Popen[bytes]:
    lines = [
        "[circus]",
        "check_delay = 1",
        f"endpoint = ipc://{folder}/e",
        f"pubsub_endpoint = ipc://{folder}/p",
    ]
    for number in range(1, count + 1):
        lines += [
            f"[watcher:c{number}]",
            f"cmd = {' '.join(_child(folder, python, number))}",
            "numprocesses = 1",
        ]
    configuration = folder / "c.ini"
    configuration.write_text("\n".join(lines) + "\n")
    return _spawn(folder, python.parent / "circusd", configuration)


def _gunicorn(folder: Path, python: Path, count: int) -> subprocess.Popen[bytes]:
    return _spawn(
        folder,
        python.parent / "gunicorn",
        f"--bind=unix:{folder}/c1.sock",
        f"--workers={count}",
        f"--chdir={APP}",
        "gunicorn_app:app",
    )


ERLANG_SUPERVISOR = """
-module(homeostat_sup). -behaviour(supervisor). -export([start/1, init/1]).
start(Commands) -> {ok, S} = supervisor:start_link({local, ?MODULE}, ?MODULE, Commands), unlink(S),
    receive stop -> ok end.
init(Commands) -> {ok, {#{strategy => one_for_one, intensity => 1000, period => 1},
    [#{id => N, start => {homeostat_port, start_link, [C]}, restart => permanent} || {N, C} <- Commands]}}.
"""
ERLANG_PORT = """
-module(homeostat_port). -behaviour(gen_server).
-export([start_link/1, init/1, handle_info/2, handle_call/3, handle_cast/2]).
start_link(Command) -> gen_server:start_link(?MODULE, Command, []).
init([Program | Words]) -> {ok, open_port({spawn_executable, Program}, [{args, Words}, exit_status])}.
handle_info({Port, {exit_status, Status}}, Port) -> {stop, {port_exit, Status}, Port};
handle_info(_, Port) -> {noreply, Port}.
handle_call(_, _, Port) -> {reply, ok, Port}.
handle_cast(_, Port) -> {noreply, Port}.
"""


def _erlang(folder: Path, python: Path, count: int) -> subprocess.Popen[bytes]:
    (folder / "homeostat_sup.erl").write_text(ERLANG_SUPERVISOR)
    (folder / "homeostat_port.erl").write_text(ERLANG_PORT)
    subprocess.run(["erlc", "homeostat_sup.erl", "homeostat_port.erl"], cwd=folder, check=True)
    children = {
        number: [f'"{word}"' for word in _child(folder, python, number)] for number in range(1, count + 1)
    }
    commands = ",".join(f"{{{number},[{','.join(words)}]}}" for number, words in children.items())
    said = f"logger:set_primary_config(level,none),homeostat_sup:start([{commands}])."
    return _spawn(folder, "erl", "-noshell", "-pa", folder, "-eval", said)


PEERS: Sequence[Peer] = (
    Peer("gunicorn", "gunicorn", "", _gunicorn, _ask_gunicorn, killed_among=1),
    Peer("Erlang/OTP port", "erl", "erlang-base", _erlang, _ask_child),
    Peer("runit", "runsvdir", "runit", _runit, _ask_child, stop_signal=signal.SIGHUP),
    Peer("circus", "circusd", "", _circus, _ask_child),
    Peer("s6", "s6-svscan", "s6", _s6, _ask_child),
    Peer("supervisord", "supervisord", "", _supervisord, _ask_child),
)
