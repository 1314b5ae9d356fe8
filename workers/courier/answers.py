"""What came back for ``http.request``, as the model reads it.

Owns: the values of an answer, of none, and their text.
Must not know: how it came; redirects, policy.
Invariants: at most so many bytes of a body are shown, and it is said how many there were; what is no text is
    not shown; secrets were taken out before anything of it is here.
Source: RFC 9110 §8.3 (media types), §15; DESIGN §9 "binary output recognised".
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Final

MOST_HEADERS: Final = 64
HEADERS_LIMIT_CHARS: Final = 4_096
_VALUE_CHARS: Final = 512
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LINE_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")
_TEXT_TYPES: Final = ("text/", "application/json", "application/xml", "application/javascript")
_TEXT_ENDINGS: Final = ("+json", "+xml", "/x-www-form-urlencoded", "/yaml", "/x-yaml", "/toml", "/x-ndjson")
_LOOKED_AT_BYTES: Final = 1_024
_CHARSETS: Final = frozenset(
    codecs.lookup(name).name
    for name in ("utf-8", "ascii", "latin-1", "iso8859-15", "cp1252", "utf-16", "utf-16-le", "utf-16-be")
)
"""Looked up here, while their modules can be imported; others are read as UTF-8."""


@dataclass(frozen=True)
class Response:
    """An answer. ``body`` is its beginning, ``total_bytes`` what came of it, ``cut`` why the rest did not."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    total_bytes: int
    address: str
    sent_bytes: int
    cut: str = ""

    def header(self, name: str) -> str:
        """The first header of this name; empty without."""
        return next((value for one, value in self.headers if one.lower() == name), "")


@dataclass(frozen=True)
class Failure:
    """No answer. ``sent``: the request may have arrived."""

    reason: str
    sent: bool
    address: str = ""
    sent_bytes: int = 0
    refused: bool = False
    """It was ours to refuse: nothing was sent."""
    timed_out: bool = False


def text_of(response: Response, limit_bytes: int) -> str:
    """Status, headers, an empty line, the body."""
    lines = [_LINE_CONTROLS.sub(" ", f"HTTP {response.status} {response.reason}"[:200]).rstrip()]
    lines += _headers(response)
    body = _body(response, limit_bytes)
    return "\n".join([*lines, "", body] if body else lines)


def _headers(response: Response) -> list[str]:
    lines: list[str] = []
    size = 0
    for name, value in response.headers[:MOST_HEADERS]:
        line = _LINE_CONTROLS.sub(" ", f"{name[:100].lower()}: {value[:_VALUE_CHARS]}")
        size += len(line)
        if size > HEADERS_LIMIT_CHARS:
            break
        lines.append(line)
    if left := len(response.headers) - len(lines):
        lines.append(f"[{left} more headers]")
    return lines


def _body(response: Response, limit_bytes: int) -> str:
    notes = [f"[{response.cut}]"] if response.cut else []
    if not response.body:
        return "\n".join(notes)
    kind = response.header("content-type")
    if not is_text(kind, response.body):
        size = f"{response.total_bytes:,} bytes of {kind.partition(';')[0].strip()[:80] or 'no stated type'}"
        return "\n".join([f"[not text: {size}, not shown]", *notes])
    shown = response.body[:limit_bytes]
    text = _CONTROLS.sub("\ufffd", _decoded(shown, kind))
    if len(shown) < response.total_bytes:
        notes.insert(0, f"[the first {len(shown):,} of {response.total_bytes:,} bytes]")
    return "\n".join([text, *notes])


def is_text(kind: str, body: bytes) -> bool:
    """Whether a person could read it: by its type, or, without one, by what it begins with."""
    if b"\0" in body[:_LOOKED_AT_BYTES] and "utf-16" not in kind.lower():
        return False
    media = kind.partition(";")[0].strip().lower()
    if media and media != "application/octet-stream":
        return media.startswith(_TEXT_TYPES) or media.endswith(_TEXT_ENDINGS)
    try:
        body[:_LOOKED_AT_BYTES].decode()
    except UnicodeDecodeError as error:
        return error.start >= min(len(body), _LOOKED_AT_BYTES) - 3  # A character that is cut in two.
    return True


def _decoded(body: bytes, kind: str) -> str:
    found = re.search(r"charset=\"?([A-Za-z0-9_.:-]{1,40})", kind)
    name = found[1] if found else "utf-8"
    try:
        known = codecs.lookup(name).name
    except LookupError:
        known = "utf-8"
    return body.decode(known if known in _CHARSETS else "utf-8", "replace")
