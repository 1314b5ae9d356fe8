"""The brain's decisions: which task thinks, what is proposed, when a failed call is tried again.

Owns: the state of every assigned task and the queue for provider calls.
Must not know: threads, HTTP, the clock, randomness: what it needs of them comes with the reports.
Invariant: at most one provider call runs for a (task, branch, step);
an answer that was given is said again, never made anew.
Source: DESIGN §4, §6, §10.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import assert_never

from ...proto.config import Agent
from ...proto.ids import TaskId
from ...proto.messages import (
    AgentSpec,
    Assign,
    Drop,
    Finish,
    History,
    ModelTrouble,
    Observe,
    Propose,
    ToBrain,
    Turn,
)
from ...proto.records import Usage
from .conversation import Conversation, turn_of
from .effects import (
    Answered,
    CallFailed,
    Effect,
    Post,
    Report,
    RetryAt,
    RetryDue,
    StartThinking,
    StopThinking,
    Untold,
)
from .providers import script
from .providers.chat import Dialect
from .providers.events import Failed
from .retry import pause_s
from .task import Mind, Phase, Task

THINKING_LIMIT = 64
"""Provider calls at once; more tasks wait their turn."""
ENDED_LIMIT = 256
"""Ended tasks whose last word is kept although the gate never dropped them."""


class Core:
    """All tasks of one brain. ``handle`` is the only door."""

    def __init__(
        self, agents: Mapping[str, Agent], system: str, thinking_limit: int = THINKING_LIMIT
    ) -> None:
        self._agents = agents
        self._system = system
        self._limit = thinking_limit
        self._tasks: dict[TaskId, Task] = {}
        self._runs: dict[int, TaskId] = {}
        self._last_run = 0
        self._thinking = 0
        self._queue: deque[TaskId] = deque()
        self._ended: dict[TaskId, None] = {}
        self._dialects: dict[str, tuple[AgentSpec, Dialect]] = {}

    def handle(self, message: ToBrain | Report) -> list[Effect]:
        """Take a message of the gate or a report of a provider call; give what is to be done, in order."""
        match message:
            case Observe():
                return self._observe(message)
            case Assign():
                return self._assign(message)
            case History():
                return self._history(message)
            case Drop():
                return self._drop(message.task)
            case Answered():
                return self._answered(message)
            case CallFailed():
                return self._failed(message)
            case RetryDue():
                return self._retry(message.run)
            case Untold():
                return self._untold(message)
            case _:
                assert_never(message)

    # -- words of the gate ---------------------------------------------------------------------------------
    def _assign(self, assign: Assign) -> list[Effect]:
        """Take a task; an assignment that is known already is answered again or left running."""
        known = self._tasks.get(assign.task)
        if known is not None and known.stands_by(assign):
            if known.step == assign.next_step:
                if isinstance(known.answer, Propose) and known.is_script:
                    return [self._say_ahead(known, known.answer)]  # A new gate was told nothing ahead.
                return [Post(known.answer)] if known.answer is not None else []
            if known.step == assign.next_step + 1 and known.previous is not None:
                # The gate has lost the outcome that we saw already: it will hear of it again, and we of it.
                known.said = known.step
                return [Post(said) for said in (known.previous, known.answer) if said is not None]
        effects = self._drop(assign.task)
        task = self._tasks[assign.task] = Task.of(assign)
        if assign.turns == 0 or task.is_script:
            effects += self._begin(task)
        return effects

    def _history(self, history: History) -> list[Effect]:
        """Collect the past; the last part lets the task begin."""
        task = self._tasks.get(history.task)
        if task is None or task.phase is not Phase.GATHERING:
            return []
        task.history += history.turns
        return self._begin(task) if history.last else []

    def _observe(self, observe: Observe) -> list[Effect]:
        """Go on to the next step; what was seen before is not thought about twice."""
        task = self._tasks.get(observe.task)
        if task is None or task.branch != observe.branch:
            return []  # The gate assigns what it wants us to think about, afresh.
        if task.step == observe.step and isinstance(task.answer, Propose):
            return self._advance(task, task.answer, observe)
        if task.step != observe.step + 1 or task.previous is None:
            return []
        if task.seen == observe:
            return [Post(task.answer)] if task.answer is not None else []
        effects = self._stop(task)  # The step ended otherwise after all: think again about what is true now.
        task.step, task.answer = observe.step, task.previous
        return effects + self._advance(task, task.previous, observe, again=True)

    def _drop(self, task_id: TaskId) -> list[Effect]:
        """Forget a task."""
        task = self._tasks.pop(task_id, None)
        self._ended.pop(task_id, None)
        return self._stop(task) if task is not None else []

    # -- steps ---------------------------------------------------------------------------------------------
    def _advance(self, task: Task, done: Propose, observe: Observe, *, again: bool = False) -> list[Effect]:
        task.previous, task.seen, task.answer = done, observe, None
        task.step += 1
        if task.mind is None:
            task.trouble = script.trouble_of(observe)
            return self._propose_script(task)
        if again:
            task.mind.talk.replace_last(turn_of(done, observe))
        else:
            task.mind.talk.add(turn_of(done, observe))
        task.attempt = 1
        return self._ask(task, task.mind)

    def _begin(self, task: Task) -> list[Effect]:
        """The past is complete: think, or wait for the outcome of what has been proposed already."""
        if task.is_script:
            return self._propose_script(task)
        mind = task.mind = self._mind(task)
        if mind is None:
            message = f"agent {task.agent.name} has no model in this brain's settings"
            return [self._give_up(task, "config", message)]
        turns, task.history = task.history, []
        for turn in turns:
            if turn.step >= task.step and not turn.observations and not turn.event:
                return self._await(task, turn)
            mind.talk.add(turn)
            task.step = max(task.step, turn.step + 1)
        return self._ask(task, mind)

    def _await(self, task: Task, turn: Turn) -> list[Effect]:
        """The journal has this proposal and not yet its outcome: never ask the model again."""
        task.step, task.phase = turn.step, Phase.PROPOSED
        task.answer = Propose(task.id, task.branch, turn.step, turn.text, turn.calls, Usage(), turn.raw)
        return []

    def _propose_script(self, task: Task) -> list[Effect]:
        answer = script.answer(
            task.id, task.branch, task.agent.name, task.plan, step=task.step, trouble=task.trouble
        )
        if isinstance(answer, Finish):
            return [self._end(task, answer)]
        task.phase, task.answer = Phase.PROPOSED, answer
        if task.step + script.AHEAD_STEPS // 2 <= task.said and not task.trouble:
            return []  # The gate knows this step and enough of those after it.
        return [self._say_ahead(task, answer)]

    def _say_ahead(self, task: Task, answer: Propose) -> Post:
        """Propose a scripted step, and tell what follows it as long as all goes well."""
        if task.plan is None:
            return Post(answer)
        said = script.ahead(answer, task.plan)
        task.said = said.step + len(said.then)
        return Post(said)

    # -- provider calls ------------------------------------------------------------------------------------
    def _ask(self, task: Task, mind: Mind) -> list[Effect]:
        """Start a provider call, or queue for one."""
        if self._thinking >= self._limit:
            task.phase = Phase.QUEUED
            self._queue.append(task.id)
            return []
        model, body = mind.model, mind.request()
        tokens = int(len(body) / mind.bytes_per_token)
        if tokens + model.max_output_tokens > model.context_tokens:
            message = (
                f"the conversation has about {tokens} tokens; with {model.max_output_tokens} for the answer "
                f"that is more than the {model.context_tokens} of {model.model}"
            )
            return [self._give_up(task, "context_too_long", message)]
        self._last_run += 1
        task.run, task.phase, mind.request_bytes = self._last_run, Phase.THINKING, len(body)
        self._runs[task.run] = task.id
        self._thinking += 1
        return [StartThinking(task.run, task.id, task.step, task.attempt, model, mind.dialect, body)]

    def _answered(self, report: Answered) -> list[Effect]:
        task = self._finished(report.run)
        if task is None or task.mind is None:
            return []
        answer = report.answer
        task.mind.calibrate(answer.usage)
        if answer.calls:
            task.phase = Phase.PROPOSED
            task.answer = Propose(
                task.id, task.branch, task.step, answer.text, answer.calls, answer.usage, answer.raw
            )
            return [Post(task.answer), *self._next()]
        finish = Finish(task.id, task.branch, task.step, "done", answer.text, answer.usage, answer.raw)
        return [self._end(task, finish), *self._next()]

    def _failed(self, report: CallFailed) -> list[Effect]:
        """Say so, and try again unless that is of no use."""
        task = self._finished(report.run)
        if task is None or task.mind is None:
            return []
        failure = report.failure
        delay_s = pause_s(failure, task.attempt, task.mind.model.attempts, report.jitter)
        if delay_s is None:
            return [self._give_up(task, failure.kind, failure.message), *self._next()]
        task.phase, task.run = Phase.RETRYING, report.run
        self._runs[report.run] = task.id
        return [Post(_trouble(task, failure, final=False)), RetryAt(report.run, delay_s), *self._next()]

    def _retry(self, run: int) -> list[Effect]:
        task = self._tasks.get(self._runs.get(run, TaskId("")))
        if task is None or task.mind is None or task.run != run or task.phase is not Phase.RETRYING:
            return []
        del self._runs[run]
        task.run = 0
        task.attempt += 1
        return self._ask(task, task.mind)

    def _finished(self, run: int) -> Task | None:
        """Free the place of a call that ended; None when nobody wants its answer."""
        task = self._tasks.get(self._runs.get(run, TaskId("")))
        if task is None or task.run != run or task.phase is not Phase.THINKING:
            return None
        del self._runs[run]
        self._thinking -= 1
        task.run = 0
        return task

    def _stop(self, task: Task) -> list[Effect]:
        """Take back whatever is under way for a task."""
        phase, run = task.phase, task.run
        if phase is Phase.QUEUED:
            self._queue.remove(task.id)
        if not run:
            return []
        del self._runs[run]
        task.run = 0
        if phase is Phase.RETRYING:
            return []  # The timer will find no task.
        self._thinking -= 1
        return [StopThinking(run), *self._next()]

    def _next(self) -> list[Effect]:
        """Let queued tasks think where there is room."""
        effects: list[Effect] = []
        while self._queue and self._thinking < self._limit:
            task = self._tasks[self._queue.popleft()]
            if task.mind is not None:
                effects += self._ask(task, task.mind)
        return effects

    def _untold(self, report: Untold) -> list[Effect]:
        """The gate can't be told the answer: asking the model for another such one helps nobody."""
        task = self._tasks.get(report.task)
        if task is None:
            return []
        return [*self._stop(task), self._give_up(task, "garbled", report.reason)]

    # -- ends ----------------------------------------------------------------------------------------------
    def _give_up(self, task: Task, error: str, message: str) -> Effect:
        trouble = ModelTrouble(task.id, task.branch, task.step, error, message, task.attempt, final=True)
        return self._end(task, trouble)

    def _end(self, task: Task, answer: Finish | ModelTrouble) -> Effect:
        """Say the last word and keep only that."""
        task.end(answer)
        self._ended[task.id] = None
        if len(self._ended) > ENDED_LIMIT:
            oldest = next(iter(self._ended))
            del self._ended[oldest], self._tasks[oldest]
        return Post(answer)

    def _mind(self, task: Task) -> Mind | None:
        """Whom a task asks; None when the settings name nobody."""
        agent = self._agents.get(task.agent.name)
        if agent is None or agent.model is None or task.agent.provider != "chat":
            return None
        dialect = self._dialect(task.agent)
        return Mind(
            agent.model, dialect, Conversation(self._system, task.agent.prompt, task.objective, dialect)
        )

    def _dialect(self, agent: AgentSpec) -> Dialect:
        """The names of an agent's tools, made once for all its tasks."""
        known = self._dialects.get(agent.name)
        if known is None or known[0] != agent:
            known = self._dialects[agent.name] = (agent, Dialect(agent.tools))
        return known[1]


def _trouble(task: Task, failure: Failed, *, final: bool) -> ModelTrouble:
    return ModelTrouble(task.id, task.branch, task.step, failure.kind, failure.message, task.attempt, final)
