"""How an admitted call becomes a command in a sandbox.

Owns: the executor's table of tools: argv or built-in, environment, input, how much of the output is shown.
Must not know: sandboxes' sockets, stages, the ledger.
Invariants: pure; nothing of the executor's own environment reaches a command; arguments were checked by the
            gate, and what can't be meant is refused here all the same.
Source: DESIGN §9 ("environment rebuilt"); bash(1), INVOCATION.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import msgspec

from ....proto import egress
from ....proto.config import Config
from ....proto.errors import RefusedError
from ....proto.ids import TaskId
from ....proto.messages import Execute
from ....sandbox.profile import Limits, Profile
from ....sandbox.protocol import EGRESS_PORT
from . import shell
from .builtin import ARGUMENTS_ON_STDIN

WORKSPACE: Final = "/workspace"
"""Where a command finds its workspace."""

TEXT_LIMIT_BYTES: Final = 4_096
_FOOTER_BYTES: Final = 256
_LONGEST_ARGUMENT_BYTES: Final = 64 << 10
_CPU_S: Final = (
    86_400  # the deadline of the call ends it; this only bounds what a deadline of days could burn
)


class ToolError(RefusedError):
    """The call can't be carried out as it is."""

    code = "tool"


@dataclass(frozen=True)
class Order:
    """What to run, and how to treat it."""

    argv: tuple[bytes, ...]
    profile: Profile
    env: dict[str, str]
    builtin: str | None = None
    cwd: str = ""
    tty: bool = False
    stdin: bytes = b""
    rows: int = 24
    cols: int = 80
    idle_s: float = 0.0
    """It may print nothing for so long; 0: for ever."""
    text_limit_bytes: int = TEXT_LIMIT_BYTES
    egress: TaskId | None = None
    """The task that it has a way out for."""


class _ReadArguments(msgspec.Struct):
    limit_bytes: int = TEXT_LIMIT_BYTES


def limit_s(execute: Execute) -> float:
    """The time that the call itself asks for; infinite if it doesn't."""
    if execute.tool != "shell.run":
        return float("inf")
    try:
        return shell.parse(execute.args).timeout_s or float("inf")
    except msgspec.MsgspecError:
        return float("inf")  # order() will refuse it in words


def order(execute: Execute, config: Config) -> Order:
    """Raises ToolError."""
    try:
        if execute.tool == "shell.run":
            return with_way_out(_of_shell(execute, config), execute)
        if execute.tool.startswith("file."):
            return _of_file(execute, config)
    except msgspec.MsgspecError as error:
        raise ToolError(f"{execute.tool}: bad arguments: {error}") from error
    raise ToolError(f"{execute.tool} is not a tool of this executor")


def with_way_out(made: Order, execute: Execute) -> Order:
    """The same, with a way out where the gate gives it one."""
    if not execute.egress:
        return made
    return replace(
        made,
        profile=msgspec.structs.replace(made.profile, network="courier"),
        env=made.env | egress.environment(EGRESS_PORT),
        egress=execute.task,
    )


def _of_shell(execute: Execute, config: Config) -> Order:
    arguments = shell.parse(execute.args)
    return Order(
        argv=(shell.PROGRAM, b"-c", arguments.command.encode()),
        profile=profile(config, read_only=execute.klass == "read", tty=arguments.pty),
        env=shell.environment(config.sandbox.path, tty=arguments.pty),
        cwd=folder(arguments.cwd),
        tty=arguments.pty,
        stdin=arguments.stdin.encode(),
        idle_s=arguments.idle_s,
    )


def _of_file(execute: Execute, config: Config) -> Order:
    limit_bytes = TEXT_LIMIT_BYTES
    if execute.tool == "file.read":
        asked = msgspec.json.decode(execute.args, type=_ReadArguments).limit_bytes
        limit_bytes = max(limit_bytes, asked + _FOOTER_BYTES)
    long = len(execute.args) > _LONGEST_ARGUMENT_BYTES
    return Order(
        argv=(execute.tool.encode(), ARGUMENTS_ON_STDIN if long else execute.args),
        profile=profile(config, read_only=execute.klass == "read", tty=False),
        env=shell.environment(config.sandbox.path, tty=False),
        builtin=execute.tool,
        stdin=execute.args if long else b"",
        text_limit_bytes=limit_bytes,
    )


def folder(cwd: str) -> str:
    """A folder within the workspace, as the zygote wants it: relative.

    Raises:
        ToolError: it leaves the workspace.

    """
    path = cwd.removeprefix(WORKSPACE).lstrip("/") if f"{cwd}/".startswith(f"{WORKSPACE}/") else cwd
    if path.startswith("/") or ".." in path.split("/"):
        raise ToolError(f"cwd {cwd!r} leaves the workspace; name a folder within it")
    return path


def profile(config: Config, *, read_only: bool, tty: bool) -> Profile:
    """The confinement that the configuration asks for. Raises ToolError."""
    limits = Limits(
        cpu_s=_CPU_S,
        file_bytes=config.sandbox.max_file_bytes,
        open_files=config.sandbox.max_open_files,
        processes=config.sandbox.max_processes,
        address_space_bytes=config.sandbox.max_memory_bytes,
        total_memory_bytes=config.sandbox.total_memory_bytes,
    )
    try:
        return Profile(
            workspace=WORKSPACE,
            workspace_read_only=read_only,
            read_only=config.sandbox.read_only,
            limits=limits,
            tty=tty,
            tmp_bytes=config.sandbox.tmp_bytes,
        )
    except ValueError as error:
        raise ToolError(f"the settings in [sandbox] can't be enforced: {error}") from error
