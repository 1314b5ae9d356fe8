"""Seen from outside: which commands wait for input from their terminal, and which only are quiet."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from homeostat.sandbox import protocol
from homeostat.sandbox.client import ZygoteClient
from homeostat.sandbox.profile import Profile
from homeostat.sandbox.protocol import Exited, Launch, Launched, Looked, Refused
from homeostat.sandbox.waiting import BlindError, Observer
from tests.sandbox.stand import PATIENCE_S, Stand, receive

PY = "python3 -c "
SERVER = (
    "import socket,select,threading,time\ns=socket.create_server(('127.0.0.1',9000))\n"
    "c=socket.create_connection(('127.0.0.1',9000))\n"
)
WAITING = {
    "read": "read x",
    "read with prompt": "read -p 'Continue? [Y/n] ' x",
    "read with timeout": "read -t 60 x",
    "input()": PY + "'input(\"name: \")'",
    "getpass": PY + "'import getpass; getpass.getpass()'",
    "/dev/tty": "echo hi | python3 -c 'open(\"/dev/tty\").readline()'",
    "cat": "cat",
    "cat | sort": "cat | sort",
    "interactive bash": "bash --norc -i",
    "python REPL": "python3 -q",
    "reader beside a sleeper": "sleep 60 & read x",
    "reading thread": PY + "'import threading as t; w=t.Thread(target=input); w.start(); w.join()'",
    "asyncio": PY + "'import asyncio\nl=asyncio.new_event_loop(); l.add_reader(0,print); l.run_forever()'",
    "vim": "vim -u NONE f",
    "less": "seq 5000 | less",
    "nested": "script -qc 'read x' /dev/null",
}
BUSY = {
    "sleep": "sleep 60",
    "spinning": "while :; do :; done",
    "sleep | cat": "sleep 60 | cat",
    "wait": "sleep 60 & wait",
    "accept": f'{PY}"{SERVER}s.accept();s.accept()"',
    "poll of a socket": f'{PY}"{SERVER}select.select([c],[],[])"',
    "tail -f": "touch long; tail -f long",
    "stopped": "kill -STOP $$",
    "background reader": "set -m; cat & sleep 60",
    "compressing": "cat /dev/urandom | gzip > /dev/null",
    "flood": "yes",
    "reader thread, busy main": (
        PY + "'import threading as t; t.Thread(target=input,daemon=True).start()\nwhile 1: pass'"
    ),
    "terminal for output": PY + "'import select; e=select.epoll(); e.register(1,0); e.poll()'",
    "subprocess.wait": PY + '\'import subprocess; subprocess.run(["sleep","60"])\'',
    "nested sleep": "script -qc 'sleep 60' /dev/null",
}
MAYBE = {
    "terminal and socket": f'{PY}"{SERVER}select.select([0,c],[],[])"',
    "console of a server": (
        f'{PY}"{SERVER}threading.Thread(target=input,daemon=True).start(); s.accept(); s.accept()"'
    ),
}


class Looker:
    """Sandboxes with terminals whose output is drained, and what was seen of them last."""

    def __init__(self, stand: Stand) -> None:
        self.client: ZygoteClient = stand.client
        self.stand = stand
        self.masters: dict[int, int] = {}
        self.seen: dict[int, list[str]] = {}
        self.ended: set[int] = set()

    def start(self, command: str) -> int:
        """Begin one; its number."""
        env = {"PATH": "/usr/bin:/bin", "TERM": "xterm", "HOME": "/tmp"}
        launch = Launch(
            self.stand.next_id(), Profile(tty=True), [b"bash", b"-c", command.encode()], env, tty=True
        )
        self.stand.launch(launch)
        self.seen[launch.id] = []
        self.wait(lambda: launch.id in self.masters)
        return launch.id

    def wait(self, is_true: Callable[[], bool]) -> None:
        """Take what comes until it holds."""
        until = time.monotonic() + PATIENCE_S
        while not is_true():
            assert time.monotonic() < until
            for message, fds in receive(self.client):
                assert not isinstance(message, Refused), message
                if isinstance(message, Launched):
                    self.masters[message.id] = fds.pop()
                    os.set_blocking(self.masters[message.id], False)
                elif isinstance(message, Looked):
                    self.seen[message.id].append(message.state)
                elif isinstance(message, Exited):
                    self.ended.add(message.id)
                protocol.close(fds)

    def drain(self, number: int) -> None:
        """Take its output, as a command that can't print does not get to its read."""
        for _ in range(64):
            try:
                os.read(self.masters[number], 1 << 16)
            except OSError:
                return

    def look(self, number: int) -> str:
        """Look once; gives the state."""
        self.drain(number)
        known = len(self.seen[number])
        self.client.look(number)
        self.wait(lambda: len(self.seen[number]) > known or number in self.ended)
        assert number not in self.ended, "it ended by itself"
        return self.seen[number][-1]

    def comes_to(self, number: int, state: str, limit_s: float = PATIENCE_S) -> bool:
        """Whether two looks, one after the other, see this."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            if self.look(number) == state:
                time.sleep(0.1)
                if self.look(number) == state:
                    return True
            time.sleep(0.05)
        return False

    def end(self) -> None:
        """Kill all."""
        for number in self.masters:
            self.client.kill(number)
        self.wait(lambda: self.ended >= set(self.masters))
        protocol.close(list(self.masters.values()))


def can_run(command: str) -> bool:
    """Whether the program is there."""
    return all(shutil.which(name) for name in ("vim", "less", "script") if name in command.split())


def test_look_sees_who_waits_for_input(stand: Stand) -> None:
    """Every program that has asked something and reads its terminal, however it does."""
    looker = Looker(stand)
    numbers = {name: looker.start(command) for name, command in WAITING.items() if can_run(command)}
    wrong = [name for name, number in numbers.items() if not looker.comes_to(number, "waiting", 10.0)]
    looker.end()
    assert not wrong


def test_look_calls_nobody_waiting_who_is_only_quiet(stand: Stand) -> None:
    """Sleeping, serving, stopped, computing or flooding: never ``waiting``, in many looks."""
    looker = Looker(stand)
    numbers = {name: looker.start(command) for name, command in {**BUSY, **MAYBE}.items() if can_run(command)}
    time.sleep(0.7)
    seen: dict[str, set[str]] = {name: set() for name in numbers}
    for _ in range(5):
        for name, number in numbers.items():
            seen[name].add(looker.look(number))
        time.sleep(0.05)
    settled = {name: looker.comes_to(numbers[name], "maybe", 5.0) for name in MAYBE}
    looker.end()
    assert not {name: states for name, states in seen.items() if "waiting" in states}
    assert not {name: seen[name] for name in BUSY if name in seen and "maybe" in seen[name]}
    assert all(settled.values()), settled


def test_look_sees_a_poll_that_was_frozen_and_let_go(stand: Stand) -> None:
    """After a stop the kernel shows such a call as restart_syscall."""
    looker = Looker(stand)
    number = looker.start(PY + "'import select; p=select.poll(); p.register(0,1); p.poll()'")
    assert looker.comes_to(number, "waiting")
    stand.client.freeze(number)
    time.sleep(0.2)
    stand.client.thaw(number)
    assert looker.comes_to(number, "waiting")
    looker.end()


def test_look_says_that_it_may_not_see(stand: Stand) -> None:
    """Who made itself not dumpable can't be looked into: said as such, neither waiting nor busy."""
    looker = Looker(stand)
    number = looker.start(PY + "'import ctypes; ctypes.CDLL(None).prctl(4,0,0,0,0); input()'")
    assert looker.comes_to(number, "unseen")
    looker.end()


def test_look_at_nobody_is_not_answered(stand: Stand) -> None:
    """An unknown number is ignored, as for Kill; the zygote goes on."""
    stand.client.look(10_000)
    assert stand.shell("echo fine").out == "fine\n"


def test_observer_says_that_it_may_not_look(tmp_path: Path) -> None:
    """A /proc that hides others is an error, never an answer."""
    with pytest.raises(BlindError):
        Observer(str(tmp_path), 1).look()
