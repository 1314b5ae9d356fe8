"""Dead letters as an operator reads them.

Owns: who may read them, and their form on the wire.
Must not know: where they are kept.
Invariant: what a letter holds leaves as escaped ASCII, never decoded.
Source: docs/PROTOCOL.md `dead_letters`.
"""

from __future__ import annotations

import sys

from ...proto import wire
from .admission import Refusal
from .letters import SLOTS, Letter, Letters, escaped

PAGE_CHARS = 1 << 20
"""A page that has this much takes nothing more."""


def page(request: wire.Letters, letters: Letters, principal: str) -> wire.DeadLetters:
    """Give one page, newest first. Raises Refusal."""
    if principal != "local":
        raise Refusal(
            "local_only",
            "dead letters hold what others sent",
            expected="a client on the gate's own machine",
            remedy="Ask there: homeostat letters.",
        )
    if not 1 <= request.limit <= SLOTS:
        raise Refusal("bad_field", f"limit {request.limit}", field="limit", expected=f"1 to {SLOTS}")
    if request.before < 0:
        raise Refusal(
            "bad_field",
            f"before {request.before}",
            field="before",
            expected="0, or `next` of a former answer",
        )
    try:
        found = letters.page(request.limit + 1, request.before)
    except OSError as error:
        print(f"the dead letters can't be read: {error}", file=sys.stderr)
        raise Refusal(
            "letters_unreadable",
            f"the dead letters can't be read: {error.strerror}",
            remedy="Look at journal/letters in the home; it may be removed while the gate is down.",
        ) from error
    return _paged(request, found)


def _paged(request: wire.Letters, found: list[Letter]) -> wire.DeadLetters:
    views: list[wire.LetterView] = []
    size = 0
    for letter in found[: request.limit]:
        if size >= PAGE_CHARS:
            break
        views.append(_view(letter))
        size += len(views[-1].data)
    more = views[-1].number if views and len(views) < len(found) else 0
    return wire.DeadLetters(rid=request.rid, letters=views, next=more)


def _view(letter: Letter) -> wire.LetterView:
    return wire.LetterView(
        number=letter.number,
        at_ns=letter.at_ns,
        reason=letter.reason,
        sender=letter.sender,
        detail=letter.detail,
        subject=letter.subject,
        size_bytes=letter.size_bytes,
        data=escaped(letter.data),
        times=letter.times,
        unkept=letter.unkept,
    )
