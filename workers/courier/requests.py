"""What an agent asks for with ``http.request``, and what goes over the wire for it.

Owns: the arguments, the headers that are sent, what a redirect makes of a request.
Must not know: sockets, addresses, secrets; which hosts are allowed.
Invariants: a credential goes to the place that the agent named, and to no place that a server named; what
    belongs to one place is not taken along to another.
Source: RFC 9110 §9.2 (safe methods), §15.4 (redirects); draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from ...proto.errors import RefusedError
from ...proto.hosts import Url, url
from ...proto.ids import Key

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TO_GET: Final = frozenset({301, 302, 303})
MOST_HEADERS: Final = 64
_HEADER_CHARS: Final = 8_192
_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_OURS: Final = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "keep-alive", "trailer", "upgrade",
        "te",  # codespell:ignore te
        "expect", "proxy-authorization", "proxy-connection", "http2-settings", "idempotency-key",
        "accept-encoding",
    }
)  # fmt: skip
_OF_ONE_PLACE: Final = frozenset({"authorization", "cookie", "cookie2", "www-authenticate"})
"""Meant for the place that the agent named: not taken along to another."""
_OF_A_BODY: Final = frozenset({"content-type", "content-encoding", "content-language", "content-location"})
_PARTS: Final = frozenset({"range", "if-range"})
"""Ask for a part of an answer."""
Headers = tuple[tuple[str, str], ...]


class RequestError(RefusedError):
    """The request can't be made as it is."""

    code = "request"


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of http.request."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = {}
    body: str = ""
    timeout_s: float = 30.0
    limit_bytes: int = 4_096


@dataclass(frozen=True)
class Hop:
    """One request to one host. ``credential`` names what is added; empty for nothing."""

    url: Url
    method: str
    headers: Headers
    body: bytes
    credential: str = ""

    @property
    def safe(self) -> bool:
        """Whether it asks for no change."""
        return self.method in SAFE

    def lines(self, key: Key) -> Headers:
        """The headers as they are sent, but for the credential."""
        own = [("Host", self.url.authority), ("Idempotency-Key", key)]
        names = {name.lower() for name, _ in self.headers}
        if "user-agent" not in names:
            own.append(("User-Agent", "homeostat"))
        if "accept" not in names:
            own.append(("Accept", "*/*"))
        if self.body or self.method not in {*SAFE, "DELETE"}:
            own.append(("Content-Length", str(len(self.body))))
        # Not compressed: what is shown is text, and a bomb needs a second bound.
        return (*own, *self.headers, ("Accept-Encoding", "identity"), ("Connection", "close"))


@dataclass(frozen=True)
class Asked:
    """What was asked for, checked."""

    hop: Hop
    timeout_s: float
    limit_bytes: int


def parse(args: bytes) -> Asked:
    """Take the arguments apart. Raises RequestError, HostError."""
    try:
        given = msgspec.json.decode(args, type=Arguments)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RequestError(f"bad arguments: {error}") from error
    target = url(given.url)
    if not given.method.isascii() or not given.method.isalpha() or given.method.upper() == "CONNECT":
        raise RequestError(f"method {given.method[:20]!a}", field="method", expected="GET, POST and the like")
    try:
        body = given.body.encode()
    except UnicodeEncodeError as error:
        raise RequestError("the body is no Unicode text", field="body") from error
    if body and given.method in SAFE:
        raise RequestError(f"a {given.method} has no body", field="body", expected="none")
    headers = tuple((name, _value(name, value)) for name, value in given.headers.items())
    _check_names([name for name, _ in headers])
    hop = Hop(target, given.method, headers, body)
    return Asked(hop, given.timeout_s, given.limit_bytes)


def with_credential(hop: Hop, credential: str, header: str) -> Hop:
    """The same, with a credential of the operator. Raises RequestError for an agent's own in its place."""
    if any(name.lower() == header.lower() for name, _ in hop.headers):
        raise RequestError(
            f"the header {header} is set by the operator for {hop.url.host}",
            field="headers",
            expected=f"none named {header}",
        )
    if any(name.lower() in _PARTS for name, _ in hop.headers):
        raise RequestError(
            f"the header range is not sent to {hop.url.host}: a part of an answer could show a credential "
            "in pieces",
            field="headers",
            expected="none named range",
        )
    return replace(hop, credential=credential)


def redirected(hop: Hop, status: int, location: str) -> Hop:
    """The request that a redirect asks for. Raises RequestError, HostError."""
    target = _absolute(hop.url, location)
    method, body, headers = hop.method, hop.body, hop.headers
    if method != "HEAD" and (status == 303 or (status in _TO_GET and method == "POST")):
        method, body = "GET", b""
        headers = tuple(header for header in headers if header[0].lower() not in _OF_A_BODY)
    credential = hop.credential
    if target.origin != hop.url.origin:
        credential = ""
        headers = tuple(header for header in headers if header[0].lower() not in _OF_ONE_PLACE)
    return Hop(target, method, headers, body, credential)


def _absolute(base: Url, location: str) -> Url:
    """RFC 3986 §5.2 for what servers send: an absolute URL, a path, or something relative to one."""
    if "://" in location.partition("?")[0].partition("#")[0]:
        return url(location)
    if location.startswith("//"):
        return url(f"{base.scheme}:{location}")
    start = f"{base.scheme}://{base.authority}"
    folder = base.target.partition("?")[0].rpartition("/")[0]
    if location.startswith("/"):
        return url(start + location)
    if location.startswith("?"):
        return url(start + base.target.partition("?")[0] + location)
    if location.startswith("."):
        raise RequestError(f"a redirect to the relative path {location[:80]!a} is not followed")
    return url(f"{start}{folder}/{location}")


def _value(name: str, value: str) -> str:
    if not all(" " <= character <= "~" for character in value):
        raise RequestError(
            f"the header {name[:40]!a} has a value that is not printable ASCII", field="headers"
        )
    return value.strip()


def _check_names(names: list[str]) -> None:
    """Raises RequestError."""
    if len(names) > MOST_HEADERS or sum(map(len, names)) > _HEADER_CHARS:
        raise RequestError("too many headers", field="headers", expected=f"at most {MOST_HEADERS}")
    seen: set[str] = set()
    for name in names:
        lower = name.lower()
        if not lower or not set(lower) <= _TOKEN:
            raise RequestError(f"{name[:40]!a} is no name of a header", field="headers")
        if lower in _OURS or lower.startswith("proxy-"):
            raise RequestError(
                f"the header {name} is made here", field="headers", expected="none of that name"
            )
        if lower in seen:
            raise RequestError(
                f"the header {name} is there twice", field="headers", expected="each name once"
            )
        seen.add(lower)
