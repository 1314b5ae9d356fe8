"""The class of a call, from its tool, its arguments, its agent and its workspace."""

from __future__ import annotations

from typing import Any

import pytest

from homeostat.proto.config import Agent, Egress
from homeostat.proto.tools import CATALOGUE
from homeostat.workers.gate.pipeline.classes import Nature, nature
from homeostat.workers.gate.pipeline.verdict import Denied

AGENT = Agent(
    name="out",
    egress=(
        Egress("api.example.org", idempotent=True),
        Egress("web.example.org", ports=(80, 443)),
        Egress("*.wild.example"),
        Egress("192.0.2.7", ports=(8080,)),
    ),
    connections=("ledger",),
)
PLAIN = Agent(name="plain")
UNSTAGED = Agent(name="off", stage="off")


def of(tool: str, agent: Agent = AGENT, *, stageable: bool = True, **args: Any) -> Nature:
    """The nature of a call."""
    return nature(CATALOGUE[tool], args, agent, stageable=stageable)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (of("shell.run", command="x"), ("staged", True, False)),
        (of("shell.run", command="x", network=False), ("staged", True, False)),
        (of("shell.run", command="x", network=True), ("once", True, True)),
        (of("shell.run", UNSTAGED, command="x"), ("once", False, False)),
        (of("shell.run", command="x", stageable=False), ("once", False, False)),
        (of("file.write", path="a", content=""), ("staged", True, False)),
        (of("file.read", path="a"), ("read", False, False)),
        (of("terminal.open"), ("once", True, False)),
        (of("terminal.open", network=True), ("once", True, True)),
        (of("terminal.open", UNSTAGED), ("once", False, False)),
        (of("terminal.close", terminal="a"), ("once", True, False)),
        (of("terminal.send", terminal="a"), ("once", False, False)),
        (of("terminal.screen", terminal="a"), ("read", False, False)),
        (of("http.request", url="https://web.example.org/"), ("keyed", False, False)),
        (of("http.request", url="https://web.example.org/", method="POST"), ("once", False, False)),
        (of("http.request", url="https://api.example.org/", method="POST"), ("keyed", False, False)),
        (of("db.query", connection="ledger", sql="x"), ("read", False, False)),
        (of("db.execute", connection="ledger", sql="x"), ("witnessed", False, False)),
    ],
)
def test_class_follows_from_what_is_declared(found: Nature, expected: tuple[str, bool, bool]) -> None:
    """Never from what a model says of a call."""
    assert (found.klass, found.stage, found.egress) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://web.example.org:8443/",
        "https://example.org/",
        "https://evil-web.example.org/",
        "https://wild.example/",
        "https://web.example.org@evil.example/",
        "https://web.example.org:443@evil.example/",
        "http://web.example.org:99999/",
        "https://WEB.example.org.evil/",
        "ftp://web.example.org/",
        "https:///path",
        "https://web.example.org\\@evil.example/",
        "https://[::1/",
        "https://192.0.2.7/",
        "https://0xc0000207:8080/",
    ],
)
def test_request_is_denied_when_its_host_is_not_listed_or_can_be_read_in_two_ways(url: str) -> None:
    """Exactly the listed host and port, and nothing that merely looks like it."""
    with pytest.raises(Denied):
        of("http.request", url=url)


def test_request_tells_policy_host_port_scheme_and_method() -> None:
    """A name below a listed domain; the port that the scheme implies."""
    facts = dict(of("http.request", url="https://a.wild.example/x?y", method="PUT").facts)
    assert facts == {"host": "a.wild.example", "port": 443, "scheme": "https", "method": "PUT"}
    assert dict(of("http.request", url="http://192.0.2.7:8080/").facts)["host"] == "192.0.2.7"


def test_call_is_denied_when_its_agent_was_not_given_what_it_needs() -> None:
    """An empty list is nothing, and not everything."""
    for tool, args in (
        ("shell.run", {"command": "x", "network": True}),
        ("terminal.open", {"network": True}),
        ("http.request", {"url": "https://web.example.org/"}),
        ("db.query", {"connection": "ledger", "sql": "x"}),
    ):
        with pytest.raises(Denied) as denied:
            nature(CATALOGUE[tool], args, PLAIN, stageable=True)
        assert "none" in denied.value.reason or "no " in denied.value.reason
