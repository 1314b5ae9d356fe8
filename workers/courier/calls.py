"""The requests that the courier makes itself: ``http.request`` from its Execute to its Ended.

Owns: a request and its phases, hops, resends; what is known of ended ones until they are forgotten.
Must not know: sockets, secrets; listeners of commands (passes.py).
Invariants: an outcome that was told is told again, never made again, as long as this courier lives; what was
    sent and may have taken effect is in doubt, unless it may be sent again under its key; every hop is judged
    like the first.
Source: DESIGN §4 (``keyed``, ``once``), §6, law 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ...proto import hosts, messages as m
from ...proto.errors import RefusedError
from ...proto.ids import CallStatus, Key
from . import outcomes, requests
from .addresses import is_own
from .allowlist import Allowlist, Denied, Granted
from .answers import Failure, Response
from .effects import Cut, Effect, Exchange, Exchanged, Over, Post, Resolve, Resolved
from .requests import Asked, Hop

TOOL: Final = "http.request"
AT_ONCE: Final = 8
MOST_WAITING: Final = 64
RESENDS: Final = 2
MOST_KNOWN: Final = 1_024
_GRACE_S: Final = 5.0
"""How much later than its deadline a request is given up that can't even be cut."""


class Phase(Enum):
    """Where a request is."""

    QUEUED = "queued"
    NAMING = "naming"
    EXCHANGING = "exchanging"


@dataclass
class Call:
    """One request on its way."""

    execute: m.Execute
    asked: Asked
    allowlist: Allowlist
    hop: Hop
    granted: Granted
    deadline_s: float
    phase: Phase = Phase.QUEUED
    hops: int = 0
    resends: int = 0
    sent: bool = False
    """Something of this hop may have arrived."""
    changed: str = ""
    """What a hop before it was answered that may have changed something; empty for none."""
    ending: CallStatus | None = None
    began_s: float = 0.0

    @property
    def key(self) -> Key:
        """Its key."""
        return self.execute.key


