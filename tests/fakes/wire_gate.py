"""A gate as clients see it: a real ROUTER in a thread, with tasks that live in memory.

Owns: the journal of a test (a list of events) and what each request is answered.
Must not know: policy, workers, disks.
Invariant: it answers only what docs/PROTOCOL.md allows; it can die and come back without losing its journal.
Source: proto/wire.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import zmq

from homeostat.proto import wire
from homeostat.proto.codec import BadRequestError, decode_request, encode


class WireGate:
    """``drop`` swallows that many of the next requests; ``answers`` overrides what a request type gets."""

    def __init__(self, endpoint: str, configure: Callable[[zmq.Socket[bytes]], None] | None = None) -> None:
        self.endpoint = endpoint
        self.requests: list[wire.Request] = []
        self.events: list[wire.Event] = []
        self.tasks: dict[str, wire.TaskView] = {}
        self.steps: dict[str, list[wire.StepView]] = {}
        self.keys: dict[str, str] = {}
        self.frozen: dict[tuple[str, str], str] = {}
        self.moving = 0
        self.drop = 0
        self.page = 2
        self.answers: dict[type[wire.Request], wire.Reply] = {}
        self._configure = configure
        self._held: list[tuple[list[bytes], wire.Watch]] = []
        self._stopping = threading.Event()
        self._lock = threading.RLock()
        self.start()

    def start(self) -> None:
        """Bind and serve; for the second time this is a restarted gate."""
        self._stopping.clear()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        if self._configure:
            self._configure(self._socket)
        self._socket.bind(self.endpoint)
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Die, with everything that was held back or on its way."""
        self._stopping.set()
        self._thread.join()
        self._held.clear()
        self._socket.close(linger=0)
        self._context.term()

    def record(self, task: str, kind: str, **data: Any) -> None:
        """Add an event to the journal, and move the task's status with it."""
        with self._lock:
            position = len(self.events) + 1
            self.events.append(
                wire.Event(position=position, task=task, kind=kind, at_ns=position * 1_000_000, data=data)
            )
            if kind == "status":
                self.tasks[task] = msgspec.structs.replace(self.tasks[task], status=data["status"])

    def add_task(self, name: str, steps: int = 0, status: str = "running") -> None:
        """A task with steps of one finished call each."""
        self.tasks[name] = wire.TaskView(
            task=name,
            status=status,
            objective="count",
            agent="default",
            workspace="/w",
            steps=steps,
            accepted_at_ns=1,
        )
        outcome = wire.OutcomeView(status="ok", exit_code=0, text="4\n", duration_s=0.25)
        self.steps[name] = [
            wire.StepView(
                step=number,
                thought=f"thought {number}",
                calls=[
                    wire.CallView(
                        tool="shell.run",
                        args={"command": "wc -l"},
                        thought=f"thought {number}",
                        klass="staged",
                        key=f"{number:032x}",
                        verdict="admit",
                        reason="permitted",
                        outcome=outcome,
                    )
                ],
            )
            for number in range(1, steps + 1)
        ]

    # -- serving
    def _serve(self) -> None:
        while not self._stopping.is_set():
            if self._socket.poll(5):
                *envelope, data = self._socket.recv_multipart()
                if self.drop:
                    self.drop -= 1
                else:
                    with self._lock:
                        self._answer(envelope, data)
            with self._lock:
                self._release()

    def _answer(self, envelope: list[bytes], data: bytes) -> None:
        try:
            request = decode_request(data)
        except BadRequestError as error:
            self._send(envelope, error.refusal)
            return
        self.requests.append(request)
        if isinstance(request, wire.Watch) and request.wait_s and not self._batch(request).events:
            self._held.append((envelope, request))
        else:
            self._send(envelope, self._reply(request))

    def _release(self) -> None:
        for held in [held for held in self._held if self._batch(held[1]).events]:
            self._held.remove(held)
            self._send(held[0], self._batch(held[1]))

    def _send(self, envelope: list[bytes], reply: wire.Reply) -> None:
        self._socket.send_multipart([*envelope, encode(reply)])

    def _reply(self, request: wire.Request) -> wire.Reply:
        if type(request) in self.answers:
            return msgspec.structs.replace(self.answers[type(request)], rid=request.rid)
        match request:
            case wire.Submit():
                return self._submit(request)
            case wire.Watch():
                return self._batch(request)
            case wire.List():
                rows = [row for row in self.tasks.values() if request.status in ("", row.status)]
                return wire.Tasks(rid=request.rid, tasks=rows)
            case wire.Status():
                counts = {"open": sum(row.status == "running" for row in self.tasks.values())}
                return wire.StatusReply(
                    rid=request.rid,
                    ready=True,
                    version="0",
                    tasks=counts,
                    workers=["brain.0.1"],
                    position=len(self.events),
                    tree_root="",
                )
            case wire.Letters():
                return wire.DeadLetters(rid=request.rid, letters=[])
            case wire.Freeze():
                return self._freeze(request)
            case wire.Thaw():
                was = self.frozen.pop((request.scope, request.name), None)
                rest = [wire.FreezeView(scope=scope, name=name, since=1) for scope, name in self.frozen]
                return wire.Thawed(
                    rid=request.rid,
                    scope=request.scope,
                    name=request.name,
                    changed=was is not None,
                    since=1 if was is not None else 0,
                    frozen=rest,
                )
            case wire.Get() | wire.Cancel() | wire.Resolve():
                return self._of_task(request)
            case wire.Attach() | wire.Diff() | wire.Rewind():
                words = f"{type(request).__name__}: this gate was told no answer"
                return wire.Refused(rid=request.rid, code="not_now", message=words)

    def _freeze(self, request: wire.Freeze) -> wire.Frozen:
        created = (request.scope, request.name) not in self.frozen
        if created:
            self.frozen[request.scope, request.name] = request.reason
        self.moving = max(0, self.moving - 1)
        return wire.Frozen(
            rid=request.rid,
            scope=request.scope,
            name=request.name,
            created=created,
            since=1,
            reason=self.frozen[request.scope, request.name],
            tasks=2,
            moving=self.moving,
        )

    def _of_task(self, request: wire.Get | wire.Cancel | wire.Resolve) -> wire.Reply:
        if request.task not in self.tasks:
            return wire.Refused(
                rid=request.rid, code="unknown_task", message=f"no task {request.task}", field="task"
            )
        if isinstance(request, wire.Get):
            steps = [step for step in self.steps[request.task] if step.step >= request.from_step]
            more = steps[self.page].step if len(steps) > self.page else 0
            return wire.Task(
                rid=request.rid, task=self.tasks[request.task], steps=steps[: self.page], next_step=more
            )
        self.record(request.task, "status", status="cancelled", reason="asked", result="")
        answer = wire.Cancelled if isinstance(request, wire.Cancel) else wire.Resolved
        return answer(rid=request.rid, task=request.task, status="cancelled")

    def _submit(self, request: wire.Submit) -> wire.Reply:
        created = request.key not in self.keys
        if created:
            self.keys[request.key] = f"t{len(self.keys) + 1:016d}"
            self.add_task(self.keys[request.key])
        task = self.keys[request.key]
        return wire.Submitted(
            rid=request.rid, task=task, created=created, status=self.tasks[task].status, cursor=0
        )

    def _batch(self, request: wire.Watch) -> wire.Events:
        found = [
            event
            for event in self.events
            if event.position > request.cursor and request.task in ("", event.task)
        ][: request.limit]
        cursor = found[-1].position if found else request.cursor
        rest = any(event.position > cursor and event.task == request.task for event in self.events)
        ended = (
            bool(request.task)
            and not rest
            and self.tasks[request.task].status in ("done", "failed", "cancelled")
        )
        return wire.Events(rid=request.rid, cursor=cursor, events=found, ended=ended)


def serving(endpoint: str) -> Iterator[WireGate]:
    """For a fixture: a gate that is stopped at the end."""
    gate = WireGate(endpoint)
    yield gate
    gate.stop()


def local(folder: Path) -> str:
    """The endpoint of a home's client port."""
    (folder / "run").mkdir(parents=True, exist_ok=True)
    return f"ipc://{folder}/run/client.sock"
