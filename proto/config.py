"""Typed settings from one TOML file.

Owns: reading it, and errors that name key and line; it also gives the settings themselves (settings.py).
Must not know: who uses a setting.
Invariant: an unknown key or a wrong type is an error; nothing is guessed.
Source: TOML 1.0; DESIGN §13.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from . import bounds
from .confinement import path_fault
from .errors import ConfigError, HomeError
from .outside import check_outside
from .settings import (
    Agent as Agent,
    Client as Client,
    Config as Config,
    Connection as Connection,
    Courier as Courier,
    Credential as Credential,
    Egress as Egress,
    Guardian as Guardian,
    Journal as Journal,
    Log as Log,
    Metrics as Metrics,
    Model as Model,
    Policy as Policy,
    Quotas as Quotas,
    Sandbox as Sandbox,
    Supervision as Supervision,
    Terminals as Terminals,
    Users as Users,
    Workers as Workers,
)
from .tools import CATALOGUE

SUN_PATH_BYTES = 107
"""Longest path of a unix socket: sizeof(sockaddr_un.sun_path) - 1, unix(7)."""
ROOTS_HOME = "/var/lib/homeostat"
"""A home that the workers' users can reach: what root is told to use where the default one won't do."""
ASK_AS_OWNER = "Ask as the user who runs the supervisor."
_REMEDY = "docs/OPERATIONS.md lists every key with its type and default."
_HEADER = re.compile(r"\s*(\[\[?)([^\[\]]+)\]")
_ASSIGNMENT = re.compile(r"\s*([\w\s.\"'-]+?)\s*=")
_QUOTES = re.compile(r"[\s\"']")


def load(path: Path | None) -> Config:
    """Read a configuration; defaults without a path. Raises ConfigError naming file, line and key."""
    if path is None:
        return Config()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(
            f"{path}: can't be read: {reason}", remedy="Check the path given to --config."
        ) from error
    return parse(text, str(path))


def parse(text: str, name: str = "configuration") -> Config:
    """Turn TOML text into settings. Raises ConfigError."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not TOML: {error}", remedy=_REMEDY) from error
    except ValueError as error:  # An integer of more digits than Python reads.
        raise ConfigError(f"{name}: {error}", remedy=_REMEDY) from error
    except RecursionError as error:
        raise ConfigError(f"{name}: nested too deeply", remedy=_REMEDY) from error
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise _explain(name, text, error) from error
    return _checked(config, name, text)


def default_home() -> Path:
    """``$HOMEOSTAT_HOME``, else the XDG state folder. Raises HomeError for a user who has none."""
    if home := os.environ.get("HOMEOSTAT_HOME"):
        return Path(home)
    if state := os.environ.get("XDG_STATE_HOME"):
        return Path(state) / "homeostat"
    try:
        return Path.home() / ".local" / "state" / "homeostat"
    except RuntimeError as error:
        raise HomeError(
            "this user has no home directory to keep a home in", remedy="Name one: --home DIR."
        ) from error


def start_remedy(home: Path) -> str:
    """What to do where no supervisor runs on a home; one that root can't use is not advised."""
    if (closed := closed_to_others(home)) is not None:
        return (
            f"Start it with `homeostat run --home {ROOTS_HOME}`, and name that home here too: as root it "
            f"must lie beneath folders that everyone may pass through, and {closed} is none."
        )
    return f"Start it with `homeostat run --home {home}`."


def closed_to_others(home: Path) -> Path | None:
    """As root: the first folder above a home whose mode keeps the workers' users out."""
    if os.geteuid() != 0:
        return None
    above = {*home.parents, *Path(os.path.realpath(home)).parents}
    there = sorted(folder for folder in above if folder.exists())
    return next((folder for folder in there if not folder.stat().st_mode & stat.S_IXOTH), None)


def host_port(value: str, key: str) -> tuple[str, int]:
    """Split ``host:port``. Raises ConfigError naming the key."""
    host, colon, port = value.rpartition(":")
    if not colon or not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
        raise ConfigError(
            f"{key} = {value!r} is not an address", field=key, expected='"host:port", e.g. "127.0.0.1:9464"'
        )
    return host.strip("[]"), int(port)


