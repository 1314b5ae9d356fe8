"""terminal.open, send, screen and close: their arguments, and what is run on a terminal.

Owns: the shapes of the four tools' arguments, and the order for a live terminal's sandbox.
Must not know: sandboxes' sockets, screens, which terminals there are.
Invariants: pure; a live terminal is confined as a command on a terminal is; what can't be meant is refused
            before anything is typed.
Source: proto/tools/terminals.py; bash(1) (an interactive one reads neither rc nor history here).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ....proto.config import Config
from ....proto.messages import Execute
from ..calls import Terminal
from ..terminals.keys import KeyNameError, typed
from . import orders, shell

INTERACTIVE: Final = (shell.PROGRAM, b"--norc", b"--noprofile", b"-i")
_CHARS: Final = 40
"""So much of its command names what runs on a terminal."""


class Open(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of terminal.open."""

    command: str = ""
    cwd: str = ""
    rows: int = 24
    cols: int = 80
    network: bool = False
    wait_s: float = 2.0


class Send(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of terminal.send; a size of 0 is as it is."""

    terminal: str
    text: str = ""
    keys: tuple[str, ...] = ()
    wait_s: float = 2.0
    rows: int = 0
    cols: int = 0


class Show(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of terminal.screen."""

    terminal: str
    history: int = 0


class Close(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of terminal.close."""

    terminal: str
    keep: bool = True


_KINDS: Final[dict[str, type[Any]]] = {"open": Open, "send": Send, "screen": Show, "close": Close}


def parse(execute: Execute) -> Open | Send | Show | Close:
    """The arguments of a terminal call. Raises ToolError."""
    kind = _KINDS.get(execute.tool.removeprefix("terminal."))
    try:
        if kind is not None:
            parsed: Open | Send | Show | Close = msgspec.json.decode(execute.args, type=kind)
            return parsed
    except msgspec.MsgspecError as error:
        raise orders.ToolError(f"{execute.tool}: bad arguments: {error}") from error
    raise orders.ToolError(f"{execute.tool} is not a tool of this executor")


def meant(execute: Execute) -> Terminal | None:
    """What a call wants of a terminal; None for any other tool. What can't be read is refused later."""
    if not execute.tool.startswith("terminal."):
        return None
    try:
        asked = parse(execute)
    except orders.ToolError as error:
        return Terminal("screen", trouble=error.message)
    match asked:
        case Open():
            return Terminal("open")
        case Send():
            try:
                typed(asked.text, asked.keys, application=False)
            except KeyNameError as error:
                return Terminal("send", asked.terminal, trouble=error.message)
            return Terminal("send", asked.terminal)
        case Show():
            return Terminal("screen", asked.terminal)
        case Close():
            return Terminal("close", asked.terminal, keep=asked.keep)


def order(execute: Execute, config: Config) -> orders.Order:
    """What terminal.open runs. Raises ToolError."""
    asked = parse(execute)
    if not isinstance(asked, Open):
        raise orders.ToolError(f"{execute.tool} runs nothing")
    argv = (shell.PROGRAM, b"-c", asked.command.encode()) if asked.command else INTERACTIVE
    env = shell.environment(config.sandbox.path, tty=True)
    made = orders.Order(
        argv=argv,
        profile=orders.profile(config, read_only=False, tty=True),
        # ncurses draws its lines with letters of another character set, which pyte does not have, unless:
        env={**env, "NCURSES_NO_UTF8_ACS": "1", "PS1": "\\w$ ", "HISTFILE": ""},
        cwd=orders.folder(asked.cwd),
        tty=True,
        rows=asked.rows,
        cols=asked.cols,
    )
    return orders.with_way_out(made, execute)


def program(command: str) -> str:
    """What runs there, in short, for a person and a model."""
    first = " ".join((command or "bash").split())
    return first if len(first) <= _CHARS else f"{first[: _CHARS - 1]}…"
