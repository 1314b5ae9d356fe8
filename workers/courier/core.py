"""The courier's decisions: who may connect to what, and what becomes of requests.

Owns: the composition of permits, offers, allowlists and requests.
Must not know: sockets, threads, the clock (the time is an argument), secrets.
Invariant: the egress list of a call's agent is the only yes; an agent that the configuration doesn't have may
    reach nothing.
Source: DESIGN §3, §9 "Network"; ATTACKS 43-53.
"""

from __future__ import annotations

from typing import assert_never

from ...proto import messages as m
from ...proto.config import Config
from ...proto.ids import Key
from .allowlist import Allowlist, Denied, Granted
from .calls import Calls
from .effects import Due, Effect, Exchanged, Gone, Offered, Over, Report, Resolved
from .passes import Passes


class Core:
    """``handle`` is the only door; `judge` asks without changing anything."""

    def __init__(self, config: Config) -> None:
        self._allowlists = {agent.name: Allowlist(agent) for agent in config.agent}
        self._passes = Passes()
        headers = {credential.name: credential.header for credential in config.credential}
        self._calls = Calls(self._allowlist_of, self._passes.over, headers, config.courier.redirects)

    def handle(self, message: m.ToCourier | Report, now_s: float) -> list[Effect]:
        """Take a message of the gate or a report of the shell; give what is to be done, in order."""
        match message:
            case m.Permit():
                return self._passes.permit(message, now_s)
            case m.Execute():
                return self._calls.execute(message, now_s)
            case m.Abort():
                return self._calls.abort(message, now_s)
            case m.Forget():
                self._calls.forget(message.key)
                return self._passes.forget(message.key)
            case Offered():
                return self._passes.offered(message, now_s)
            case Gone():
                return self._passes.gone(message.number)
            case Over():
                return self._passes.over(message, now_s)
            case Resolved():
                return self._calls.resolved(message, now_s)
            case Exchanged():
                return self._calls.exchanged(message, now_s)
            case Due():
                return [*self._passes.expire(now_s), *self._calls.expire(now_s)]
            case _:
                assert_never(message)

    @property
    def busy(self) -> bool:
        """Whether a request is on its way."""
        return self._calls.busy

    def due(self) -> float:
        """When a Due is to be reported; infinite if never."""
        return min(self._passes.due(), self._calls.due())

    def judge(self, agent: str, host: str, port: int) -> Granted | Denied:
        """Whether an agent's commands may connect there."""
        return self._allowlists.get(agent, Allowlist(None, agent)).judge(host, port)

    def _allowlist_of(self, key: Key) -> Allowlist | None:
        """The list of the call's agent; None for a call that the gate has not permitted."""
        agent = self._passes.agent_of(key)
        return None if agent is None else self._allowlists.get(agent, Allowlist(None, agent))
