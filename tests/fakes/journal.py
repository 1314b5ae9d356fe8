"""A journal of made-up tasks, as a follower receives it.

Owns: records of plausible shape, dense positions.
Must not know: the real journal.
Invariant: the same arguments give the same records.
Source: proto/records.py.
"""

from __future__ import annotations

from homeostat.proto import records as r
from homeostat.proto.ids import Key, TaskId
from homeostat.proto.messages import JournalRecord

START_NS = 1_700_000_000_000_000_000


class FakeJournal:
    """Append records; read them as a follower does."""

    def __init__(self) -> None:
        self.entries: list[JournalRecord] = []

    @property
    def now_ns(self) -> int:
        """One second a record."""
        return START_NS + len(self.entries) * 1_000_000_000

    def add(self, task: str, record: r.Record) -> None:
        """Append."""
        position = len(self.entries) + 1
        self.entries.append(JournalRecord(position, TaskId(task), position, r.encode_record(record)))

    def objective(self, task: str, text: str) -> None:
        """A task was taken in."""
        self.add(task, r.Accepted(self.now_ns, TaskId(task), "default", text, "me", "", "", None, r.Limits()))

    def step(self, task: str, step: int, tool: str, args: str, output: str, *, thought: str = "") -> None:
        """One call with its verdict and outcome."""
        call = r.Call(tool, args.encode(), thought)
        key = Key(f"{step:032x}")
        self.add(task, r.Proposed(self.now_ns, step, "", (call,), r.Usage()))
        self.add(task, r.Decided(self.now_ns, step, 0, "call", "admit", "policy", "r", "", "p"))
        self.add(task, r.Outcome(self.now_ns, step, 0, key, "ok", output))

    def result(self, task: str, text: str) -> None:
        """The task is done."""
        self.add(task, r.StatusChanged(self.now_ns, "done", "", text))


def many_steps(steps: int) -> FakeJournal:
    """A long task with words that differ by step."""
    journal = FakeJournal()
    journal.objective("t0", "count all the things")
    for step in range(steps):
        journal.step(
            "t0", step, "shell.run", f'{{"command":"count thing{step}"}}', f"thing{step} has {step * 7} parts"
        )
    journal.result("t0", "all counted")
    return journal
