"""A frozen call: it is not begun, or its sandbox stands still; its deadline does not come nearer.

Owns: what halting and letting go do to a call in each of its phases.
Must not know: why it is frozen, sandboxes, clocks.
Invariants: what has ended is put away, and a merge that was begun is completed, frozen or not: half of either
            is no state to stand still in; after letting go a call has as much time left as before.
Source: DESIGN §7 "homeostat freeze"; the phases are in calls.py.
"""

from __future__ import annotations

from typing import Final

from ...proto import messages as m
from . import calls as c
from .calls import Call, Effect, Phase

_SANDBOXED: Final = frozenset({Phase.LAUNCHING, Phase.RUNNING})
_TIMED: Final = frozenset({Phase.QUEUED, *_SANDBOXED})
_NEVER: Final = float("inf")


def halt(call: Call, now: float) -> list[Effect]:
    """Let it stand still; said again, it answers again if it does."""
    if not call.halted:
        call.halted, call.halted_at, call.still = True, now, False
        call.left_s, call.deadline_at = call.deadline_at - now, _NEVER
        if call.phase in _SANDBOXED:
            return [c.Freeze(call.key)]
    return told(call)


def told(call: Call) -> list[Effect]:
    """The word that it stands still, if it is frozen and does."""
    stands = call.phase in {Phase.QUEUED, Phase.STAGED} or (call.phase in _SANDBOXED and call.still)
    return [c.Post(m.Halted(call.key))] if call.halted and stands else []


def stopped(call: Call) -> list[Effect]:
    """Its sandbox says that it stands still; an answer to an earlier freeze may come too late."""
    call.still = call.halted
    return told(call)


def let_go(call: Call, now: float) -> list[Effect]:
    """Let it go on; one that waits in a queue is for the core to begin."""
    if not call.halted:
        return []
    call.halted = call.still = False
    if call.launched_at is not None:
        call.launched_at += now - call.halted_at
    if call.phase in _TIMED and call.ending is None:
        call.deadline_at = now + call.left_s
    return [c.Thaw(call.key)] if call.phase in _SANDBOXED else []
