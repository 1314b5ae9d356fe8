"""The bodies that pass a proxy: where each ends, and nothing after it.

Owns: counting and chunks of requests, and the head that an answer gets.
Must not know: sockets, who may reach what.
Invariant: what goes to the host is one request's body, byte for byte; what follows it goes nowhere.
Source: RFC 9112 §6, §7.1; the smuggling of requests lives on lenient chunk readers, so this one is not.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from .heads import END, RESPONSE_LIMIT_BYTES, Framing, HeadError, close_after

_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,15}")
_SIZE_LINE_BYTES: Final = 17
_CRLF: Final = b"\r\n"


class Passage(Protocol):
    """What becomes of the bytes of one direction."""

    @property
    def over(self) -> bool:
        """Whether nothing that comes belongs to it any more."""

    def feed(self, data: bytes) -> bytes:
        """Take what came; give what goes on. Raises HeadError."""


class Counted:
    """So many bytes."""

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def over(self) -> bool:
        """Whether all has come."""
        return not self._left

    def feed(self, data: bytes) -> bytes:
        """Of what came, what still belongs to it."""
        passed = data[: self._left]
        self._left -= len(passed)
        return passed


class Chunked:
    """Chunks, to the empty one; without extensions and trailers."""

    def __init__(self) -> None:
        self._line = b""
        self._left = 0
        self._state = "size"

    @property
    def over(self) -> bool:
        """Whether its last chunk has come."""
        return self._state == "over"

    def feed(self, data: bytes) -> bytes:
        """Of what came, what belongs to it. Raises HeadError."""
        at = 0
        while at < len(data) and self._state != "over":
            if self._state == "data":
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                if not self._left:
                    self._state = "end"
            else:
                self._take(data[at : at + 1])
                at += 1
        return data[:at]

    def _take(self, byte: bytes) -> None:
        """One byte of what stands between the data: a size's line, or the end of a chunk or of all."""
        self._line += byte
        if self._state == "size":
            if self._line.endswith(_CRLF):
                self._sized(self._line[:-2])
            elif len(self._line) >= _SIZE_LINE_BYTES:
                raise HeadError("a chunk's size is too long, or has an extension")
        elif self._line == _CRLF:
            self._line, self._state = b"", "size" if self._state == "end" else "over"
        elif not _CRLF.startswith(self._line):
            raise HeadError("a chunk does not end where its size says, or there is a trailer")

    def _sized(self, text: bytes) -> None:
        if not _SIZE.fullmatch(text):
            raise HeadError("a chunk's size is not a hexadecimal number")
        self._left, self._line = int(text, 16), b""
        self._state = "data" if self._left else "trailer"


class Answer:
    """An answer: its head says that the connection closes; interim ones before it and all after it as is."""

    over = False

    def __init__(self) -> None:
        self._head: bytes | None = b""
        self.status = 0

    def feed(self, data: bytes) -> bytes:
        """Raises HeadError."""
        if self._head is None:
            return data
        self._head += data
        out = b""
        while self._head is not None and (at := self._head.find(END)) >= 0:
            if at > RESPONSE_LIMIT_BYTES:
                break
            whole, rest = self._head[: at + len(END)], self._head[at + len(END) :]
            self.status, written, is_last = close_after(whole)
            out += written + (rest if is_last else b"")
            self._head = None if is_last else rest
        if self._head is not None and len(self._head) > RESPONSE_LIMIT_BYTES:
            raise HeadError(f"the head of the host's answer has more than {RESPONSE_LIMIT_BYTES} bytes", 502)
        return out


def body_of(framing: Framing) -> Passage:
    """The body of a request."""
    return Chunked() if framing == "chunked" else Counted(framing)
