"""What the brain's core hears from its provider calls, and what it wants done.

Owns: the vocabulary between core.py and shell.py.
Must not know: threads, sockets, HTTP.
Invariant: frozen values; a ``run`` names one attempt at one provider call and is never used again.
Source: DESIGN §2 (law 7), §10.
"""

from __future__ import annotations

import msgspec

from ...proto.config import Model
from ...proto.ids import TaskId
from ...proto.messages import FromBrain
from .providers.chat import Dialect
from .providers.events import Answer, Failed


class _Value(msgspec.Struct, frozen=True):
    """Common form."""


# -- effects -----------------------------------------------------------------------------------------------
class Post(_Value, frozen=True):
    """Send this to the gate, reliably and in order."""

    message: FromBrain


class StartThinking(_Value, frozen=True):
    """Ask the model with this request; report one Answered or CallFailed with this ``run``."""

    run: int
    task: TaskId
    step: int
    attempt: int
    model: Model
    dialect: Dialect
    body: bytes


class StopThinking(_Value, frozen=True):
    """Nobody wants this answer any more; its report, if one still comes, is ignored."""

    run: int


class RetryAt(_Value, frozen=True):
    """Report RetryDue with this ``run`` after so many seconds."""

    run: int
    delay_s: float


Effect = Post | StartThinking | StopThinking | RetryAt


# -- reports of provider calls -----------------------------------------------------------------------------
class Answered(_Value, frozen=True):
    """The model's answer, whole and checked."""

    run: int
    answer: Answer


class CallFailed(_Value, frozen=True):
    """No usable answer. ``jitter`` is a random number in [0, 1) that spreads retries."""

    run: int
    failure: Failed
    jitter: float


class RetryDue(_Value, frozen=True):
    """The pause before the next attempt is over."""

    run: int


class Untold(_Value, frozen=True):
    """A message about this task could not be posted: it is too large, or holds what no message can carry."""

    task: TaskId
    reason: str


Report = Answered | CallFailed | RetryDue | Untold
