"""What a call is, beyond its tool's own class: from its arguments, its agent and its workspace.

Owns: the effect class of a call, whether it is staged, whether it has a way out; what an agent lacks for it.
Must not know: policies, messages, the journal.
Invariant: the class follows from what is declared, never from what a model says of the call; it never makes a
    tool's own class safer than it is.
Source: DESIGN §4 (effect classes), §9 (network).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ....proto import hosts
from ....proto.config import Agent, Egress
from ....proto.hosts import HostError
from ....proto.ids import EffectClass
from ....proto.tools import Tool
from .policy import Fact
from .verdict import Denied

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""RFC 9110, 9.2.1: they ask for no change."""


@dataclass(frozen=True, slots=True)
class Nature:
    """How a call is carried out, and what policy is told of that."""

    klass: EffectClass
    stage: bool = False
    """Its changes to files are made on a stage."""
    egress: bool = False
    """It connects through the courier."""
    facts: tuple[tuple[str, Fact], ...] = ()


def nature(tool: Tool, args: dict[str, Any], agent: Agent, *, stageable: bool) -> Nature:
    """Give it. Raises Denied for what the agent was not given."""
    match tool.name:
        case "http.request":
            return _of_request(args, agent)
        case "db.query" | "db.execute":
            return _of_database(tool, args, agent)
    staged = stageable and agent.stage != "off"
    if tool.name in ("terminal.open", "terminal.close"):
        return Nature("once", staged, *_way_out(args, agent))
    if tool.klass != "staged":
        return Nature(tool.klass)
    egress, facts = _way_out(args, agent)
    return Nature("once" if egress or not staged else "staged", staged, egress, facts)


def _way_out(args: dict[str, Any], agent: Agent) -> tuple[bool, tuple[tuple[str, Fact], ...]]:
    if not args.get("network", False):
        return False, ()
    if not agent.egress:
        raise Denied(
            "egress", "none", f"agent {agent.name!r} has no network: no [[agent.egress]] is set for it"
        )
    return True, (("network", True),)


def _of_request(args: dict[str, Any], agent: Agent) -> Nature:
    try:
        url = hosts.url(args["url"])
    except HostError as error:
        raise Denied("egress", "bad_url", f"url: {error.message}; expected {error.expected}") from error
    host, port, method = url.host, url.port, args.get("method", "GET")
    listed = next((one for one in agent.egress if _covers(one, host, port)), None)
    if listed is None:
        allowed = ", ".join(f"{one.host}:{'/'.join(map(str, one.ports))}" for one in agent.egress) or "none"
        raise Denied(
            "egress",
            "not_listed",
            f"{host}:{port} is not a destination of agent {agent.name!r} ([[agent.egress]]); "
            f"allowed: {allowed}",
        )
    again = method in _SAFE_METHODS or listed.idempotent
    facts = (("host", host), ("port", port), ("scheme", url.scheme), ("method", method))
    return Nature("keyed" if again else "once", facts=facts)


def _covers(listed: Egress, host: str, port: int) -> bool:
    return port in listed.ports and hosts.covers(hosts.check_destination(listed.host), host)


def _of_database(tool: Tool, args: dict[str, Any], agent: Agent) -> Nature:
    name = args["connection"]
    if name not in agent.connections:
        allowed = ", ".join(agent.connections) or "none"
        raise Denied(
            "database",
            "not_listed",
            f"{name[:80]!r} is not a database of agent {agent.name!r} (its setting connections); "
            f"allowed: {allowed}",
        )
    return Nature(tool.klass, facts=(("connection", name),))