class Calls:
    """All times are monotonic seconds, given by the caller."""

    def __init__(
        self,
        allowlist_of: Callable[[Key], Allowlist | None],
        log: Callable[[Over, float], list[Effect]],
        headers: dict[str, str],
        most_redirects: int,
    ) -> None:
        """``headers``: of each credential by name, the header that it is put into."""
        self._allowlist_of = allowlist_of
        self._log = log
        self._headers = headers
        self._most_redirects = most_redirects
        self._calls: dict[Key, Call] = {}
        self._known: dict[Key, m.Ended] = {}

    # -- the gate's words ------------------------------------------------------------------------------
    def execute(self, message: m.Execute, now_s: float) -> list[Effect]:
        """A request is to be made, unless this courier has begun it already."""
        if message.key in self._calls:
            return []
        if (known := self._known.get(message.key)) is not None:
            return [Post(known)]
        if message.resumed and message.klass != "keyed":
            return self._end(outcomes.in_doubt(message.key))
        try:
            call = self._prepared(message, now_s)
        except RefusedError as error:
            return self._end(outcomes.refused(message.key, error.diagnostics()))
        if sum(one.phase is Phase.QUEUED for one in self._calls.values()) >= MOST_WAITING:
            return self._end(outcomes.crowded(message.key, MOST_WAITING))
        self._calls[message.key] = call
        return self._advance(now_s)

    def abort(self, message: m.Abort, now_s: float) -> list[Effect]:
        """End it now."""
        if (call := self._calls.get(message.key)) is not None:
            return self._cut(call, message.status, now_s)
        if (known := self._known.get(message.key)) is not None:
            return [Post(known)]
        # Its Execute, should it still come, gets this answer.
        return self._end(outcomes.not_made(message.key, message.status))

    def forget(self, key: Key) -> None:
        """The outcome is in the journal."""
        self._known.pop(key, None)

    def _prepared(self, message: m.Execute, now_s: float) -> Call:
        """Raises RefusedError."""
        if message.tool != TOOL:
            raise RefusedError(f"the courier has no tool {message.tool[:64]!r}")
        allowlist = self._allowlist_of(message.key)
        if allowlist is None:
            raise RefusedError("the gate has permitted no connection for this call")
        asked = requests.parse(message.args)
        granted = _grant(allowlist, asked.hop.url)
        hop = asked.hop
        if granted.credential:
            hop = requests.with_credential(hop, granted.credential, self._headers.get(granted.credential, ""))
        deadline_s = now_s + min(asked.timeout_s, message.timeout_s)
        return Call(message, asked, allowlist, hop, granted, deadline_s, began_s=now_s)

    # -- the steps -------------------------------------------------------------------------------------
    def _advance(self, now_s: float) -> list[Effect]:
        effects: list[Effect] = []
        running = sum(call.phase is not Phase.QUEUED for call in self._calls.values())
        for call in list(self._calls.values()):
            if running >= AT_ONCE:
                break
            if call.phase is Phase.QUEUED:
                running += 1
                effects += self._name(call, now_s)
        return effects

    def _name(self, call: Call, now_s: float) -> list[Effect]:
        call.phase = Phase.NAMING
        if hosts.literal(call.granted.host) is not None:
            return self.resolved(Resolved(call.key, (call.granted.host,)), now_s)
        return [Resolve(call.key, call.granted.host)]

    def resolved(self, report: Resolved, now_s: float) -> list[Effect]:
        """The addresses of its host: those that may be dialled are."""
        call = self._calls.get(report.key)
        if call is None or call.phase is not Phase.NAMING:
            return []
        if call.ending is not None:
            return self._cut_off(call, now_s)
        if report.trouble:
            return self._failed(call, Failure(f"can't be resolved: {report.trouble}", sent=False), now_s)
        chosen = call.granted.choose(report.addresses)
        if isinstance(chosen, Denied):
            return self._refused(call, chosen, now_s)
        if call.hop.credential and call.hop.url.scheme == "http" and not all(map(is_own, chosen)):
            words = f"credential {call.hop.credential!r} is not sent to a public address without TLS"
            return self._refused(call, Denied(words, "Ask for an https:// URL."), now_s)
        call.phase = Phase.EXCHANGING
        limit_bytes = min(call.asked.limit_bytes, call.execute.output_limit_bytes)
        return [Exchange(call.key, call.hop, chosen, max(0.05, call.deadline_s - now_s), limit_bytes)]

    def exchanged(self, report: Exchanged, now_s: float) -> list[Effect]:
        """One hop is over."""
        call = self._calls.get(report.key)
        if call is None or call.phase is not Phase.EXCHANGING:
            return []
        over = self._log(_over(call, report), now_s)
        result = report.result
        call.sent = call.sent or isinstance(result, Response) or result.sent
        if call.ending is not None:
            return [*over, *self._cut_off(call, now_s)]
        if isinstance(result, Failure):
            return [*over, *self._failed(call, result, now_s)]
        if result.status in requests.REDIRECTS and (location := result.header("location")):
            return [*over, *self._redirect(call, result, location, now_s)]
        return [*over, *self._finish(call, outcomes.answered(call, result, now_s), now_s)]

    def _redirect(self, call: Call, response: Response, location: str, now_s: float) -> list[Effect]:
        """Go on to where the server says, if that may be; else what it said is the answer."""
        try:
            if call.hops >= self._most_redirects:
                raise RefusedError(f"{call.hops} redirects have been followed, which is the most")
            hop = requests.redirected(call.hop, response.status, location)
            granted = _grant(call.allowlist, hop.url)
            if call.execute.klass == "keyed" and not hop.safe and not granted.idempotent:
                raise RefusedError(f"a {hop.method} may not be sent twice to {hop.url.host}")
        except RefusedError as error:
            ended = outcomes.stopped(call, response, error.diagnostics(), now_s)
            return self._finish(call, ended, now_s)
        if not call.hop.safe:
            call.changed = outcomes.told_of(call.hop, response)
        call.hop, call.granted, call.hops, call.sent = hop, granted, call.hops + 1, False
        return self._name(call, now_s)

    def _failed(self, call: Call, failure: Failure, now_s: float) -> list[Effect]:
        """No answer. What may have arrived is sent again where that is allowed, and else is in doubt."""
        risky = call.sent and not call.hop.safe
        if not risky:
            return self._finish(call, outcomes.failed(call, failure, now_s), now_s)
        again = call.execute.klass == "keyed" and not failure.refused
        if again and call.resends < RESENDS and now_s < call.deadline_s:
            call.resends += 1
            return self._name(call, now_s)
        return self._finish(call, outcomes.unanswered(call, failure, now_s), now_s)

    def _refused(self, call: Call, denied: Denied, now_s: float) -> list[Effect]:
        place, reason = call.hop.url, denied.reason[:500]
        refused = m.Connection(place.host, place.port, "", call.hop.method, "refused", reason)
        over = self._log(Over(call.key, call.execute.task, refused), now_s)
        return [*over, *self._finish(call, outcomes.not_followed(call, denied.text, now_s), now_s)]

    # -- the end ---------------------------------------------------------------------------------------
    @property
    def busy(self) -> bool:
        """Whether any is on its way."""
        return bool(self._calls)

    def due(self) -> float:
        """When `expire` has something to do; infinite if never."""
        return min((call.deadline_s for call in self._calls.values()), default=float("inf"))

    def expire(self, now_s: float) -> list[Effect]:
        """End what is over its deadline."""
        effects: list[Effect] = []
        for call in [call for call in self._calls.values() if call.deadline_s <= now_s]:
            if call.ending is None:
                effects += self._cut(call, "timeout", now_s)
            else:  # It was cut, and its thread waits for something that can't be.
                call.sent = call.sent or call.phase is Phase.EXCHANGING
                effects += self._cut_off(call, now_s)
        return effects

    def _cut(self, call: Call, status: CallStatus, now_s: float) -> list[Effect]:
        if call.ending is not None:
            return []
        call.ending, call.deadline_s = status, now_s + _GRACE_S
        if call.phase is Phase.EXCHANGING:
            return [Cut(call.key)]
        return self._cut_off(call, now_s)

    def _cut_off(self, call: Call, now_s: float) -> list[Effect]:
        return self._finish(call, outcomes.cut_off(call, now_s), now_s)

    def _finish(self, call: Call, ended: m.Ended, now_s: float) -> list[Effect]:
        self._calls.pop(call.key, None)
        return [*self._end(ended), *self._advance(now_s)]

    def _end(self, ended: m.Ended) -> list[Effect]:
        self._known[ended.key] = ended
        while len(self._known) > MOST_KNOWN:  # The gate forgets what it has written down; this only bounds.
            self._known.pop(next(iter(self._known)))
        return [Post(ended)]


def _grant(allowlist: Allowlist, place: hosts.Url) -> Granted:
    """Raises RefusedError."""
    judged = allowlist.judge(place.host, place.port)
    if isinstance(judged, Denied):
        raise RefusedError(judged.reason, remedy=judged.advice)
    return judged


def _over(call: Call, report: Exchanged) -> Over:
    """What the gate is told of one hop."""
    place, result = call.hop.url, report.result
    if isinstance(result, Response):
        verdict, reason, received = "open", "", result.total_bytes
    else:
        verdict, reason, received = "refused" if result.refused else "failed", result.reason[:500], 0
    connection = m.Connection(
        place.host, place.port, result.address, call.hop.method, verdict, reason, result.sent_bytes, received,
        round(report.duration_s, 6),
    )  # fmt: skip
    return Over(call.key, call.execute.task, connection)
