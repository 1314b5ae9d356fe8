"""shell.run: its arguments, its program, its environment.

Owns: what a shell command is given to begin with.
Must not know: sandboxes, stages.
Invariant: the environment is made from nothing: no GIT_*, LD_*, BASH_ENV or keys of whoever started us.
Source: bash(1); environ(7).
"""

from __future__ import annotations

import os
from typing import Final

import msgspec

PROGRAM: Final = b"/bin/bash" if os.path.exists("/bin/bash") else b"/bin/sh"


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of shell.run."""

    command: str
    timeout_s: float = 0.0
    idle_s: float = 0.0
    pty: bool = False
    cwd: str = ""
    network: bool = False
    stdin: str = ""


_decoder = msgspec.json.Decoder(Arguments)


def parse(args: bytes) -> Arguments:
    """Raises msgspec.MsgspecError."""
    return _decoder.decode(args)


def environment(path: str, *, tty: bool) -> dict[str, str]:
    """Everything that a command finds in its environment."""
    return {"PATH": path, "HOME": "/tmp", "LANG": "C.UTF-8", "TERM": "xterm" if tty else "dumb"}  # noqa: S108
