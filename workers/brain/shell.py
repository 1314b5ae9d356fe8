"""The brain in its process: messages and reports into the core, its effects out into the world.

Owns: the worker's loop side, timers of retries, the provider threads.
Must not know: what to think about; core.py decides.
Invariant: effects are carried out in the order in which they were given.
Source: DESIGN §3, §10.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from ...proto.codec import UnsayableError
from ...proto.errors import MessageTooLargeError
from ...proto.messages import FromBrain, ToBrain
from .core import THINKING_LIMIT, Core
from .effects import Effect, Post, Report, RetryAt, RetryDue, StartThinking, StopThinking, Untold

if TYPE_CHECKING:
    from ..runtime import Context, Loop
    from .calls import Calls

SYSTEM = (Path(__file__).parent / "prompts" / "system.md").read_text(encoding="utf-8")
"""Read when the module is imported: a confined brain may no longer open it."""


class Brain:
    """What the loop calls."""

    def __init__(self, context: Context, loop: Loop) -> None:
        self._loop = loop
        self._core = Core({agent.name: agent for agent in context.config.agent}, SYSTEM)
        self._calls: Calls | None = None
        if any(agent.provider == "chat" for agent in context.config.agent):
            self._calls = _calls(loop, self._collect)

    def on_welcome(self) -> None:
        """The gate will assign afresh whatever is open; nothing to ask for."""

    def on_message(self, message: ToBrain) -> None:
        """Decide and do."""
        self._perform(self._core.handle(message))

    def on_stop(self, deadline_s: float) -> None:  # noqa: ARG002  # nothing here is worth waiting for
        """Leave at once: an answer that is still on its way would be asked for again anyway."""
        if self._calls is not None:
            self._calls.stop_all()
        self._loop.finish()

    def _collect(self) -> None:
        if self._calls is not None:
            for report in self._calls.reports():
                self._perform(self._core.handle(report))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Post():
                    self._post(effect.message)
                case StartThinking():
                    self._start(effect)
                case StopThinking():
                    if self._calls is not None:
                        self._calls.stop(effect.run)
                case RetryAt():
                    self._retry_later(effect)
                case _:
                    assert_never(effect)

    def _post(self, message: FromBrain) -> None:
        """Tell the gate. An answer that no message can carry ends its task, not this brain."""
        try:
            self._loop.post(message)
        except (MessageTooLargeError, UnsayableError) as error:
            reason = f"the answer can't be told to the gate: {error.message}"
            self._perform(self._core.handle(Untold(message.task, reason)))

    def _start(self, effect: StartThinking) -> None:
        if self._calls is None:
            raise RuntimeError("a provider call without an agent that has one")
        self._calls.start(effect)

    def _retry_later(self, effect: RetryAt) -> None:
        report: Report = RetryDue(effect.run)
        self._loop.call_later(effect.delay_s, lambda: self._perform(self._core.handle(report)))


def make(context: Context, loop: Loop) -> Brain:
    """Build the brain; it serves from now on."""
    brain = Brain(context, loop)
    loop.ready()
    return brain


def _calls(loop: Loop, collect: Callable[[], None]) -> Calls:
    """Only a brain that has a model to ask pays for the HTTP client (8 MB)."""
    from .calls import Calls  # noqa: PLC0415

    calls = Calls(THINKING_LIMIT)
    loop.watch(calls.fd, collect)
    return calls
