"""Server-sent events: bytes as they come → whole events, without I/O.

Owns: the framing rules and its limits.
Must not know: what the data means, HTTP.
Invariant: how the bytes are cut into pieces never changes the events.
Source: WHATWG HTML, "9.2.6 Interpreting an event stream".
"""

from __future__ import annotations

import msgspec

LINE_LIMIT_BYTES = 1 << 20
EVENT_LIMIT_BYTES = 4 << 20
_BOM = b"\xef\xbb\xbf"


class StreamTooLargeError(Exception):
    """A line or an event of the stream is larger than its limit."""


class ServerEvent(msgspec.Struct, frozen=True):
    """One dispatched event; ``event`` is empty unless the stream named it."""

    data: str
    event: str = ""


class Parser:
    """Feed bytes, get the events that they complete.

    An event without its closing blank line is never given: the rules say that it is incomplete.
    """

    def __init__(
        self, line_limit_bytes: int = LINE_LIMIT_BYTES, event_limit_bytes: int = EVENT_LIMIT_BYTES
    ) -> None:
        self._line_limit = line_limit_bytes
        self._event_limit = event_limit_bytes
        self._rest = bytearray()
        self._scanned = 0
        self._at_start = True
        self._after_cr = False
        self._data: list[str] = []
        self._data_bytes = 0
        self._name = ""

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """Take some bytes. Raises StreamTooLargeError; the parser is of no use afterwards."""
        self._rest += chunk
        if self._at_start and not self._skip_bom():
            return []
        events = []
        while (line := self._next_line()) is not None:
            if (event := self._line(line)) is not None:
                events.append(event)
        return events

    def _skip_bom(self) -> bool:
        """Whether the beginning is settled: a byte order mark may come in pieces."""
        if len(self._rest) < len(_BOM) and _BOM.startswith(self._rest):
            return False
        if self._rest.startswith(_BOM):
            del self._rest[: len(_BOM)]
        self._at_start = False
        return True

    def _next_line(self) -> bytes | None:
        """Cut one line off. CR, LF and CRLF end lines; a CR at once, for an LF may never come."""
        if self._after_cr and self._rest:
            if self._rest[0] == 0x0A:
                del self._rest[0]
            self._after_cr = False
        end = _first_of(self._rest, self._scanned)
        length = len(self._rest) if end < 0 else end
        if length > self._line_limit:
            raise StreamTooLargeError(f"a line of the stream is longer than {self._line_limit} bytes")
        if end < 0:
            self._scanned = len(self._rest)
            return None
        line = bytes(self._rest[:end])
        self._after_cr = self._rest[end] == 0x0D
        del self._rest[: end + 1]
        self._scanned = 0
        return line

    def _line(self, line: bytes) -> ServerEvent | None:
        """Interpret one line; ``id`` and ``retry`` speak of reconnecting, which no model stream does."""
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data_bytes += len(value) + 1
            if self._data_bytes > self._event_limit:
                raise StreamTooLargeError(f"an event of the stream is larger than {self._event_limit} bytes")
            self._data.append(value.decode("utf-8", "replace"))
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")
        return None

    def _dispatch(self) -> ServerEvent | None:
        event = ServerEvent("\n".join(self._data), self._name) if self._data else None
        self._data, self._data_bytes, self._name = [], 0, ""
        return event


def _first_of(data: bytearray, start: int) -> int:
    """Where the next CR or LF is, or -1."""
    lf = data.find(b"\n", start)
    cr = data.find(b"\r", start, lf if lf >= 0 else len(data))
    return cr if cr >= 0 else lf
