"""Which calls may use their listeners: the gate's permits, the executors' offers, the log of connections.

Owns: what is permitted, what is offered, what was connected and not told yet.
Must not know: sockets; requests that the courier makes itself (calls.py).
Invariants: a listener is served only under a living permit of its key and task; what is told of a call's
    connections is bounded, and what is not told is counted.
Source: DESIGN §3, §9 "Network".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ...proto import messages as m
from ...proto.ids import Key, TaskId
from .effects import Effect, Offered, Over, Post, Serve, Shut

OFFER_WAIT_S: Final = 30.0
"""How long a listener may wait for the gate's word: it may be under way to a courier that has just begun."""
BATCH: Final = 32
BATCH_S: Final = 0.5
MOST_NOTED: Final = 256
"""Connections of one call that are told one by one."""
MOST_PERMITS: Final = 4_096


@dataclass
class _Permit:
    task: TaskId
    agent: str
    until_s: float


@dataclass
class _Offer:
    number: int
    key: Key
    task: TaskId
    until_s: float
    """When it is no longer waited for a permit; served offers are not waited for."""
    served: bool = False


@dataclass
class _Log:
    task: TaskId
    noted: int = 0
    more: int = 0
    waiting: list[m.Connection] = field(default_factory=list)
    due_s: float = float("inf")


class Passes:
    """All times are monotonic seconds, given by the caller."""

    def __init__(self) -> None:
        self._permits: dict[Key, _Permit] = {}
        self._offers: dict[int, _Offer] = {}
        self._logs: dict[Key, _Log] = {}

    def agent_of(self, key: Key) -> str | None:
        """Whose the call is; None without a permit."""
        permit = self._permits.get(key)
        return None if permit is None else permit.agent

    def permit(self, message: m.Permit, now_s: float) -> list[Effect]:
        """The gate allows a call its way out. Said again, it counts from now."""
        if len(self._permits) >= MOST_PERMITS and message.key not in self._permits:
            return []  # The gate has no such number of open calls; what isn't permitted isn't served.
        self._permits[message.key] = _Permit(message.task, message.agent, now_s + message.timeout_s)
        return [
            effect
            for offer in list(self._offers.values())
            if offer.key == message.key and not offer.served
            for effect in self._try(offer)
        ]

    def offered(self, report: Offered, now_s: float) -> list[Effect]:
        """A listener is there; it is served when it is permitted."""
        if any(offer.key == report.key for offer in self._offers.values()):
            return [Shut(report.number, "the call has a way out already")]
        offer = _Offer(report.number, report.key, report.task, now_s + OFFER_WAIT_S)
        self._offers[report.number] = offer
        return self._try(offer)

    def gone(self, number: int) -> list[Effect]:
        """The sandbox has ended. Its connections end with Shut, and are told at once."""
        offer = self._offers.pop(number, None)
        if offer is None:
            return []
        self._tell_soon(offer.key)
        return [Shut(number, "the command ended")]

    def forget(self, key: Key) -> list[Effect]:
        """The call is over."""
        self._permits.pop(key, None)
        self._tell_soon(key)
        effects: list[Effect] = []
        for offer in [offer for offer in self._offers.values() if offer.key == key]:
            effects += self.gone(offer.number)
        return effects

    def _try(self, offer: _Offer) -> list[Effect]:
        permit = self._permits.get(offer.key)
        if permit is None:
            return []
        if permit.task != offer.task:
            del self._offers[offer.number]
            return [Shut(offer.number, "it was permitted to another task")]
        offer.served = True
        return [Serve(offer.number, offer.key, offer.task, permit.agent)]

    # -- the log ---------------------------------------------------------------------------------------
    def over(self, report: Over, now_s: float) -> list[Effect]:
        """A connection has ended."""
        log = self._logs.setdefault(report.key, _Log(report.task))
        if log.noted >= MOST_NOTED:
            log.more += 1
        else:
            log.noted += 1
            log.waiting.append(report.connection)
        is_live = any(offer.key == report.key for offer in self._offers.values())
        log.due_s = min(log.due_s, now_s + BATCH_S if is_live else now_s)
        return self._tell(report.key, log) if len(log.waiting) >= BATCH else []

    def _tell_soon(self, key: Key) -> None:
        if (log := self._logs.get(key)) is not None:
            log.due_s = 0.0

    def _tell(self, key: Key, log: _Log) -> list[Effect]:
        told, more = tuple(log.waiting), log.more
        log.waiting, log.more, log.due_s = [], 0, float("inf")
        return [Post(m.Connections(key, log.task, told, more))] if told or more else []

    # -- time ------------------------------------------------------------------------------------------
    def due(self) -> float:
        """When `expire` has something to do; infinite if never."""
        return min(self._dues(), default=float("inf"))

    def _dues(self) -> Iterator[float]:
        yield from (permit.until_s for permit in self._permits.values())
        yield from (offer.until_s for offer in self._offers.values() if not offer.served)
        yield from (log.due_s for log in self._logs.values())

    def expire(self, now_s: float) -> list[Effect]:
        """End what is over its time; tell what has waited long enough."""
        effects: list[Effect] = []
        for key in [key for key, permit in self._permits.items() if permit.until_s <= now_s]:
            effects += self.forget(key)
        for offer in list(self._offers.values()):
            if not offer.served and offer.until_s <= now_s:
                del self._offers[offer.number]
                effects.append(Shut(offer.number, "the gate permits it nothing"))
        for key, log in list(self._logs.items()):
            if log.due_s <= now_s:
                effects += self._tell(key, log)
                if key not in self._permits:
                    del self._logs[key]
        return effects
