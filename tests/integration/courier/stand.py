"""A courier with real sockets, in a thread, driven as gate and executor would.

Owns: a courier, its loop, the listeners of "sandboxes" (here on the host's own loopback), what was posted.
Must not know: what a test is about.
Invariant: the courier runs on one thread, as in its process; a test speaks to it by messages and sockets.
Source: workers/runtime.py; DESIGN §9 "Network".
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from homeostat.proto import egress, messages as m
from homeostat.proto.config import Agent, Config, Courier as Limits, Credential, Egress
from homeostat.proto.ids import EffectClass, Key, TaskId
from homeostat.workers.courier.names import system
from homeostat.workers.courier.shell import Courier
from tests.fakes.clocked_loop import ClockedLoop

TASK = TaskId("t1")
PATIENCE_S = 30.0
LOOPBACK = ("127.0.0.0/8",)


def eventually(what: Callable[[], object], why: str = "it never came") -> None:
    """Wait until it is so."""
    end_s = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end_s, why
        time.sleep(0.005)


def agent(*destinations: Egress, name: str = "web") -> Agent:
    """An agent that may reach these."""
    return Agent(name, egress=destinations)


@dataclass(frozen=True)
class Handed:
    """What the runtime would hand to the worker."""

    home: Path
    config: Config
    fds: dict[str, int]


@dataclass
class Sandbox:
    """What stands for a sandbox: its connection to the courier, and the address of its proxy."""

    key: Key
    connection: socket.socket
    port: int

    def dial(self) -> socket.socket:
        """A command's connection to its proxy."""
        one = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return one

    def ask(self, *parts: bytes) -> bytes:
        """Send this, and give all that comes back."""
        with self.dial() as one:
            for part in parts:
                one.sendall(part)
            return all_of(one)

    def end(self) -> None:
        """The sandbox ends."""
        self.connection.close()


def all_of(one: socket.socket) -> bytes:
    """Everything until the end."""
    data = b""
    try:
        while more := one.recv(65_536):
            data += more
    except ConnectionResetError:
        pass  # What came before it counts.
    return data


@dataclass
class Stand:
    """One courier."""

    home: Path
    agents: tuple[Agent, ...]
    limits: Limits = field(default_factory=Limits)
    credentials: tuple[Credential, ...] = ()
    names: Mapping[str, list[str]] | Callable[[str], list[str]] | None = None

    def __post_init__(self) -> None:
        (self.home / "run").mkdir(exist_ok=True)
        self.path = str(self.home / egress.SOCKET)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.config = Config(agent=self.agents, courier=self.limits, credential=self.credentials)
        self._numbers = iter(range(1, 1 << 20))
        self._sandboxes: list[Sandbox] = []
        self.start()

    def start(self) -> None:
        """Begin to serve, perhaps again."""
        self.loop = ClockedLoop()
        self._todo: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        handed = Handed(self.home, self.config, {"egress": self.listener.fileno()})
        self.courier = Courier(handed, self.loop, self._resolve)
        self.loop.watch(self._wake, self._woken)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self, within_s: float = 0.0) -> None:
        """As the supervisor stops it."""
        self.call(lambda: self.courier.on_stop(within_s))
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        self.loop.close()
        os.close(self._wake)
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """End all."""
        for sandbox in self._sandboxes:
            sandbox.end()
        if self._thread.is_alive():
            self.stop()
        self.listener.close()

    def _run(self) -> None:
        try:
            while not self.loop.finished:
                self.loop.run_until(lambda: self.loop.finished, 3_600.0)
        except BaseException as error:  # noqa: BLE001 - raised again by stop()
            self.error = error

    def _woken(self) -> None:
        os.eventfd_read(self._wake)
        while self._todo:
            self._todo.popleft()()

    def _resolve(self, host: str) -> list[str]:
        if self.names is None:
            return system(host)
        if callable(self.names):
            return self.names(host)
        if host not in self.names:
            raise OSError(2, "name or service not known")
        return list(self.names[host])

    # -- as gate and executor --------------------------------------------------------------------------
    def call(self, what: Callable[[], None]) -> None:
        """Have the courier's thread do it."""
        self._todo.append(what)
        os.eventfd_write(self._wake, 1)

    def say(self, message: Any) -> None:
        """A word of the gate."""
        self.call(lambda: self.courier.on_message(message))

    def new_key(self) -> Key:
        """A key that was not used yet."""
        return Key(f"{next(self._numbers):032x}")

    def permit(self, key: Key, agent_name: str = "web", timeout_s: float = 300.0) -> None:
        """The gate's leave."""
        self.say(m.Permit(key, TASK, agent_name, timeout_s))

    def offer(self, key: Key, task: TaskId = TASK) -> Sandbox:
        """An executor offers a listener."""
        with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            connection.connect(self.path)
            socket.send_fds(connection, [egress.encode(egress.Offer(key, task))], [listener.fileno()])
            sandbox = Sandbox(key, connection, listener.getsockname()[1])
        self._sandboxes.append(sandbox)
        return sandbox

    def sandbox(self, agent_name: str = "web") -> Sandbox:
        """A sandbox with a way out."""
        key = self.new_key()
        self.permit(key, agent_name)
        return self.offer(key)

    def request(
        self,
        url: str,
        klass: EffectClass = "keyed",
        *,
        key: Key | None = None,
        agent_name: str = "web",
        wait: bool = True,
        resumed: bool = False,
        **arguments: object,
    ) -> m.Ended:
        """One http.request, to its end."""
        key = key or self.new_key()
        self.permit(key, agent_name)
        args = msgspec.json.encode({"url": url, **arguments})
        self.say(m.Execute(key, TASK, "http.request", args, klass, "", 60.0, 1 << 20, resumed))
        return self.ended(key) if wait else m.Ended(key, "ok", "")

    def ended(self, key: Key) -> m.Ended:
        """The outcome of a call."""
        eventually(lambda: self._ends(key), "the request never ended")
        return self._ends(key)[-1]

    def _ends(self, key: Key) -> list[m.Ended]:
        return [one for one in [*self.loop.posted] if isinstance(one, m.Ended) and one.key == key]

    def connections(self, key: Key) -> list[m.Connection]:
        """What was told of a call's connections so far."""
        told = [one for one in [*self.loop.posted] if isinstance(one, m.Connections) and one.key == key]
        return [connection for one in told for connection in one.connections]

    def more(self, key: Key) -> int:
        """How many more were only counted."""
        told = [one for one in [*self.loop.posted] if isinstance(one, m.Connections) and one.key == key]
        return sum(one.more for one in told)

    def connection(self, key: Key) -> m.Connection:
        """The first of them, when it is told."""
        eventually(lambda: self.connections(key), "no connection was told")
        return self.connections(key)[0]
