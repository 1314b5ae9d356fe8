"""The gate's CURVE keys: made once, kept in the home.

Owns: ``keys/server.secret`` (0600) and ``keys/server.pub``. Must not know: who connects.
Invariant: a key that exists is never replaced.
Source: ZeroMQ RFC 26 (CurveZMQ), RFC 32 (Z85).
"""

from __future__ import annotations

import os
from pathlib import Path

import zmq


def server_secret(folder: Path) -> bytes:
    """Give the server's secret key, made at the first use. Raises OSError."""
    secret = folder / "server.secret"
    try:
        return secret.read_bytes().strip()
    except FileNotFoundError:
        public, private = zmq.curve_keypair()
    _write(folder / "server.pub", public, 0o644)
    _write(secret, private, 0o600)
    return private


def _write(path: Path, data: bytes, mode: int) -> None:
    partial = path.with_name(path.name + ".partial")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.write(fd, data + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
    partial.rename(path)
