"""The gate's ward: takes in poison, turns away what is put aside, tells the supervisor when it is on disk.

Owns: subjects that wait to be confirmed. Must not know: sockets, how a subject is put aside (quarantine.py).
Invariant: the supervisor hears of a quarantine after the sync that made it durable, never before.
Source: DESIGN §6 "Poison".
"""

from __future__ import annotations

import sys
from typing import Any

from ...proto import messages as m
from ...proto.codec import encode
from ...proto.subjects import subject_of
from .core import GateCore
from .letters import Letters
from .peers import Peer


class Ward:
    """Between the control socket, the workers' words and the core."""

    def __init__(self, core: GateCore, letters: Letters) -> None:
        self._core, self._letters = core, letters
        self._unconfirmed: list[str] = []

    def take(self, poison: m.Poison, now_ns: int) -> None:
        """Put aside what the supervisor names; what is over already, or can't be put aside, is a letter."""
        found = self._core.on_poison(poison, now_ns)
        self._unconfirmed.append(poison.subject)
        what = f"{poison.subject!r}, at hand at {poison.crashes} crashes of {poison.worker}"
        if found:
            print(f"quarantined ({found}): {what}", file=sys.stderr)
            return
        print(f"nothing to quarantine: {what}", file=sys.stderr)
        detail = "names nothing that is open"
        self._letters.keep(
            "poison", poison.worker, poison.report.encode(), detail=detail, subject=poison.subject
        )

    def turns_away(self, peer: Peer, message: Any, subject: str) -> bool:
        """Whether this must not be handled: it was at hand at crashes."""
        if subject not in self._core.aside:
            return False
        self._letters.keep("quarantined", name_of(peer), encode(message), subject=subject)
        self._core.on_aside(message, peer.role, peer.index)
        return True

    def not_its_to_say(self, peer: Peer, message: Any) -> None:
        """A message that this role has no business with."""
        detail = f"a {peer.role} does not say {type(message).__name__}"
        self._letters.keep(
            "not_its_role", name_of(peer), encode(message), detail=detail, subject=subject_of(message)
        )

    def told(self, peer: Peer, letter: m.DeadLetter) -> None:
        """What a worker dropped, in its words."""
        self._letters.keep(
            letter.reason,
            name_of(peer),
            letter.data,
            detail=letter.detail,
            subject=letter.subject,
            size_bytes=letter.size_bytes,
            unkept=letter.untold,
        )

    @property
    def owes(self) -> bool:
        """Whether something is to be confirmed."""
        return bool(self._unconfirmed)

    def confirmed(self) -> list[m.Quarantined]:
        """What to tell the supervisor now that everything is on disk."""
        subjects, self._unconfirmed = self._unconfirmed, []
        return [m.Quarantined(subject) for subject in subjects]


def name_of(peer: Peer) -> str:
    """The incarnation, as the log and the letters name it."""
    return f"{peer.role}.{peer.index}.{peer.epoch}"
