"""Tell systemd how we are.

Owns: the datagrams of the readiness protocol.
Must not know: what readiness means here.
Invariant: without NOTIFY_SOCKET nothing happens; a socket that does not take the word is not our failure.
Source: sd_notify(3).
"""

from __future__ import annotations

import os
import socket


def notify(state: str) -> bool:
    """Send e.g. ``READY=1``; give whether somebody took it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto(state.encode(), address)
        except OSError:
            return False
    return True
