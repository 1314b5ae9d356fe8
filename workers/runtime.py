"""The loop that brain, executor and memory run: mailbox, timers, descriptors, beat, drain, stop.

Owns: the worker's end of its link to the gate, and when its shell is called.
Must not know: what any message means.
Invariant: the loop sleeps without a timeout when nothing is due; a message is acknowledged after it was
    handled.
Source: DESIGN §3 (sockets, epochs), §7 (phase word); etcd raft's "the caller persists before it sends".
"""

from __future__ import annotations

import heapq
import itertools
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import zmq

from ..proto import codec, link, messages as m
from ..proto.config import Config
from ..proto.errors import HomeostatError, ProtocolError
from ..proto.ids import Role, identity
from ..proto.subjects import subject_of
from ..proto.transport import Waiter, dealer, drain
from .letters import Dropped
from .phase import BULKY_BYTES, Phase, PhaseWord

LAST_WORDS_MS = 200
"""At an orderly end: how long what was sent last may take to leave."""
LONGEST_WAIT_MS = 60_000
"""zmq_poll(3) takes an int: a deadline of 25 days would not fit, so a far one is waited for in parts."""
HELLO_AGAIN_S = 0.02
HELLO_AGAIN_MAX_S = 0.5


@dataclass(frozen=True)
class Context:
    """Who this worker is and what it was handed."""

    role: Role
    index: int
    epoch: int
    secret: bytes
    home: Path
    """The home folder as this process reaches it: relative as root, where a parent folder may be closed to
    it.
    """
    home_name: str
    """The home folder's absolute path, for people and for other processes."""
    config: Config
    fds: dict[str, int]
    enforced: str = ""
    """The confinement that this process holds."""
    zmq: zmq.Context[Any] = field(default_factory=zmq.Context)
    """Made while it was parked, with its threads."""

    @property
    def control(self) -> socket.socket:
        """The SEQPACKET socket to the supervisor."""
        return socket.socket(fileno=os.dup(self.fds["control"]))


@dataclass(order=True)
class Timer:
    """One pending call."""

    due_s: float
    number: int
    callback: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        """Never call it."""
        self.callback = None


class Timers:
    """Pending calls by monotonic time."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._numbers = itertools.count()

    def call_at(self, due_s: float, callback: Callable[[], None]) -> Timer:
        """Call it once at this monotonic time or soon after."""
        timer = Timer(due_s, next(self._numbers), callback)
        heapq.heappush(self._heap, timer)
        return timer

    def due(self) -> float | None:
        """When the next one is due."""
        while self._heap and self._heap[0].callback is None:
            heapq.heappop(self._heap)
        return self._heap[0].due_s if self._heap else None

    def run(self, now_s: float) -> None:
        """Call all that are due."""
        while (due := self.due()) is not None and due <= now_s:
            callback = heapq.heappop(self._heap).callback
            if callback is not None:
                callback()


class Worker(Protocol):
    """What a worker's shell gives to the loop."""

    def on_welcome(self) -> None:
        """A gate (perhaps a new one) knows us; it will send afresh what we need."""

    def on_message(self, message: Any) -> None:
        """One message of the gate, in order."""

    def on_stop(self, deadline_s: float) -> None:
        """Drain; call Loop.finish() when done, at the latest after the deadline."""


class Supervised:
    """A worker's side of its control socket to the supervisor."""

    def __init__(self, control: socket.socket) -> None:
        self.socket = control
        self.socket.setblocking(False)

    def say(self, message: m.ToSupervisor) -> None:
        """Tell the supervisor."""
        self.socket.send(codec.encode(message))

    def fatal(self, error: HomeostatError) -> None:
        """Restarting will not help: say why."""
        self.say(m.Fatal(error.code, error.message, error.remedy, error.exit_code))

    def hear(self) -> list[Any]:
        """Give all waiting messages; the end of the socket is a Stop without time."""
        heard: list[Any] = []
        while True:
            try:
                data = self.socket.recv(codec.CONTROL_LIMIT_BYTES)
            except BlockingIOError:
                return heard
            if not data:
                return [*heard, m.Stop(0.0)]
            heard.append(codec.FROM_SUPERVISOR.decode(data))


