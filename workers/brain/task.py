"""What the brain keeps of one assigned task.

Owns: the phases of a task in the brain.
Must not know: how it moves between them (core.py).
Invariant: ``answer`` is set exactly in the phases PROPOSED and ENDED;
``run`` is non-zero exactly in THINKING and RETRYING.
Source: DESIGN §4, §6 (brain).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from ...proto.config import Model
from ...proto.ids import TaskId
from ...proto.messages import AgentSpec, Assign, Finish, ModelTrouble, Observe, Propose, Turn
from ...proto.records import Plan, Usage
from .conversation import Conversation
from .providers.chat import Dialect, request_body
from .providers.script import UNKNOWN_TROUBLE


class Phase(Enum):
    """Where a task is."""

    GATHERING = auto()
    """Assigned; its history is arriving."""
    QUEUED = auto()
    """Its turn to think, and as many as may are thinking."""
    THINKING = auto()
    """A provider call is running."""
    RETRYING = auto()
    """A provider call failed; the pause before the next."""
    PROPOSED = auto()
    """Waiting for the observations of the step."""
    ENDED = auto()
    """Finished or given up; kept until the gate drops it, to say so again."""


@dataclass(slots=True)
class Mind:
    """A task's conversation with a model."""

    model: Model
    dialect: Dialect
    talk: Conversation
    request_bytes: int = 0
    bytes_per_token: float = 4.0
    """A guess for English and JSON until the provider reports what a request really cost."""

    def request(self) -> bytes:
        """Give the body of the next request."""
        return request_body(self.model, self.dialect, self.talk.messages())

    def calibrate(self, usage: Usage) -> None:
        """Learn from what the last request cost."""
        if usage.input_tokens > 0:
            self.bytes_per_token = min(8.0, max(1.0, self.request_bytes / usage.input_tokens))


@dataclass(slots=True)
class Task:
    """One assigned task."""

    id: TaskId
    branch: int
    agent: AgentSpec
    objective: str
    plan: Plan | None
    step: int
    trouble: str = ""
    """Script: why the last step counts as not ok."""
    said: int = -1
    """Script: the last step that this gate was told ahead."""
    phase: Phase = Phase.GATHERING
    history: list[Turn] = field(default_factory=list)
    mind: Mind | None = None
    run: int = 0
    attempt: int = 1
    answer: Propose | Finish | ModelTrouble | None = None
    previous: Propose | None = None
    """The proposal of the step before, for a gate that has not yet seen its outcome."""
    seen: Observe | None = None
    """What came of the step before."""

    @classmethod
    def of(cls, assign: Assign) -> Task:
        """Give the state in which an assignment starts."""
        trouble = UNKNOWN_TROUBLE if assign.failed else ""
        return cls(
            id=assign.task,
            branch=assign.branch,
            agent=assign.agent,
            objective=assign.objective,
            plan=assign.plan,
            step=assign.next_step,
            trouble=trouble,
            attempt=assign.attempts + 1,
        )

    @property
    def is_script(self) -> bool:
        """Answers are computed at once, without history."""
        return self.agent.provider == "script"

    def stands_by(self, assign: Assign) -> bool:
        """Whether what we know fits what the gate says now; a script also hears how the last step ended."""
        if self.branch != assign.branch or self.phase is Phase.GATHERING:
            return False
        return not self.is_script or self.step != assign.next_step or assign.failed == bool(self.trouble)

    def end(self, answer: Finish | ModelTrouble) -> None:
        """Keep the last word and what led to it, not the past."""
        self.phase, self.answer = Phase.ENDED, answer
        self.plan, self.mind, self.history = None, None, []
