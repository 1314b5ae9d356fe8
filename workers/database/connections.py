"""The configured databases by name, and the password of each.

Owns: which backend a connection gets; reading passwords.
Must not know: what is asked.
Invariant: a password is read anew at each connect, so that a rotated one needs no restart; it is never part
    of a message, an error or a log line.
Source: DESIGN §3 (a secret is its own process's).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

from ...proto.config import Connection
from ...proto.databases import sqlite_file, url_fault
from .backend import Backend, UnusableError
from .postgresql import PostgresServer
from .sqlite import SqliteFile

# It would log each connection that is dropped, with a trace; what matters of it is in an outcome.
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
PASSWORD_LIMIT_BYTES = 4_096


def backends(connections: tuple[Connection, ...], home: str, at_once: int) -> Mapping[str, Backend]:
    """One for each connection; nothing is opened yet."""
    return {each.name: _backend(each, home, at_once) for each in connections}


def _backend(connection: Connection, home: str, at_once: int) -> Backend:
    if fault := url_fault(connection.url):
        raise ValueError(f"connection {connection.name}: {fault}")  # The configuration was checked for it.
    if (path := sqlite_file(connection.url)) is not None:
        return SqliteFile(path, home, write=connection.write, at_once=at_once)
    return PostgresServer(connection.url, password_of(connection), at_once=at_once)


def password_of(connection: Connection) -> Callable[[], str]:
    """What gives the password, when it is called; empty where none is configured. Raises UnusableError."""

    def read() -> str:
        if connection.password_file:
            where, password = f"password_file {connection.password_file}", _from_file(connection)
        elif connection.password_env:
            where = f"environment variable {connection.password_env}"
            password = os.environ.get(connection.password_env, "")
        else:
            return ""
        if not password or "\0" in password:
            raise UnusableError(f"connection {connection.name}: {where} is empty or missing")
        return password

    return read


def _from_file(connection: Connection) -> str:
    """The first line."""
    name, path = connection.name, connection.password_file
    try:
        with open(path, "rb") as file:
            data = file.read(PASSWORD_LIMIT_BYTES)
        return data.decode().partition("\n")[0].rstrip("\r")
    except OSError as error:
        raise UnusableError(f"connection {name}: password_file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnusableError(f"connection {name}: password_file {path}: it is not UTF-8") from error