def _checked(config: Config, name: str, text: str) -> Config:
    """What types can't say."""

    def wrong(key: str, what: str, expected: str) -> ConfigError:
        return ConfigError(f"{name}:{_line(text, key)}: {key}: {what}", field=key, expected=expected)

    for key, value in _numbers(config, ""):
        if value not in (allowed := bounds.of(key)):
            raise wrong(key, f"{value}"[:80], str(allowed))
    for key, address in (("metrics.listen", config.metrics.listen), ("client.listen", config.client.listen)):
        try:
            if address or key == "metrics.listen":
                host_port(address, key)
        except ConfigError as error:
            raise wrong(key, f"{address!r} is not an address", error.expected) from error
    for public in config.client.authorized_keys:
        if not bounds.is_key(public):
            raise wrong("client.authorized_keys", repr(public[:80]), "32 bytes as 40 characters of Z85")
    for path in config.sandbox.read_only:
        if fault := path_fault(path):
            raise wrong("sandbox.read_only", fault, 'paths such as "/opt/tools"')
    _check_agents(config.agent, wrong)
    check_outside(config, wrong)
    return config


def _check_agents(agents: tuple[Agent, ...], wrong: Callable[[str, str, str], ConfigError]) -> None:
    names: set[str] = set()
    for index, agent in enumerate(agents):
        key = f"agent[{index}]"
        if agent.name in names:
            raise wrong(f"{key}.name", f"two agents are named {agent.name!r}", "unique names")
        names.add(agent.name)
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,63}", agent.name):
            raise wrong(
                f"{key}.name", f"{agent.name[:80]!r}", "lower-case letters, digits, - and _, at most 64"
            )
        for tool in agent.tools:
            if tool not in CATALOGUE:
                raise wrong(
                    f"{key}.tools", f"there is no tool {tool[:80]!r}", "some of " + ", ".join(CATALOGUE)
                )
        if agent.provider == "chat" and agent.model is None:
            raise wrong(f"{key}.model", f'agent {agent.name!r} has provider "chat"', "a table [agent.model]")


def _numbers(value: Any, key: str) -> Iterator[tuple[str, float]]:
    """Every number of the settings with its dotted key."""
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _numbers(getattr(value, name), f"{key}.{name}".lstrip("."))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _numbers(item, f"{key}[{index}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value


def _explain(name: str, text: str, error: msgspec.ValidationError) -> ConfigError:
    """Give key and line; msgspec says what and where in its own words."""
    what, _, path = str(error).partition(" - at `$")
    key = path.rstrip("`").lstrip(".")
    if found := re.search(r"unknown field `([^`]*)`", what):
        key = f"{key}.{found[1]}" if key else found[1]
        what = "unknown key"
    line = _line(text, key)
    return ConfigError(
        f"{name}:{line}: {key or 'top level'}: {what}",
        field=key,
        remedy=_REMEDY,
    )


def _line(text: str, key: str) -> int:
    """The line of a dotted key (``agent[1].limits.max_steps``), or of the nearest table around it, or 1."""
    wanted = re.sub(r"\[\d+\]", "", key)
    index = re.match(r"[\w-]+\[(\d+)\]", key)
    nth = int(index[1]) if index else 0
    table, best = "", 1
    seen: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            full = table = re.sub(_QUOTES, "", header[2])
            if header[1] == "[[":
                seen[table] = seen.get(table, -1) + 1
        elif assignment := _ASSIGNMENT.match(line):
            full = f"{table}.{re.sub(_QUOTES, '', assignment[1])}".lstrip(".")
        else:
            continue
        if seen.get(full.split(".")[0], 0) != nth:
            continue
        if full == wanted:
            return number
        if wanted.startswith(f"{full}."):
            best = number
    return best


def to_bytes(config: Config) -> bytes:
    """For handing the settings to a worker."""
    return msgspec.msgpack.encode(config)


def from_bytes(data: bytes) -> Config:
    """The other end of to_bytes."""
    return msgspec.msgpack.decode(data, type=Config)


def as_dict(config: Config) -> dict[str, Any]:
    """Plain values, for printing."""
    plain: dict[str, Any] = msgspec.to_builtins(config)
    return plain
