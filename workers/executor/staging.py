"""What is done to stages, beside the loop.

Owns: the jobs of reading, merging, taking back and removing stages, and which stages the ledger keeps.
Must not know: when any of it is due (core.py), how it is done (stages.py).
Invariants: the jobs of one stage follow each other in its key's lane; a stage is in the ledger before its
            merge begins, and leaves it when it is removed.
Source: DESIGN §4 "Staged effects", §6 "Executor".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import assert_never

from ...proto import messages as m
from ...proto.ids import Key, TaskId
from . import calls as c
from .jobs import Jobs
from .ledger import Ledger
from .quotas import Watch
from .stages import Stages


class Staging:
    """Carries out the effects on stages."""

    def __init__(
        self,
        stages: Stages,
        ledger: Ledger,
        jobs: Jobs,
        happened: Callable[[c.Event], None],
        watch: Callable[[Callable[[], list[tuple[Key, int]]], Callable[[Key, str], None]], Watch],
    ) -> None:
        """``watch`` makes the watch over the stages in use, told how to find them and whom to tell."""
        self._stages, self._ledger, self._jobs = stages, ledger, jobs
        self._happened = happened
        self._watch = watch(stages.in_use, lambda key, words: happened(c.OverQuota(key, words)))
        stages.begun = self._watch.begin

    def close(self) -> None:
        """Watch no more."""
        self._watch.close()

    def treat(self, effect: c.OnStage) -> None:
        """Begin it; what comes of it is an event."""
        match effect:
            case c.TakeDiff():
                self._jobs.submit(effect.key, partial(self._stages.read, effect.key), self._happened)
            case c.MergeStage():
                self._ledger.keep_stage(effect.task, effect.key)
                self._jobs.submit(effect.key, partial(self._stages.merge, effect.key), self._happened)
            case c.RollForward():
                self._ledger.keep_stage(effect.task, effect.key)
                roll = partial(self._stages.roll_forward, effect.key, effect.workspace)
                self._jobs.submit(effect.key, roll, self._happened)
            case c.PutAside():
                put = partial(self._stages.put_aside, effect.key, effect.workspace)
                self._jobs.submit(effect.key, put, self._happened)
            case c.DiscardStage():
                self._jobs.submit(effect.key, partial(self._stages.discard, effect.key), lambda _: None)
            case c.TakeBack():
                back = partial(self._stages.undo, effect.message)
                self._jobs.submit(effect.message.token, back, partial(self._taken_back, effect.message))
            case c.SweepTask():
                self._sweep(effect.task)
            case _:
                assert_never(effect)

    def _taken_back(self, message: m.Undo, answer: m.Undone) -> None:
        if not answer.trouble:
            for key in message.keys:
                self._ledger.drop_stage(message.task, key)
        self._happened(c.TakenBack(answer))

    def _sweep(self, task: TaskId) -> None:
        self._jobs.submit(task, partial(self._stages.forget_undos, task), lambda _: None)
        for key in self._ledger.stages_of(task):
            self._jobs.submit(key, partial(self._stages.abandon, key), partial(self._swept, task, key))

    def _swept(self, task: TaskId, key: Key, _: None) -> None:
        self._ledger.drop_stage(task, key)