class Loop:
    """The services of the loop for a shell, and the loop itself."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._supervised = Supervised(context.control)
        self._link: link.Link[Any, Any] = link.Link(context.epoch)
        self._dropped = Dropped(self._link.post)
        self._timers = Timers()
        self._watched: dict[int, Callable[[], None]] = {}
        self._poller = zmq.Poller()
        self._waiter = Waiter(self._poller)
        self.phase = PhaseWord.attach(context.fds)
        self._zmq = context.zmq
        self._gate = dealer(
            self._zmq,
            f"ipc://{context.home}/run/gate.sock",
            identity(context.role, context.index, context.epoch),
        )
        self._poller.register(self._gate, zmq.POLLIN)
        self._poller.register(self._supervised.socket.fileno(), zmq.POLLIN)
        self._welcome_gate = 0
        self._hello_again_s = HELLO_AGAIN_S
        self._finished = False
        self._worker: Worker | None = None
        self._epoch = context.epoch

    # -- services --------------------------------------------------------------------------------------
    def post(self, message: m.FromWorker) -> None:
        """Send to the gate: reliably, in order, resent until acknowledged."""
        self._link.post(message)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call whenever the descriptor is readable (or at its end), until unwatched."""
        if fd not in self._watched:
            self._poller.register(fd, zmq.POLLIN | zmq.POLLERR)
        self._watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop watching; before the descriptor is closed."""
        if self._watched.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call once after this many seconds."""
        return self._timers.call_at(time.monotonic() + delay_s, callback)

    def ready(self) -> None:
        """Tell the supervisor that this worker serves."""
        self._supervised.say(m.Ready(self._context.enforced))

    def fatal(self, error: HomeostatError) -> NoReturn:
        """Tell the supervisor that no restart will help, and end."""
        self._supervised.fatal(error)
        sys.exit(error.exit_code)

    def finish(self) -> None:
        """Leave the loop after this round."""
        self._finished = True

    # -- the loop --------------------------------------------------------------------------------------
    def run(self, worker: Worker) -> None:
        """Serve until finish()."""
        self._worker = worker
        self._hello()
        while not self._finished:
            self._flush()
            self.phase.write(Phase.IDLE)
            events = self._waiter.poll(self._timeout_ms())
            self.phase.write(Phase.RUN)
            self._read_gate()
            self.phase.subject("")  # What follows is no message's doing.
            for source, _ in events:
                if source == self._supervised.socket.fileno():
                    self._read_control()
                elif isinstance(source, int) and (callback := self._watched.get(source)):
                    callback()
            self._timers.run(time.monotonic())
        self._flush()
        self._gate.close(linger=LAST_WORDS_MS)
        self._zmq.term()

    @property
    def _served(self) -> Worker:
        if self._worker is None:
            raise RuntimeError("the loop does not run yet")
        return self._worker

    def _timeout_ms(self) -> int | None:
        dues = [due for due in (self._timers.due(), self._link.due()) if due is not None]
        if not dues:
            return None
        wait_ms = int((min(dues) - time.monotonic()) * 1000) + 1
        return max(0, min(LONGEST_WAIT_MS, wait_ms))

    def _flush(self) -> None:
        if not self._welcome_gate:
            return
        try:
            for frame in self._link.frames(time.monotonic()):
                self._gate.send(link.encode(frame), zmq.NOBLOCK)
        except zmq.Again:
            return  # The queue towards the gate is full: the link's resend timer sends the rest.

    def _read_gate(self) -> None:
        for parts in drain(self._gate):
            phase = Phase.WORK if len(parts[-1]) > BULKY_BYTES else Phase.RUN
            self.phase.write(phase)
            try:
                frame = link.decode_to_worker(parts[-1])
            except ProtocolError as error:
                self._dropped.tell("undecodable", parts[-1], detail=str(error))
                continue
            if isinstance(frame, m.Welcome):
                self._welcomed(frame)
                continue
            if not self._welcome_gate:
                continue  # A dead gate's last words; its acks would change the numbering of our Hello.
            for message in self._link.receive(frame, time.monotonic()):
                self.phase.write(phase)
                self.phase.subject(subject_of(message))
                self._served.on_message(message)
            self._link.acknowledge(time.monotonic())

    def _read_control(self) -> None:
        for message in self._supervised.hear():
            if isinstance(message, m.GateEpoch):
                if message.epoch > self._welcome_gate:
                    self._welcome_gate = 0
                    self._hello()
            elif isinstance(message, m.Stop):
                self._served.on_stop(message.deadline_s)
            # A Ping asks for a sign of life: having been woken by it is one (the phase word).

    def _hello(self) -> None:
        """Greet, and again until welcomed: the gate may not be there yet."""
        self._hello_again_s = HELLO_AGAIN_S
        self._say_hello()

    def _say_hello(self) -> None:
        if self._welcome_gate:
            return
        me = self._context
        hello = m.Hello(link.VERSION, me.role, me.index, me.epoch, me.secret, self._link.first_seq)
        try:
            self._gate.send(link.encode(hello), zmq.NOBLOCK)
        except zmq.Again:
            print("the queue towards the gate is full", file=sys.stderr)
        self.call_later(self._hello_again_s, self._say_hello)
        self._hello_again_s = min(HELLO_AGAIN_MAX_S, self._hello_again_s * 1.5)

    def _welcomed(self, welcome: m.Welcome) -> None:
        if self._welcome_gate == welcome.epoch or welcome.epoch < self._link.peer_epoch:
            return
        self._welcome_gate = welcome.epoch
        self._link.meet(welcome.epoch, welcome.first_seq)
        self._served.on_welcome()


def run(context: Context, make: Callable[[Context, Loop], Worker]) -> NoReturn:
    """Run a worker until it is stopped; exit 0."""
    loop = Loop(context)
    try:
        worker = make(context, loop)
    except HomeostatError as error:
        loop.fatal(error)
    loop.run(worker)
    sys.stdout.flush()
    os._exit(0)  # Nothing to unwind: threads of providers must not hold the exit back.
