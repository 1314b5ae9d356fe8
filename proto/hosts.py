"""Names of hosts: which spellings are one, and which destination covers which host.

Owns: the syntax of host, authority and destination.
Must not know: addresses' meaning, DNS, settings.
Invariant: a host is a plain DNS name in ASCII or an address in its canonical spelling; every other spelling
    is refused, never normalised, so that no two readers see two hosts in one text.
Source: RFC 1123 §2.1, RFC 3986 §3.2.2, RFC 5952 (canonical IPv6); the URL Standard, "ends in a number".
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from .errors import RefusedError

NAME_CHARS: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_SHOWN_CHARS: Final = 80
_URL: Final = re.compile(r"(https?)://([^/?#]*)([^#]*)(#.*)?", re.ASCII)
_UNSAYABLE: Final = re.compile(r"[^!-~]|[\\\"<>^`{|}]")
PORTS: Final = {"http": 80, "https": 443}


class HostError(RefusedError):
    """The text is not a host in a spelling that is taken."""

    code = "host"


def literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is the canonical spelling of; None for a name and for every other spelling.

    One with a zone (``fe80::1%eth0``) is no host: where it leads depends on who reads it.
    """
    if "%" in host:
        return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return address if str(address) == host else None


def check(host: str) -> str:
    """Give the host in lower case. Raises HostError for whatever is not exactly one host.

    A name whose last label is a number is an odd spelling of an address (``127.1``, ``0x7f000001``).
    """
    lower = host.lower() if host.isascii() else host
    if literal(lower) is not None:
        return lower
    labels = lower.split(".")
    if not host or len(host) > NAME_CHARS or not all(map(_LABEL.fullmatch, labels)):
        raise _wrong(host)
    if _NUMBER.fullmatch(labels[-1]):
        raise _wrong(host)
    return lower


def authority(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Take ``host:port`` apart; an IPv6 address stands in brackets. Raises HostError."""
    if text.startswith("["):
        inner, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in inner:
            raise _wrong(text)
        host, colon, port = inner, rest[:1], rest[1:]
        if rest and colon != ":":
            raise _wrong(text)
    else:
        host, colon, port = text.partition(":")
    if colon:
        if not _PORT.fullmatch(port) or int(port) > 65_535:
            raise HostError(
                f"the port of {_shown(text)} is none", field="port", expected="a number from 1 to 65535"
            )
        return check(host), int(port)
    if default_port is None:
        raise HostError(f"{_shown(text)} has no port", field="port", expected="host:port")
    return check(host), default_port


@dataclass(frozen=True)
class Url:
    """An address of the web; ``target`` is what stands in the request line, without the fragment."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """As in the header Host."""
        return self.host_in_brackets if self.port == PORTS[self.scheme] else write(self.host, self.port)

    @property
    def host_in_brackets(self) -> str:
        """The host as it stands in an authority."""
        return f"[{self.host}]" if ":" in self.host else self.host


def url(text: str) -> Url:
    """Take an absolute URL apart. Raises HostError."""
    found = _URL.fullmatch(text)
    if found is None or _UNSAYABLE.search(text):
        raise HostError(
            f"{_shown(text)} is no URL that is taken",
            field="url",
            expected="http:// or https://, a host, a path, in printable ASCII, others percent-encoded",
        )
    host, port = authority(found[2], PORTS[found[1]])
    target = found[3] if found[3].startswith("/") else f"/{found[3]}"
    return Url(found[1], host, port, target)


def write(host: str, port: int) -> str:
    """``host:port``, as in an authority."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_destination(pattern: str) -> str:
    """Give a destination's ``host`` (a host, or ``*.`` and a name) in lower case. Raises HostError."""
    if not pattern.startswith("*."):
        return check(pattern)
    name = check(pattern[2:])
    if literal(name) is not None:
        raise _wrong(pattern)
    return f"*.{name}"


def covers(pattern: str, host: str) -> bool:
    """Whether a checked destination covers a checked host: ``*.x`` covers all below x, not x itself."""
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and literal(host) is None
    return pattern == host


def _wrong(host: str) -> HostError:
    return HostError(
        f"{_shown(host)} is no host in a spelling that is taken",
        field="host",
        expected="a DNS name in ASCII without a dot at its end, or an address as it is usually written",
    )


def _shown(text: str) -> str:
    return ascii(text[:_SHOWN_CHARS])
