"""Lines for systemd's journal, in its own protocol: one datagram an entry.

Owns: the form of an entry, and sending it without waiting.
Must not know: what is logged; where a line goes that the journal does not take.
Invariant: nothing waits for the journal; what it does not take is an error with a reason, never silence.
Source: systemd, "Native Journal Protocol" (JOURNAL_NATIVE_PROTOCOL.md); systemd.journal-fields(7); syslog(3).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path

ADDRESS = Path("/run/systemd/journal/socket")
IDENTIFIER = "homeostat"
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
NAME_LIMIT = 64
"""A longer field name makes the journal drop the field: journal_field_valid()."""


class Journal:
    """The socket of journald. Nothing is connected, so a journald that was restarted is met again."""

    def __init__(self, address: Path = ADDRESS) -> None:
        self._address = str(address)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def send(self, level: str, message: str, fields: Mapping[str, str]) -> None:
        """Send one entry. Raises OSError: no journald, or one that does not keep up."""
        entry = {"MESSAGE": message, "PRIORITY": str(PRIORITIES[level]), "SYSLOG_IDENTIFIER": IDENTIFIER}
        entry |= {field_name(name): value for name, value in fields.items()}
        self._socket.sendto(b"".join(encoded(name, value) for name, value in entry.items()), self._address)

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()


def field_name(name: str) -> str:
    """``HOMEOSTAT_…`` in the letters that the journal takes."""
    return "HOMEOSTAT_" + re.sub(r"[^A-Z0-9_]", "_", name.upper())[: NAME_LIMIT - len("HOMEOSTAT_")]


def encoded(name: str, value: str) -> bytes:
    """A field; a value with a line break is told by its length, so that it can't begin another field."""
    data = value.encode("utf-8", "replace")
    if b"\n" in data:
        return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return name.encode() + b"=" + data + b"\n"
