"""The world around a real gate process: a supervisor's hands, and workers that speak the link.

Owns: listeners, control socket, epochs, kills and restarts of the gate; fake workers over DEALER sockets.
Must not know: how the gate decides.
Invariant: the executor counts each effect as it happens; a key that has happened is answered from its ledger.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from homeostat.proto import codec, link, messages as m, records as r, wire
from homeostat.proto.config import Config, to_bytes
from homeostat.proto.ids import Key, Role, TaskId, identity
from homeostat.proto.transport import dealer, drain
from homeostat.supervisor.identities import Identities
from homeostat.supervisor.listeners import listen
from homeostat.workers.phase import SIZE_BYTES

HOST = Path(__file__).with_name("gate_host.py")
PATIENCE_S = 60.0
SECRETS: dict[Role, bytes] = {"brain": b"b" * 16, "executor": b"e" * 16, "memory": b"m" * 16}


class GateWorld:
    """A home with a gate that can be killed and started again."""

    def __init__(self, home: Path, config: Config) -> None:
        self.home, self.config, self.epoch = home, config, 0
        for name in ("run/metrics/gate.0", "keys", "workspaces"):
            (home / name).mkdir(parents=True)
        self.listeners = listen(home, config, Identities(None))
        self.zmq: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.workers: list[FakeWorker] = []
        self.control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = (home / "gate.log").open("ab")

    def worker_epochs(self) -> m.Epochs:
        """Everyone is of epoch 1."""
        return m.Epochs(tuple(m.Incarnation(role, 0, 1, secret) for role, secret in SECRETS.items()))

    def start(self) -> None:
        """Start the next incarnation, and tell the workers of it."""
        self.epoch += 1
        if self._theirs.fileno() < 0:
            self.control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        phase = os.memfd_create("phase")
        os.ftruncate(phase, SIZE_BYTES)
        fds = {**self.listeners.of_gate(), "control": self._theirs.fileno(), "phase": phase}
        self.control.send(codec.encode(self.worker_epochs()))
        arguments = [str(self.home), str(self.epoch), to_bytes(self.config).hex(), json.dumps(fds)]
        self.process = subprocess.Popen(
            [sys.executable, str(HOST), *arguments],
            pass_fds=list(fds.values()),
            stdout=self.log,
            stderr=self.log,
        )
        self._theirs.close()
        os.close(phase)
        for worker in self.workers:
            worker.greet(self.epoch)

    def hear(self, timeout_s: float = PATIENCE_S) -> Any:
        """The gate's next word to its supervisor; None at the end of the socket."""
        ready, _, _ = select.select([self.control], [], [], timeout_s)
        assert ready, "the gate says nothing"
        data = self.control.recv(codec.CONTROL_LIMIT_BYTES)
        return codec.TO_SUPERVISOR.decode(data) if data else None

    def kill(self) -> None:
        """SIGKILL, and reap."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.control.close()

    def stop(self) -> int:
        """Ask it to drain; give its exit code."""
        assert self.process is not None
        self.control.send(codec.encode(m.Stop(5.0)))
        code = self.process.wait(PATIENCE_S)
        self.control.close()
        return code

    def close(self) -> None:
        """Take everything down."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for worker in self.workers:
            worker.socket.close(0)
        self.zmq.destroy(linger=0)
        self.listeners.close()
        self.control.close()
        self._theirs.close()
        self.log.close()

    def client(self, kind: int = zmq.DEALER) -> zmq.Socket[bytes]:
        """A client's socket on the local port."""
        sock = self.zmq.socket(kind)
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.RECONNECT_IVL, 5)
        sock.connect(f"ipc://{self.home}/run/client.sock")
        return sock

    def pump(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let the workers live for a while, or until something is so."""
        end_s = time.monotonic() + seconds
        while not until():
            if time.monotonic() >= end_s:
                return False
            for worker in self.workers:
                worker.turn()
            if self.workers:
                zmq.zmq_poll([(worker.socket, zmq.POLLIN) for worker in self.workers], 2)
        return True


def ask(sock: zmq.Socket[bytes], request: wire.Request, timeout_s: float = PATIENCE_S) -> Any:
    """One request and its answer."""
    sock.send(codec.encode(request))
    assert sock.poll(int(timeout_s * 1000)), "no answer"
    return codec.decode_reply(sock.recv())


class FakeWorker:
    """One worker of epoch 1: the link over a real socket."""

    def __init__(self, world: GateWorld, role: Role, secret: bytes | None = None) -> None:
        self.role, self.secret = role, SECRETS[role] if secret is None else secret
        self.socket = dealer(world.zmq, f"ipc://{world.home}/run/gate.sock", identity(role, 0, 1))
        self.link: link.Link[Any, Any] = link.Link(1)
        self.welcomed = 0
        self._hello_s = 0.0
        world.workers.append(self)

    def greet(self, epoch: int) -> None:
        """There is a new gate."""
        if self.welcomed != epoch:
            self.welcomed = 0

    def turn(self) -> None:
        """Greet if need be, take what came, send what is due."""
        now_s = time.monotonic()
        if not self.welcomed and now_s >= self._hello_s:
            self._hello_s = now_s + 0.02
            hello = m.Hello(link.VERSION, self.role, 0, 1, self.secret, self.link.first_seq)
            self.socket.send(link.encode(hello), zmq.NOBLOCK)
        for parts in drain(self.socket):
            frame = link.decode_to_worker(parts[-1])
            if isinstance(frame, m.Welcome):
                if frame.epoch > self.link.peer_epoch:
                    self.welcomed = frame.epoch
                    self.link.meet(frame.epoch, frame.first_seq)
            elif self.welcomed:
                for message in self.link.receive(frame, now_s):
                    self.on_message(message)
                self.link.acknowledge(now_s)
        if self.welcomed:
            for out in self.link.frames(now_s):
                self.socket.send(link.encode(out), zmq.NOBLOCK)

    def on_message(self, message: Any) -> None:
        """What this worker is for."""


class FakeBrain(FakeWorker):
    """Proposes fixed steps for every task, then finishes; a repeated Assign repeats the proposal."""

    def __init__(self, world: GateWorld, steps: list[tuple[r.Call, ...]]) -> None:
        super().__init__(world, "brain")
        self.steps = steps
        self.assigned: dict[str, int] = {}
        self.told: dict[tuple[str, int], m.Observe] = {}

    def on_message(self, message: Any) -> None:
        """Think."""
        match message:
            case m.Assign():
                self.assigned[message.task] = message.next_step
            case m.History() if message.last:
                self._propose(message.task, self.assigned[message.task])
            case m.Observe():
                self.told[(message.task, message.step)] = message
                self._propose(message.task, message.step + 1)

    def _propose(self, task: TaskId, step: int) -> None:
        if step < len(self.steps):
            self.link.post(m.Propose(task, 0, step, "", self.steps[step], r.Usage(1, 1)))
        else:
            self.link.post(m.Finish(task, 0, step, "done", "all done", r.Usage()))


class FakeExecutor(FakeWorker):
    """Counts effects by key; answers what has happened from its ledger."""

    def __init__(self, world: GateWorld) -> None:
        super().__init__(world, "executor")
        self.effects: Counter[Key] = Counter()
        self.ledger: dict[Key, m.Ended] = {}
        self.forgotten: set[Key] = set()

    def on_message(self, message: Any) -> None:
        """Act."""
        match message:
            case m.Execute() if message.key in self.ledger:
                # A read leaves before its intent is on disk: a gate that died in between gives it out anew.
                assert message.resumed or message.klass == "read", "a key was given out twice"
                self.link.post(self.ledger[message.key])
            case m.Execute() if message.klass == "staged":
                self.link.post(m.StagedDiff(message.key, r.DiffSummary((), 1, 3, 0, 0, "digest")))
            case m.Execute():
                self._happen(message.key, "read" if message.klass == "read" else "once")
            case m.Merge() if message.key in self.ledger:
                self.link.post(self.ledger[message.key])
            case m.Merge():
                self._happen(message.key, "merged")
            case m.Abort() if message.key not in self.ledger:
                self.ledger[message.key] = m.Ended(message.key, message.status, "")
                self.link.post(self.ledger[message.key])
            case m.Forget():
                self.forgotten.add(message.key)

    def _happen(self, key: Key, text: str) -> None:
        self.effects[key] += 1
        self.ledger[key] = m.Ended(key, "ok", text)
        self.link.post(self.ledger[key])
