"""One user with one task: submits, watches, answers for what is in doubt, whatever dies meanwhile.

Owns: the client of one job, and what the user saw.
Must not know: who is killed.
Invariants: a submission is repeated with its key until it is accepted; an effect in doubt is answered by
            looking at the target, never by guessing.
Source: docs/PROTOCOL.md; DESIGN §2 law 3.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from homeostat.proto import wire
from homeostat.proto.client import Client, WireRefusedError
from homeostat.proto.errors import UnreachableError
from homeostat.proto.ids import ENDED

from .model import Job

ANSWER_S = 15.0
PAUSE_S = 0.02
T = TypeVar("T")


@dataclass
class Seen:
    """What a user saw of a task."""

    events: list[wire.Event] = field(default_factory=list)
    submissions: set[str] = field(default_factory=set)
    """The ids that all submissions under the one key were given."""
    created: int = 0
    answers: dict[str, str] = field(default_factory=dict)
    """What was said of each key in doubt."""
    ended: bool = False
    trouble: str = ""


class Driver(threading.Thread):
    """Carries one job through."""

    def __init__(self, home: Path, job: Job, resubmit: bool) -> None:
        super().__init__(name=job.name, daemon=True)
        self.home, self.job, self.seen = home, job, Seen()
        self._resubmit = resubmit
        self._stopped = threading.Event()
        self._client: Client | None = None

    def run(self) -> None:
        """Until the task has ended, or the round gives up."""
        try:
            self._stopped.wait(self.job.delay_s)
            self._submit()
            self._follow()
            if self._resubmit:
                self._submit()
            self.seen.ended = True
        except _StoppedError:
            self.seen.trouble = self.seen.trouble or "given up by the round"
        except Exception as error:  # noqa: BLE001  whatever a client may not raise is a finding of the round
            self.seen.trouble = f"{type(error).__name__}: {error}"
        finally:
            if self._client is not None:
                self._client.close()

    def stop(self) -> None:
        """Give up soon."""
        self._stopped.set()

    def workspace(self) -> Path:
        """Where the effects are."""
        return Path(self.job.place.path or self.home / "workspaces" / self.job.task)

    def _submit(self) -> None:
        job = self.job
        taken = self._persist(
            lambda client: client.submit(
                job.name, agent=job.agent, plan=job.plan, workspace=job.place.path, key=job.name
            )
        )
        job.task = taken.task
        self.seen.submissions.add(taken.task)
        self.seen.created += taken.created

    def _follow(self) -> None:
        cursor = 0
        while not self._over():
            cursor = self._persist(lambda client, after=cursor: self._watch(client, after))  # type: ignore[misc]  # mypy can't infer a lambda with a default

    def _over(self) -> bool:
        return any(
            event.kind == "status" and event.data["status"] in ENDED for event in self.seen.events[-3:]
        )

    def _watch(self, client: Client, after: int) -> int:
        """One pass of events; keeps what it got even if the connection breaks."""
        try:
            for event in client.watch(self.job.task, cursor=after):
                after = event.position
                self.seen.events.append(event)
                if event.kind == "status" and event.data["status"] == "in_doubt":
                    self._answer(client)
                if len(self.seen.events) == self.job.cancel_after:
                    self._insist(lambda client: client.cancel(self.job.task, "the user's wish"))
                if self._stopped.is_set():
                    raise _StoppedError
        except UnreachableError:
            time.sleep(PAUSE_S)
        return after

    def _answer(self, client: Client) -> None:
        """A person looks at the target and says what is there."""
        shown = client.show(self.job.task)
        for step in shown.steps:
            for call in step.calls:
                if call.key in shown.task.in_doubt:
                    self._resolve(call.key, self._look(step.step))

    def _look(self, step: int) -> str:
        effect = self.job.effects.get(step)
        if effect is None:
            raise LookupError(f"step {step} has no effect and is in doubt")
        return "happened" if count(self.workspace(), effect.paths[0], effect.token) else "did_not"

    def _resolve(self, key: str, answer: str) -> None:
        self.seen.answers[key] = answer
        self._insist(lambda client: client.resolve(self.job.task, key, answer))

    def _insist(self, ask: Callable[[Client], object]) -> None:
        """Ask for something that may have been done already."""
        try:
            self._persist(ask)
        except WireRefusedError as refused:
            # The answer to an earlier try was lost on the way: the round's check reads what was recorded.
            if refused.refusal.code not in ("not_in_doubt", "not_open"):
                raise

    def _persist(self, ask: Callable[[Client], T]) -> T:
        """Ask until there is an answer."""
        while not self._stopped.is_set():
            try:
                if self._client is None:
                    self._client = Client.for_home(self.home, timeout_s=ANSWER_S)
                return ask(self._client)
            except UnreachableError:
                if self._client is not None:
                    self._client.close()
                self._client = None
                time.sleep(PAUSE_S)
            except WireRefusedError as refused:
                if refused.refusal.retry_after_s is None:
                    raise
                time.sleep(refused.refusal.retry_after_s)
        raise _StoppedError


class _StoppedError(Exception):
    """The round gave up."""


def count(workspace: Path, path: str, token: str) -> int:
    """How often an effect is found in a file."""
    file = workspace / path
    return file.read_text().split("\n").count(token) if file.exists() else 0
