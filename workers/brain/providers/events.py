"""The one algebra of events that every provider's stream is translated into.

Owns: the events of an answer as it arrives, and the answer as a whole.
Must not know: any provider's wire format.
Invariant: a part is started once, ended once, and nothing follows its end.
Source: DESIGN §10.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ....proto.records import Call, Usage

FailureKind = Literal[
    "rate_limit", "overload", "context_too_long", "auth", "refusal", "network", "garbled", "cut",
]  # fmt: skip
FINAL_KINDS: frozenset[str] = frozenset({"context_too_long", "auth", "refusal"})
"""Asking again with the same words can't help."""

PartKind = Literal["text", "reasoning", "call"]


class _Event(msgspec.Struct, frozen=True, tag=True):
    """Common form."""


class PartStart(_Event, frozen=True):
    """A part of the answer begins; ``name`` and ``call_id`` are those of a call."""

    part: int
    kind: PartKind
    name: str = ""
    call_id: str = ""


class Delta(_Event, frozen=True):
    """More text of a part (of a call: more of its arguments)."""

    part: int
    text: str


class PartEnd(_Event, frozen=True):
    """The part is whole."""

    part: int


class UsageSeen(_Event, frozen=True):
    """Tokens so far; the last word counts."""

    input_tokens: int
    output_tokens: int


class Stop(_Event, frozen=True):
    """The model stopped, for the provider's own reason."""

    reason: str


class Failed(_Event, frozen=True):
    """The stream gave no usable answer; nothing follows."""

    kind: FailureKind
    message: str
    retry_after_s: float | None = None


Event = PartStart | Delta | PartEnd | UsageSeen | Stop | Failed


class Answer(msgspec.Struct, frozen=True):
    """A whole answer: text, calls or both. ``raw`` is the assistant's message as it will be said back."""

    text: str
    calls: tuple[Call, ...]
    usage: Usage
    raw: bytes
