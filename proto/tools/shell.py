"""The tool that runs commands.

Owns: their names, descriptions, effect classes and JSON Schemas.
Must not know: how they do their work, what policy says about them.
Invariant: schemas are closed, every string is bounded, every pattern is linear in time (form.py).
Source: DESIGN §3 ("Where tools run"), §4 (effect classes), §8.2.
"""

from __future__ import annotations

from typing import Final

from .form import (
    COMMAND_CHARS,
    CONTENT_CHARS,
    IN_WORKSPACE,
    NO_NUL,
    Tool,
    arguments,
    flag,
    path,
    seconds,
    text,
)

SHELL_RUN: Final = Tool(
    "shell.run",
    "Run a command with bash in the workspace, in a sandbox without network. Gives its output "
    "(standard output "
    "and standard error in the order written) and its exit code. When it has ended, its changes to "
    "files are shown "
    "to policy and only then count. A command's daemons die with the call: "
    "whatever it leaves running is killed when it ends.",
    "staged",
    "executor",
    arguments(
        ("command",),
        command=text("The command, as after `bash -c`.", COMMAND_CHARS, minLength=1, pattern=NO_NUL),
        timeout_s=seconds("Kill it after this many seconds; the deadline of the call holds too.", 86_400),
        idle_s=seconds("Kill it when it has printed nothing for this long. Default: never.", 86_400),
        pty=flag(
            "Run it on a terminal of 80 x 24 (programs then believe that a person watches). Default: no."
        ),
        cwd=path(f"Folder to run it in. {IN_WORKSPACE} Default: the workspace itself."),
        network=flag(
            "Give it a way out through the proxy in https_proxy, to the hosts that this agent may reach. "
            "Such a command is never run twice. Default: no."
        ),
        stdin=text("Text for its standard input. Default: nothing (end of file at once).", CONTENT_CHARS),
    ),
)
