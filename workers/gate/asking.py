"""Questions of clients that a worker has to answer: what was asked of whom, and who waits for it.

Owns: the tokens, and the answers that are still to come.
Must not know: what is asked, sockets.
Invariant: a token is answered once: by the worker, or by the end of its time.
Source: DESIGN law 5.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ANSWER_S = 10.0
"""A worker that lives answers within milliseconds; longer than a restart nobody waits."""
MOST = 1_000


@dataclass(slots=True)
class _Question:
    due_s: float
    answered: Callable[[Any], None]


class Asking:
    """The open questions."""

    def __init__(self) -> None:
        self._open: dict[str, _Question] = {}

    @property
    def full(self) -> bool:
        """There are too many to take one more."""
        return len(self._open) >= MOST

    def ask(self, answered: Callable[[Any], None], now_s: float, within_s: float = ANSWER_S) -> str:
        """Give a fresh token; ``answered`` is called once: with the answer, or None when time is over."""
        token = secrets.token_urlsafe(18)
        self._open[token] = _Question(now_s + within_s, answered)
        return token

    def answer(self, token: str, answer: object) -> None:
        """A worker has answered; an answer that nobody waits for any more is dropped."""
        if (question := self._open.pop(token, None)) is not None:
            question.answered(answer)

    def expire(self, now_s: float) -> None:
        """End those whose time is over."""
        for token in [token for token, question in self._open.items() if question.due_s <= now_s]:
            self.answer(token, None)

    def due_s(self) -> float | None:
        """When expire() has something to do."""
        return min((question.due_s for question in self._open.values()), default=None)
