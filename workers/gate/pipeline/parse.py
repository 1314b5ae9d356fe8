"""Stage 1: arguments as the model wrote them → plain values, strictly.

Owns: what JSON is accepted. Must not know: tools, schemas, policy.
Invariant: what is accepted has exactly one reading: no duplicate keys, no NaN, no number that changes when
    stored.
Source: RFC 8259 §4 and §6; DESIGN §8 "Parse" (msgspec lets duplicate keys pass: tried).
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from .verdict import Denied

ARGUMENTS_LIMIT_BYTES = 256 << 10
_DEPTH_LIMIT = 32
_PATH_WORDS = ("path", "cwd", "dir", "file", "workspace")
_canonical = msgspec.json.Encoder(order="sorted").encode


def parse(data: bytes) -> dict[str, Any]:
    """Give the arguments. Raises Denied."""
    if len(data) > ARGUMENTS_LIMIT_BYTES:
        raise Denied(
            "parse",
            "too_large",
            f"arguments of {len(data)} bytes; at most {ARGUMENTS_LIMIT_BYTES} are accepted",
        )
    try:
        text = data.decode()
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_int64,
        )
    except UnicodeDecodeError as error:
        raise Denied(
            "parse", "not_utf8", f"arguments are not UTF-8: {error.reason} at byte {error.start}"
        ) from error
    except json.JSONDecodeError as error:
        raise Denied("parse", "not_json", f"arguments are not JSON: {error}") from error
    except RecursionError as error:
        raise Denied("parse", "too_deep", "arguments are nested too deeply") from error
    if not isinstance(value, dict):
        raise Denied("parse", "not_object", "arguments must be one JSON object")
    _check(value, "", 0)
    return value


def canonical(value: dict[str, Any]) -> bytes:
    """One byte string for equal arguments: sorted keys, no spaces."""
    return _canonical(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add() gives None
        raise Denied("parse", "duplicate_key", f"the key {twice[:80]!r} stands twice")
    return result


def _no_constant(word: str) -> float:
    raise Denied("parse", "not_a_number", f"{word} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Denied("parse", "not_a_number", f"{text[:40]} is too large a number")
    return value


def _int64(text: str) -> int:
    if len(text) > 20 or not -(1 << 63) <= (value := int(text)) < 1 << 63:
        raise Denied("parse", "not_a_number", f"{text[:40]} does not fit in 64 bits")
    return value


def _check(value: Any, key: str, depth: int) -> None:
    if depth > _DEPTH_LIMIT:
        raise Denied("parse", "too_deep", f"arguments are nested more than {_DEPTH_LIMIT} deep")
    if isinstance(value, str):
        _check_text(value, key)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_text(name, "")
            _check(item, name, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, key, depth + 1)


def _check_text(text: str, key: str) -> None:
    if key in _PATH_WORDS and "\0" in text:
        raise Denied("parse", "bad_path", f"{key!r} has a NUL character")
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Denied("parse", "lone_surrogate", f"{key or 'a key'!r} has half a surrogate pair") from error
    if key in _PATH_WORDS and "\ufffd" in text:
        raise Denied("parse", "bad_path", f"{key!r} has a replacement character")
