"""What a provider's refusal means: an HTTP status or an error object → a typed failure.

Owns: the table from a provider's words to our kinds of failure.
Must not know: connections, how often a call is tried.
Invariant: every refusal has a kind; a message never holds what we sent.
Source: RFC 9110 (status codes, Retry-After); the API references' pages on errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from .events import Failed, FailureKind

MESSAGE_LIMIT = 500
_CONTEXT = re.compile(
    r"context[ _](length|size|window)|maximum context|too many tokens|prompt is too long", re.IGNORECASE
)
_BY_CODE: tuple[tuple[str, FailureKind], ...] = (
    ("context_length", "context_too_long"), ("exceed_context", "context_too_long"),
    ("rate_limit", "rate_limit"), ("insufficient_quota", "auth"), ("billing", "auth"),
    ("authentication", "auth"), ("permission", "auth"), ("invalid_api_key", "auth"),
    ("overloaded", "overload"), ("server_error", "overload"), ("unavailable", "overload"),
    ("timeout", "overload"),
    ("content_filter", "refusal"), ("invalid_request", "refusal"), ("not_found", "refusal"),
)  # fmt: skip


def failure_of_status(status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> Failed:
    """Name the failure of an answer that isn't 200; ``now_s`` is wall time, for a Retry-After date."""
    error = _error_object(body)
    code, text = _words(error)
    text = text or body[:MESSAGE_LIMIT].decode("utf-8", "replace")
    kind = _kind_of_status(status)
    if kind == "refusal" and _CONTEXT.search(f"{code} {text}"):
        kind = "context_too_long"
    if "insufficient_quota" in code:
        kind = "auth"  # Paid by 429, yet no waiting helps.
    message = _printable(f"HTTP {status}: {text}" if text else f"HTTP {status}")
    return Failed(kind, message, retry_after(headers, now_s))


def failure_of_error(raw: bytes) -> Failed:
    """Name the failure that an error object inside a stream (JSON) speaks of."""
    code, text = _words(_json(raw))
    if _CONTEXT.search(text):
        return Failed("context_too_long", _printable(text))
    kind = next((kind for word, kind in _BY_CODE if word in code), None)
    if kind is None:
        digits = re.search(r"\b[45]\d\d\b", code)
        kind = _kind_of_status(int(digits[0])) if digits else "overload"
    return Failed(kind, _printable(f"error in the stream: {text or code or 'without words'}"))


def retry_after(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds that the provider asks us to wait: ``retry-after-ms``, ``retry-after`` (number, date)."""
    if re.fullmatch(r"\d{1,12}", value := headers.get("retry-after-ms", "").strip(), re.ASCII):
        return int(value) / 1000
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value, re.ASCII):
        return float(value)
    if not value:
        return None
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None  # Not a date either: as if the header were not there.


def _kind_of_status(status: int) -> FailureKind:
    if status == 429:
        return "rate_limit"
    if status in (401, 402, 403):
        return "auth"
    if status in (408, 409, 425) or status >= 500:
        return "overload"
    if status == 413:
        return "context_too_long"
    return "refusal"  # Redirects too: following one would carry the key to another host.


def _json(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _error_object(body: bytes) -> Any:
    parsed = _json(body)
    return parsed.get("error", parsed) if isinstance(parsed, dict) else parsed


def _words(error: Any) -> tuple[str, str]:
    """Code and sentence of an error object of whatever shape."""
    if isinstance(error, str):
        return "", error
    if not isinstance(error, dict):
        return "", ""
    code = " ".join(
        str(error[key]) for key in ("type", "code", "status") if isinstance(error.get(key), str | int)
    )
    message = error.get("message")
    return code.lower(), message if isinstance(message, str) else ""


def _printable(text: str) -> str:
    """One line without control characters: it ends in a journal and on terminals."""
    return "".join(char if char.isprintable() else " " for char in text[:MESSAGE_LIMIT])
