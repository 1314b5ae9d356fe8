"""Listening sockets, made before any worker starts and inherited by the gate.

Owns: the socket files of ``run/`` and the TCP listener; their permissions.
Must not know: what is spoken on them.
Invariant: a listener lives as long as the supervisor, so no restart of the gate refuses a connection.
Source: unix(7) (108 bytes of sun_path with its zero); systemd's socket activation; DESIGN §3 (sockets).
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from ..proto.config import SUN_PATH_BYTES, Config, host_port
from ..proto.errors import ConfigError, HomeError
from .identities import Identities

BACKLOG = 512


@dataclass
class Listeners:
    """The open listeners; ``client_tcp`` only where configured."""

    gate: socket.socket
    client: socket.socket
    control: socket.socket
    client_tcp: socket.socket | None

    def of_gate(self) -> dict[str, int]:
        """Descriptors for the gate by name."""
        fds = {"gate": self.gate.fileno(), "client": self.client.fileno()}
        if self.client_tcp is not None:
            fds["client_tcp"] = self.client_tcp.fileno()
        return fds

    def close(self) -> None:
        """Close all and remove the socket files."""
        for one in (self.gate, self.client, self.control):
            path = one.getsockname()
            one.close()
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()
        if self.client_tcp is not None:
            self.client_tcp.close()


def socket_path(home: Path, name: str) -> str:
    """Give the path of a socket of this home. Raises HomeError if no unix socket can have it."""
    path = str(home / "run" / name)
    length = len(os.fsencode(path))
    if length > SUN_PATH_BYTES:
        raise HomeError(
            f"{path}: {length} bytes are too long for a unix socket (at most {SUN_PATH_BYTES})",
            remedy=f"Use a --home that is at least {length - SUN_PATH_BYTES} bytes shorter.",
        )
    return path


def check_paths(home: Path) -> None:
    """Refuse a home whose name is too long, before anything is made in it. Raises HomeError."""
    for name in ("control.sock", "client.sock", "gate.sock"):
        socket_path(home, name)


def listen(home: Path, config: Config, identities: Identities) -> Listeners:
    """Make all listeners. Raises HomeError, ConfigError for a TCP address that can't be had."""
    tcp = listen_tcp(config.client.listen, "client.listen") if config.client.listen else None
    gate = _unix(home, "gate.sock", socket.SOCK_STREAM)
    if identities.workers_gid is not None:
        # Only the workers' own group may connect; what counts in the end is the secret in their Hello.
        path = gate.getsockname()
        os.chown(path, 0, identities.workers_gid)
        Path(path).chmod(0o660)
    client = _unix(home, "client.sock", socket.SOCK_STREAM)
    control = _unix(home, "control.sock", socket.SOCK_SEQPACKET)
    return Listeners(gate, client, control, tcp)


def address_of(one: socket.socket) -> str:
    """Give ``host:port`` of a TCP listener."""
    host, port = one.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unix(home: Path, name: str, kind: socket.SocketKind) -> socket.socket:
    path = socket_path(home, name)
    one = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        with contextlib.suppress(FileNotFoundError):
            Path(path).unlink()  # Left by a supervisor that was killed; we hold the lock.
        one.bind(path)
        Path(path).chmod(0o600)
        one.listen(BACKLOG)
    except OSError as error:
        one.close()
        raise HomeError(
            f"{path}: no socket can be made here: {(error.strerror or '').lower()}",
            remedy="Use a --home on a local file system with room.",
        ) from error
    return one


def listen_tcp(address: str, key: str) -> socket.socket:
    """Listen on ``host:port``. Raises ConfigError naming the key."""
    host, port = host_port(address, key)
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        one = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"{key} = {address!r}: {error.strerror}", field=key) from error
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(where)
        one.listen(BACKLOG)
    except OSError as error:
        one.close()
        raise ConfigError(
            f"{key} = {address!r}: {(error.strerror or '').lower()}",
            field=key,
            remedy="Choose a free port, or port 0 for any.",
        ) from error
    return one
