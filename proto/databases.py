"""The addresses of databases, as the configuration writes them.

Owns: which addresses there can be, the file of a SQLite one, what is wrong with one.
Must not know: who connects, with which driver.
Invariant: an address holds no password: every worker has the configuration, one has the passwords.
Source: RFC 3986; libpq-connect "Connection URIs"; SQLAlchemy's form of a SQLite address.
"""

from __future__ import annotations

import re

from .settings import Connection

SQLITE = "sqlite:///"
POSTGRESQL = "postgresql://"
EXPECTED = '"sqlite:////absolute/path" or "postgresql://user@host:5432/database"'
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_POSTGRESQL = re.compile(r"postgresql://(?:([^@/?#]*)@)?([^/?#]*)/([^/?#]+)(?:\?([^#]*))?")
_FILES = frozenset({"sslrootcert", "sslcert", "sslkey", "sslcrl"})
_OPTIONS = frozenset({
    "host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "sslnegotiation",
    "channel_binding", "require_auth", "target_session_attrs", "gssencmode", "krbsrvname", "application_name",
})  # fmt: skip
"""Of libpq's words those that say where a server is and how it is known; the others are ours or secrets."""


def is_sqlite(url: str) -> bool:
    """Whether it is a file."""
    return url.startswith("sqlite:")


def sqlite_file(url: str) -> str | None:
    """The absolute path of a SQLite database, as written: nothing in it is an escape. None for others."""
    path = url.removeprefix(SQLITE)
    return path if path != url and path.startswith("/") else None


def files_of(url: str) -> tuple[str, ...]:
    """The files that an address names: certificates and keys of TLS."""
    words = (option.partition("=") for option in url.partition("?")[2].split("&"))
    return tuple(value for word, _, value in words if word in _FILES and value.startswith("/"))


def connection_fault(connection: Connection) -> tuple[str, str, str] | None:
    """What is wrong with one: the key, what, and what is expected. None when nothing is."""
    if not _NAME.fullmatch(connection.name):
        return "name", repr(connection.name[:80]), "lower-case letters, digits, - and _, at most 64"
    if connection.password_file and connection.password_env:
        return "password_env", "a password from two places", "password_file or password_env"
    if connection.password_env.startswith("PG"):
        expected = "another name: libpq's own variables are taken out of the environment"
        return "password_env", repr(connection.password_env[:80]), expected
    if what := url_fault(connection.url):
        return "url", what, EXPECTED
    if is_sqlite(connection.url) and (connection.password_file or connection.password_env):
        return "password_file", "SQLite knows no passwords", "none"
    return None


def url_fault(url: str) -> str:
    """What is wrong with an address, without a word of a password; empty when nothing is."""
    if is_sqlite(url):
        path = sqlite_file(url)
        if path is None:
            return "not the absolute path of a file (four slashes after the colon)"
        return "a path with '.', '..' or NUL" if {"..", "."} & set(path.split("/")) or "\0" in path else ""
    if not url.startswith(POSTGRESQL):
        return "not a database that is known here"
    found = _POSTGRESQL.fullmatch(url)
    if found is None:
        return "not an address of a database"
    user, _host, _database, options = found.groups(default="")
    if ":" in user:
        return "it holds a password; name a password_file or a password_env"
    for option in filter(None, options.split("&")):
        if (word := option.partition("=")[0]) not in _OPTIONS:
            return f"the option {word[:40]!r} can't be set here"
    return ""
