"""The head of an HTTP message: taken apart strictly, written anew.

Owns: the syntax of request and response heads.
Must not know: sockets, who may reach what, bodies (bodies.py).
Invariants: a head that two readers could read in two ways is refused; what goes on is written anew from what
    was understood, so that nothing else of it goes on.
Source: RFC 9110 §5, RFC 9112 §2-6, §11.2 (request smuggling).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from ...proto import hosts

REQUEST_LIMIT_BYTES: Final = 8_192
RESPONSE_LIMIT_BYTES: Final = 64 << 10
MOST_HEADERS: Final = 100
END: Final = b"\r\n\r\n"
TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate",
        b"te", b"trailer", b"upgrade", b"http2-settings",  # codespell:ignore te
    }
)  # fmt: skip
"""Between us and one of both sides; an upgrade would leave what is checked here."""
Headers = tuple[tuple[bytes, bytes], ...]
Framing = int | Literal["chunked"]
"""A body's length in bytes, or chunks."""


class HeadError(Exception):
    """The head can't be taken; ``status`` answers it."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


@dataclass(frozen=True)
class Request:
    """A request to a proxy. For CONNECT ``path`` is empty."""

    method: str
    host: str
    port: int
    path: bytes
    headers: Headers
    framing: Framing

    def to_origin(self) -> bytes:
        """The head for the host itself, in origin-form; one request a connection."""
        authority = hosts.write(self.host, self.port).removesuffix(":80").encode()
        kept = _end_to_end(self.headers, also={b"host", b"content-length", b"transfer-encoding"})
        lines = [b"%b %b HTTP/1.1" % (self.method.encode(), self.path), b"Host: " + authority]
        lines += _lines(kept)
        if self.framing == "chunked":
            lines.append(b"Transfer-Encoding: chunked")
        elif self.framing or _first(self.headers, b"content-length") is not None:
            lines.append(b"Content-Length: %d" % self.framing)
        lines.append(b"Connection: close")
        return b"\r\n".join(lines) + END


def parse_request(head: bytes) -> Request:
    """Take a head apart, its empty line included. Raises HeadError."""
    line, headers = _split(head)
    parts = line.split(b" ")
    if len(parts) != 3 or not TOKEN.fullmatch(parts[0]) or not _TARGET.fullmatch(parts[1]):
        raise HeadError("the request line is not `METHOD TARGET HTTP/1.1`")
    method, target, version = parts
    if version not in {b"HTTP/1.0", b"HTTP/1.1"}:
        raise HeadError("only HTTP/1.0 and HTTP/1.1 are spoken here", 505)
    framing = _framing(headers, version)
    try:
        host, port, path = _destination(method, target)
        _check_host(headers, host, port, version, is_tunnel=method == b"CONNECT")
    except hosts.HostError as error:
        raise HeadError(error.diagnostics()) from error
    if method == b"CONNECT" and framing:
        raise HeadError("a CONNECT has no body")
    return Request(method.decode(), host, port, path, headers, framing)


def close_after(head: bytes) -> tuple[int, bytes, bool]:
    """Take a response's head; give its status, the head that says the connection closes, and whether it is
    the last head (an interim one is not). Raises HeadError.
    """
    line, headers = _split(head)
    if not (found := _STATUS.fullmatch(line)):
        raise HeadError("the host's answer is not HTTP/1.1", 502)
    status = int(found[1])
    if status == 101:
        raise HeadError("the host changes to a protocol that nobody asked it for", 502)
    if status < 200:
        return status, head, False
    lines = [line, *_lines(_end_to_end(headers)), b"Connection: close"]
    return status, b"\r\n".join(lines) + END, True


def _split(head: bytes) -> tuple[bytes, Headers]:
    """Lines end in CRLF, and no part of it stands elsewhere; no line begins with a blank (obs-fold)."""
    lines = head[: -len(END)].split(b"\r\n")
    if any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines):
        raise HeadError("a line of the head does not end in CRLF, or holds a NUL")
    if len(lines) - 1 > MOST_HEADERS:
        raise HeadError(f"more than {MOST_HEADERS} headers", 431)
    return lines[0], tuple(map(_header, lines[1:]))


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
        raise HeadError("a header is not `Name: value` on one line")
    return name, value.strip(b" \t")


def _framing(headers: Headers, version: bytes) -> Framing:
    """Raises HeadError where a body's end could be read in two ways."""
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    codings = [value for name, value in headers if name.lower() == b"transfer-encoding"]
    if codings:
        if lengths or version == b"HTTP/1.0" or codings != [b"chunked"]:
            raise HeadError("Transfer-Encoding must be `chunked` alone, without Content-Length, in HTTP/1.1")
        return "chunked"
    if not lengths:
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise HeadError("Content-Length must be one decimal number")
    return int(lengths[0])


def _destination(method: bytes, target: bytes) -> tuple[str, int, bytes]:
    """Raises HeadError, HostError."""
    text = target.decode("ascii")
    if method == b"CONNECT":
        return (*hosts.authority(text), b"")
    if not text.startswith("http://"):
        raise HeadError("the target must be `http://host/…`; what is encrypted goes by CONNECT host:port")
    rest = text.removeprefix("http://")
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    if "#" in rest:
        raise HeadError("the target holds a fragment")
    host, port = hosts.authority(rest[:end], 80)
    path = rest[end:]
    return host, port, (path if path.startswith("/") else f"/{path}").encode()


def _check_host(headers: Headers, host: str, port: int, version: bytes, *, is_tunnel: bool) -> None:
    """The header Host names the target, or nobody knows to whom this goes. Raises HeadError, HostError."""
    named = [value for name, value in headers if name.lower() == b"host"]
    if not named and (is_tunnel or version == b"HTTP/1.0"):
        return
    if len(named) != 1 or not named[0].isascii():
        raise HeadError("there must be one header Host")
    default = port if is_tunnel else 80
    if hosts.authority(named[0].decode("ascii"), default) != (host, port):
        raise HeadError(f"the header Host and the target {hosts.write(host, port)} differ")


def _end_to_end(headers: Headers, also: Iterable[bytes] = ()) -> Headers:
    """Without those between neighbours, and those that Connection names as such."""
    named = b",".join(value for name, value in headers if name.lower() == b"connection")
    dropped = {*_HOP_BY_HOP, *also, *(word.strip().lower() for word in named.split(b","))}
    return tuple((name, value) for name, value in headers if name.lower() not in dropped)


def _lines(headers: Headers) -> list[bytes]:
    return [b"%b: %b" % header for header in headers]


def _first(headers: Headers, name: bytes) -> bytes | None:
    return next((value for one, value in headers if one.lower() == name), None)
