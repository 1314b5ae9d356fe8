"""What the settings of destinations, credentials and databases must be, beyond their types.

Owns: these rules, and their words.
Must not know: files, lines (the caller names them); how anybody connects.
Invariant: what passes here can be meant in one way only: host names are plain, networks canonical, names
    unique.
Source: RFC 1123, 2.1 (host names); RFC 9110, 5.1 (header names).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable

from .databases import connection_fault
from .errors import ConfigError
from .hosts import HostError, check_destination
from .settings import Agent, Config, Connection, Credential, Egress

Wrong = Callable[[str, str, str], ConfigError]
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")


def check_outside(config: Config, wrong: Wrong) -> None:
    """Raises ConfigError, as ``wrong`` makes it of key, fault and what was expected."""
    _check_names("credential", [one.name for one in config.credential], wrong)
    _check_names("connection", [one.name for one in config.connection], wrong)
    for index, credential in enumerate(config.credential):
        _check_credential(f"credential[{index}]", credential, wrong)
    for index, connection in enumerate(config.connection):
        _check_connection(f"connection[{index}]", connection, wrong)
    credentials = {one.name for one in config.credential}
    connections = {one.name for one in config.connection}
    for index, agent in enumerate(config.agent):
        _check_agent(f"agent[{index}]", agent, credentials, connections, wrong)


def _check_names(key: str, names: Iterable[str], wrong: Wrong) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if not _NAME.fullmatch(name):
            raise wrong(
                f"{key}[{index}].name", repr(name[:80]), "lower-case letters, digits, - and _, at most 64"
            )
        if name in seen:
            raise wrong(f"{key}[{index}].name", f"two are named {name!r}", "unique names")
        seen.add(name)


def _check_credential(key: str, credential: Credential, wrong: Wrong) -> None:
    if bool(credential.value_file) == bool(credential.value_env):
        raise wrong(f"{key}.value_file", "both or none of value_file and value_env are set", "one of them")
    if not _HEADER.fullmatch(credential.header):
        raise wrong(f"{key}.header", repr(credential.header[:80]), "the name of a header")


def _check_connection(key: str, connection: Connection, wrong: Wrong) -> None:
    if (fault := connection_fault(connection)) is not None:
        field, what, expected = fault
        raise wrong(f"{key}.{field}", what, expected)


def _check_agent(key: str, agent: Agent, credentials: set[str], connections: set[str], wrong: Wrong) -> None:
    for index, egress in enumerate(agent.egress):
        _check_egress(f"{key}.egress[{index}]", egress, credentials, wrong)
    for name in agent.connections:
        if name not in connections:
            known = ", ".join(sorted(connections)) or "a [[connection]], of which there is none"
            raise wrong(f"{key}.connections", f"there is no connection {name[:80]!r}", known)


def _check_egress(key: str, egress: Egress, credentials: set[str], wrong: Wrong) -> None:
    try:
        check_destination(egress.host)
    except HostError as error:
        expected = 'a name such as "api.example.org" or "*.example.org", or an address'
        raise wrong(f"{key}.host", repr(egress.host[:80]), expected) from error
    if not egress.ports:
        raise wrong(f"{key}.ports", "none", "at least one port")
    for network in egress.addresses:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise wrong(f"{key}.addresses", str(error)[:200], 'networks such as "10.1.0.0/16"') from error
    if egress.credential and egress.credential not in credentials:
        known = ", ".join(sorted(credentials)) or "a [[credential]], of which there is none"
        raise wrong(f"{key}.credential", f"there is no credential {egress.credential[:80]!r}", known)
