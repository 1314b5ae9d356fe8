"""What an agent may reach, and the words that refuse the rest.

Owns: the matching of host and port against an agent's egress list, and the choice among resolved addresses.
Must not know: sockets, DNS; who asks.
Invariants: an empty list means nothing; a list with an entry that can't be read means nothing too; what is
    chosen is an address that was checked.
Source: DESIGN §9 "Network"; ATTACKS 48-53.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from ...proto import hosts
from ...proto.config import Agent, Egress
from .addresses import Network, fault

_SHOWN_ENTRIES = 12


@dataclass(frozen=True)
class Denied:
    """No, and why: ``reason`` in a line; ``advice`` says what would be right, and who can make it so."""

    reason: str
    advice: str = ""

    @property
    def text(self) -> str:
        """All of it, as the model reads it."""
        return f"{self.reason}\n{self.advice}" if self.advice else self.reason


@dataclass(frozen=True)
class Granted:
    """This host and port, by this entry of the list."""

    host: str
    port: int
    networks: tuple[Network, ...] = ()
    idempotent: bool = False
    credential: str = ""

    def choose(self, found: Sequence[str]) -> tuple[str, ...] | Denied:
        """Give those of the resolved addresses that may be dialled, in order; none is a Denied."""
        allowed: list[str] = []
        faults: list[str] = []
        for text in found:
            try:
                address = ipaddress.ip_address(text)
            except ValueError:
                faults.append(f"{text[:60]!a} (no address)")
                continue
            if what := fault(address, self.networks):
                faults.append(f"{address} ({what})")
            elif text not in allowed:
                allowed.append(text)
        if allowed:
            return tuple(allowed)
        return Denied(
            f"{self.host} resolves to no address that may be reached: {', '.join(faults[:4]) or 'to none'}",
            "A private network must be listed in `addresses` of this entry of [[agent.egress]].",
        )


@dataclass(frozen=True)
class _Entry:
    pattern: str
    ports: frozenset[int]
    networks: tuple[Network, ...]
    idempotent: bool
    credential: str


class Allowlist:
    """The egress list of one agent, or of one that has none."""

    def __init__(self, agent: Agent | None, name: str = "") -> None:
        self._name = agent.name if agent is not None else name
        self._entries: tuple[_Entry, ...] = ()
        self._trouble = ""
        try:
            self._entries = tuple(map(_entry, agent.egress)) if agent is not None else ()
        except (ValueError, hosts.HostError) as error:
            # Whoever wrote it meant something else than this: none of it is taken.
            self._trouble = f"the egress list of agent {self._name!r} can't be used: {error}"

    def judge(self, host: str, port: int) -> Granted | Denied:
        """Whether this host (of hosts.check) and port are listed; the first entry that fits counts."""
        if self._trouble:
            return Denied(self._trouble, "Mend it in the configuration, then `homeostat reload`.")
        for entry in self._entries:
            if port in entry.ports and hosts.covers(entry.pattern, host):
                return Granted(host, port, entry.networks, entry.idempotent, entry.credential)
        reason = f"{hosts.write(host, port)} is not in the egress list of agent {self._name!r}"
        return Denied(reason, f"Allowed: {self._allowed()}.")

    def _allowed(self) -> str:
        """What is, so that a model need not guess."""
        if not self._entries:
            return "nothing (the operator would have to add a table [[agent.egress]])"
        shown = [hosts.write(entry.pattern, port) for entry in self._entries for port in sorted(entry.ports)]
        more = f" and {len(shown) - _SHOWN_ENTRIES} more" if len(shown) > _SHOWN_ENTRIES else ""
        return ", ".join(shown[:_SHOWN_ENTRIES]) + more


def _entry(egress: Egress) -> _Entry:
    """Raises HostError, ValueError."""
    if not egress.ports or not all(0 < port < 65_536 for port in egress.ports):
        raise ValueError(f"ports of {egress.host!r}: numbers from 1 to 65535 are expected")
    return _Entry(
        hosts.check_destination(egress.host),
        frozenset(egress.ports),
        tuple(map(ipaddress.ip_network, egress.addresses)),
        egress.idempotent,
        egress.credential,
    )
