"""What workers say, and who in the gate it is for.

Owns: which role may say what.
Must not know: sockets, the journal; what follows from a word.
Invariant: a word that is not its sender's to say changes nothing and becomes a dead letter.
Source: DESIGN §3 (the table of powers).
"""

from __future__ import annotations

from typing import Any

from ...proto import messages as m
from ...proto.ids import Epoch
from .core import GateCore
from .followers import Followers
from .linger import Linger
from .peers import Peer
from .requests import Requests
from .ward import Ward

CARRIERS = frozenset({"executor", "memory", "courier", "database"})
"""Roles that carry calls out and say how they ended."""


class Hearing:
    """Hands each word on."""

    def __init__(
        self, core: GateCore, requests: Requests, followers: Followers, linger: Linger, ward: Ward
    ) -> None:
        self._core, self._followers, self._linger, self._ward = core, followers, linger, ward
        self._asking = requests.hands_on.asking

    def take(self, peer: Peer, message: Any, now_ns: int) -> None:
        """One word of a welcomed worker."""
        match peer.role:
            case _ if isinstance(message, m.Hello):
                self._followers.gone(peer.role, peer.index)
                self._core.worker_up(peer.role, peer.index, Epoch(peer.epoch), now_ns)
                return
            case _ if isinstance(message, m.DeadLetter):
                self._ward.told(peer, message)
                return
            case "brain":
                heard = self._of_brain(message, now_ns)
            case "executor":
                heard = self._of_executor(peer, message, now_ns)
            case "memory":
                heard = self._of_memory(peer, message)
            case _:
                heard = False
        if heard:
            return
        if isinstance(message, m.Ended) and peer.role in CARRIERS:
            self._core.on_ended(message, peer.role, peer.index, now_ns)
        elif isinstance(message, m.Connections) and peer.role == "courier":
            self._core.on_connections(message, now_ns)
        else:
            self._ward.not_its_to_say(peer, message)

    def _of_brain(self, message: Any, now_ns: int) -> bool:
        match message:
            case m.Propose():
                self._linger.answered(message.task)
                self._core.on_propose(message, now_ns)
            case m.Finish():
                self._core.on_finish(message, now_ns)
            case m.ModelTrouble():
                self._core.on_model_trouble(message, now_ns)
            case _:
                return False
        return True

    def _of_executor(self, peer: Peer, message: Any, now_ns: int) -> bool:
        match message:
            case m.StagedDiff():
                self._core.on_staged(message, peer.index, now_ns)
            case m.Halted() | m.Keeping():
                self._core.on_notice(message, peer.index)
            case m.TerminalTaken():
                return self._core.on_terminal_taken(message, peer.index, now_ns)
            case m.Unstageable():
                return self._core.on_unstageable(message, peer.index)
            case m.Undone():
                self._core.on_undone(message, now_ns)
                self._asking.answer(message.token, message)
            case m.Lent() | m.DiffText():
                self._asking.answer(message.token, message)
            case _:
                return False
        return True

    def _of_memory(self, peer: Peer, message: Any) -> bool:
        match message:
            case m.Follow():
                self._followers.follow(message.name, peer.role, peer.index, message.after)
            case m.Followed():
                self._followers.confirm(message.name, message.position)
            case _:
                return False
        return True
