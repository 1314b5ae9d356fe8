"""A gate's core on a stand: no sockets, no disk; the stand plays shell, brain and executor.

Owns: submitting tasks, ending rounds as the shell does, restoring a core from what a round wrote.
Must not know: how the core decides.
Invariant: a restored core is made of encoded heads and committed records alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import homeostat.workers.gate
from homeostat.proto import messages as m, records as r, wire
from homeostat.proto.config import Agent, Config
from homeostat.proto.ids import Epoch, Key
from homeostat.proto.tools import CATALOGUE
from homeostat.workers.gate import admission
from homeostat.workers.gate.core import GateCore
from homeostat.workers.gate.effects import Round
from homeostat.workers.gate.pipeline.decide import Pipeline
from homeostat.workers.gate.pipeline.policy import Policies
from homeostat.workers.gate.state import OpenCall, Summary, Task, decode_head, encode_task

SECOND = 1_000_000_000
DEFAULT = (Path(homeostat.workers.gate.__file__).parent / "policies" / "default.cedar").read_text()
PIPELINE = Pipeline(list(CATALOGUE.values()), Policies({"default": DEFAULT}))
NO_TOKENS = r.Usage()
CHAT = Agent(name="default", provider="chat")
DIFF = r.DiffSummary((), 1, 3, 0, 0, "digest")


def call(tool: str = "task.note", args: str = '{"text": "x"}', thought: str = "because") -> r.Call:
    """A call as a model writes it."""
    return r.Call(tool, args.encode(), thought)


NOTE = call()
READ = call("file.read", '{"path": "a"}')
SHELL = call("shell.run", '{"command": "make"}')
REFUSED = call("nonsense", "{}")


class Stand:
    """One core, and everything that its rounds wrote."""

    def __init__(self, agent: Agent = CHAT, pipeline: Pipeline = PIPELINE) -> None:
        self.config = Config(agent=(agent,))
        self.pipeline = pipeline
        self.now_ns = SECOND
        self.heads: dict[int, bytes] = {}
        self.records: dict[int, list[bytes]] = {}
        self.sent: list[tuple[str, Any]] = []
        """Everything that left, in order: ``(role, message)``."""
        self.kills: list[m.KillWorker] = []
        self.epoch = 0
        self.core = self._new()

    def _new(self) -> GateCore:
        return GateCore(self.config, self.pipeline, "/workspaces")

    # -- rounds ------------------------------------------------------------------------------------------
    def commit(self) -> Round:
        """End a round as the shell does, until the gate owes nothing; give the first."""
        first = self.write()
        while self.core.owes or not self.core.round.empty():
            self.core.committed(self.now_ns)
            self.write()
        return first

    def write(self) -> Round:
        """Write what was collected, then let it leave."""
        done = self.core.take_round()
        for append in done.records:
            line = self.records.setdefault(append.task_no, [])
            assert append.seq == len(line), "records of a task are dense and in order"
            line.append(r.encode_record(append.record))
        for number, task in done.heads.items():
            self.heads[number] = encode_task(task)
        self.heads.update(done.ended)
        self.sent += [(role, message) for role, _, message in (*done.now, *done.after)]
        self.sent += [("brain", ("assign", item.task.id, item.task.step)) for item in done.assign]
        self.kills += done.kills
        return done

    def restart(self) -> None:
        """The gate was killed after its last commit: begin again from what is written."""
        self.core = self._new()
        self.core.next_task_no = 1 + max((number for number in self.records if number), default=0)
        self.core.system_seq = len(self.records.get(0, []))
        for _, data in sorted(self.heads.items()):
            head = decode_head(data)
            if isinstance(head, Task):
                self.core.restore(head)
            else:
                self.core.counts[head.status] = self.core.counts.get(head.status, 0) + 1

    # -- words -------------------------------------------------------------------------------------------
    def up(self, *roles: str) -> None:
        """Workers of a new epoch say hello."""
        for role in roles or ("brain", "executor", "memory"):
            self.epoch += 1
            self.core.worker_up(role, 0, Epoch(self.epoch), self.now_ns)

    def submit(self, **fields: Any) -> Task:
        """A client submits a task."""
        request = wire.Submit(objective="do it", **fields)
        return admission.submit(self.core, request, "local", b"journal", 1 << 40, now_ns=self.now_ns)

    def propose(self, task: Task, *calls: r.Call, usage: r.Usage = NO_TOKENS) -> None:
        """The brain proposes the calls of the task's step."""
        self.core.on_propose(m.Propose(task.id, task.branch, task.step, "", calls, usage), self.now_ns)

    def finish(self, task: Task, status: str = "done") -> None:
        """The brain says that the task is over."""
        said = m.Finish(task.id, task.branch, task.step, status, "result", r.Usage())
        self.core.on_finish(said, self.now_ns)

    def staged(self, key: str, diff: r.DiffSummary = DIFF) -> None:
        """The executor shows what a call did."""
        self.core.on_staged(m.StagedDiff(Key(key), diff), 0, self.now_ns)

    def ended(self, key: str, status: Any = "ok", text: str = "out", **fields: Any) -> None:
        """The executor tells how a call ended."""
        self.core.on_ended(m.Ended(Key(key), status, text, **fields), "executor", 0, self.now_ns)

    def after(self, seconds: float) -> None:
        """Time goes by, then the core looks at the clock."""
        self.now_ns += int(seconds * SECOND)
        self.core.on_time(self.now_ns)

    # -- what can be seen --------------------------------------------------------------------------------
    def task(self, task: Task) -> Task:
        """The open task as this core has it."""
        return self.core.by_id[task.id]

    def open_call(self, task: Task, index: int = 0) -> OpenCall:
        """A call of the current step."""
        return self.task(task).calls[index]

    def history(self, task: Task) -> list[r.Record]:
        """All written records of a task."""
        return [r.decode_record(data) for data in self.records[task.no]]

    def kinds(self, task: Task) -> list[str]:
        """Their kinds."""
        return [str(record.__struct_config__.tag) for record in self.history(task)]

    def said(self, kind: type[Any]) -> list[Any]:
        """All messages of a type that left."""
        return [message for _, message in self.sent if isinstance(message, kind)]

    def summary(self, task: Task) -> Summary:
        """The last head of an ended task."""
        head = decode_head(self.heads[task.no])
        assert isinstance(head, Summary)
        return head


def started(agent: Agent = CHAT) -> tuple[Stand, Task]:
    """A stand with all workers and one task that is thinking."""
    stand = Stand(agent)
    stand.up()
    task = stand.submit()
    stand.commit()
    stand.sent.clear()
    return stand, task
