"""Listening sockets, made before any worker starts and inherited by gate, courier and executors.

Owns: the socket files of ``run/`` and the TCP listener; their permissions.
Must not know: what is spoken on them.
Invariant: a listener lives as long as the supervisor, so no restart of a worker refuses a connection.
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
LONGEST_NAME = "terminal.63.sock"
"""The longest that a socket of a home can be called: bounds.py allows 64 executors."""


@dataclass
class Listeners:
    """The open listeners; ``client_tcp`` and ``courier`` only where configured, a terminal's per executor."""

    gate: socket.socket
    client: socket.socket
    control: socket.socket
    client_tcp: socket.socket | None
    courier: socket.socket | None
    terminals: tuple[socket.socket, ...]

    def of_gate(self) -> dict[str, int]:
        """Descriptors for the gate by name."""
        fds = {"gate": self.gate.fileno(), "client": self.client.fileno()}
        if self.client_tcp is not None:
            fds["client_tcp"] = self.client_tcp.fileno()
        return fds

    def of_courier(self) -> dict[str, int]:
        """Where executors offer the listeners of commands with a way out."""
        return {} if self.courier is None else {"egress": self.courier.fileno()}

    def of_executor(self, index: int) -> dict[str, int]:
        """Where a person takes over a live terminal of this executor."""
        return {"attach": self.terminals[index].fileno()} if index < len(self.terminals) else {}

    def close(self) -> None:
        """Close all and remove the socket files."""
        courier = (self.courier,) if self.courier is not None else ()
        for one in (self.gate, self.client, self.control, *courier, *self.terminals):
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
    socket_path(home, LONGEST_NAME)


def listen(home: Path, config: Config, identities: Identities) -> Listeners:
    """Make all listeners. Raises HomeError, ConfigError for a TCP address that can't be had."""
    tcp = listen_tcp(config.client.listen, "client.listen") if config.client.listen else None
    gate = _unix(home, "gate.sock", socket.SOCK_STREAM)
    _for_workers(gate, identities)  # What counts in the end is the secret in their Hello.
    client = _unix(home, "client.sock", socket.SOCK_STREAM)
    control = _unix(home, "control.sock", socket.SOCK_SEQPACKET)
    courier = None
    if config.has_courier:
        courier = _unix(home, "courier.sock", socket.SOCK_SEQPACKET)
        _for_workers(courier, identities)  # It asks the kernel who has connected: only an executor is heard.
    terminals = tuple(
        _unix(home, f"terminal.{index}.sock", socket.SOCK_SEQPACKET)
        for index in range(config.workers.executors)
    )
    return Listeners(gate, client, control, tcp, courier, terminals)


def _for_workers(listener: socket.socket, identities: Identities) -> None:
    """As root: only the workers' own group may connect."""
    if identities.workers_gid is not None:
        path = listener.getsockname()
        os.chown(path, 0, identities.workers_gid)
        Path(path).chmod(0o660)


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
