"""A provider's refusals get their kinds."""

from __future__ import annotations

import pytest

from homeostat.workers.brain.providers.refusals import failure_of_status, retry_after


@pytest.mark.parametrize(("status", "body", "kind"), [
    (429, b"{}", "rate_limit"),
    (429, b'{"error":{"code":"insufficient_quota","message":"pay"}}', "auth"),
    (401, b"", "auth"),
    (403, b"no", "auth"),
    (500, b"<html>", "overload"),
    (529, b"", "overload"),
    (408, b"", "overload"),
    (400, b'{"error":{"message":"maximum context length is 8192 tokens"}}', "context_too_long"),
    (400, b'{"error":{"code":"context_length_exceeded","message":"x"}}', "context_too_long"),
    (413, b"", "context_too_long"),
    (400, b'{"error":{"message":"bad tool"}}', "refusal"),
    (404, b"\xff\xfe", "refusal"),
    (307, b"", "refusal"),
])  # fmt: skip
def test_status_has_its_kind(status: int, body: bytes, kind: str) -> None:
    """The table, and bodies that say more than the status."""
    failure = failure_of_status(status, {}, body, 0.0)
    assert failure.kind == kind
    assert failure.message.startswith(f"HTTP {status}")


def test_message_is_one_short_printable_line_when_the_provider_says_more() -> None:
    """It ends on terminals."""
    message = failure_of_status(500, {}, b"\x1b[2J\n" + b"x" * 5_000, 0.0).message
    assert len(message) <= 500
    assert message.isprintable()


@pytest.mark.parametrize(("headers", "seconds"), [
    ({"retry-after": "3"}, 3.0),
    ({"retry-after": "1.5"}, 1.5),
    ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90.0),
    ({"retry-after": "Thu, 01 Jan 1970 00:00:01 GMT"}, 0.0),
    ({"retry-after": "soon"}, None),
    ({"retry-after-ms": "9" * 400}, None),
    ({"retry-after-ms": "9" * 400, "retry-after": "3"}, 3.0),
    ({"retry-after-ms": "٣"}, None),
    ({"retry-after": "-1"}, None),
    ({}, None),
])  # fmt: skip
def test_retry_after_reads_numbers_and_dates(headers: dict[str, str], seconds: float | None) -> None:
    """RFC 9110 §10.2.3 and OpenAI's milliseconds."""
    assert retry_after(headers, 10.0) == seconds
