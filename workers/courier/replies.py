"""What the proxy itself says to a command.

Owns: the bytes of its answers.
Must not know: sockets, policy.
Invariant: a refusal says in its status line what is wrong, for programs that show nothing else, and in its
    body what would be right; nothing that a command sent can break out of either.
Source: RFC 9112 §4; RFC 9110 §15.
"""

from __future__ import annotations

import re
from typing import Final

ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
_REASON_CHARS: Final = 200
_TEXT_CHARS: Final = 2_000
_UNSAYABLE: Final = re.compile(r"[^\x20-\x7e]")


def refusal(status: int, reason: str, text: str = "") -> bytes:
    """An answer that ends the connection."""
    body = f"homeostat: {text or reason}"[:_TEXT_CHARS].encode("utf-8", "backslashreplace") + b"\n"
    line = _UNSAYABLE.sub(" ", reason)[:_REASON_CHARS]
    head = (
        f"HTTP/1.1 {status} {line}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\nVia: 1.1 homeostat\r\n\r\n"
    )
    return head.encode("ascii") + body
