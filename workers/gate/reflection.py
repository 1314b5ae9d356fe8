"""The reflection gate: does this history go in circles?

Owns: what counts as the same action, the same error, the same world; the words of the system event.
Must not know: tasks, messages, who is told.
Invariant: only failures loop: a cycle without an error in it, or across a change of the world, is progress.
Source: the essay's sliding hash, Hash(N-2) == Hash(N) with an error; DESIGN §8 "Reflection gate".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from .state import Attempt

WINDOW = 16
LONGEST_CYCLE = 5
IDENTICAL = (
    "[SYSTEM EVENT - CORE KERNEL]: You are caught in a logic deadlock! The past 3 attempts were "
    "identical and invalid. "
    "Halt this approach immediately, abandon it, or switch to a completely different line of reasoning."
)
_CYCLE = (
    "[SYSTEM EVENT - CORE KERNEL]: You are caught in a logic deadlock! Your past {count} attempts "
    "went round a cycle of "
    "{length} actions that ended in the same error each time, and nothing changed in between. "
    "Halt this approach immediately, abandon it, or switch to a completely different line of reasoning."
)
_VOLATILE = re.compile(r"0x[0-9a-fA-F]+|\d+")
_ERROR_CHARS = 2_000


@dataclass(frozen=True)
class Loop:
    """What was found."""

    rule: str
    message: str


def action_hash(tool: str, canonical_args: bytes) -> bytes:
    """The same tool with the same arguments, whatever the thought was."""
    return blake2b(tool.encode() + b"\0" + canonical_args, digest_size=8).digest()


def error_hash(status: str, exit_code: int | None, text: str) -> bytes:
    """The same failure: numbers (times, pids, addresses) in its text don't tell two failures apart."""
    if status == "ok":
        return b""
    normal = _VOLATILE.sub("#", text[-_ERROR_CHARS:])
    return blake2b(
        f"{status}\0{exit_code}\0{normal}".encode("utf-8", "surrogatepass"), digest_size=8
    ).digest()


def find_loop(window: Sequence[Attempt]) -> Loop | None:
    """Judge the newest attempt against those before it."""
    if not window or not window[-1].error:
        return None
    for length in (1, *range(2, LONGEST_CYCLE + 1)):
        count = max(3, 2 * length - 1) if length <= 2 else 2 * length
        if _repeats(window, length, count):
            if length == 1:
                return Loop("identical", IDENTICAL)
            return Loop(f"cycle_{length}", _CYCLE.format(count=count, length=length))
    return None


def _repeats(window: Sequence[Attempt], length: int, count: int) -> bool:
    """The last ``count`` attempts repeat with this period in one world.

    A cycle of 1 is three same failures. A cycle of 2 is the essay's rule: attempt N is attempt N-2, with an
    error.
    """
    if len(window) < count:
        return False
    last = window[-count:]
    return len({attempt.world for attempt in last}) == 1 and all(
        last[i] == last[i + length] for i in range(count - length)
    )


def remember(window: list[Attempt], attempt: Attempt) -> None:
    """Add the newest; the window is bounded."""
    window.append(attempt)
    del window[:-WINDOW]
