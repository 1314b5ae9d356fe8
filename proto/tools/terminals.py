"""The tools for live terminals.

Owns: their names, descriptions, effect classes and JSON Schemas.
Must not know: how they do their work, what policy says about them.
Invariant: schemas are closed, every string is bounded, every pattern is linear in time (form.py).
Source: DESIGN §3 ("Where tools run"), §4 (effect classes), §8.2.
"""

from __future__ import annotations

from typing import Final

from .form import COMMAND_CHARS, IN_WORKSPACE, NO_NUL, Tool, arguments, count, flag, path, seconds, text

_TERMINAL = text("The terminal, as terminal.open named it.", 64, minLength=1)

TERMINAL_OPEN: Final = Tool(
    "terminal.open",
    "Start a program on a terminal of its own that lives on between calls: an editor, an interpreter, a "
    "server. Gives its name and what it shows. It works on a copy of the workspace of its own; its changes "
    "to files count only when it is closed with `keep`, and are shown to policy first.",
    "once",
    "executor",
    arguments(
        (),
        command=text(
            "The command, as after `bash -c`. Default: an interactive bash.",
            COMMAND_CHARS,
            minLength=1,
            pattern=NO_NUL,
        ),
        cwd=path(f"Folder to start in. {IN_WORKSPACE} Default: the workspace itself."),
        rows=count("Height in lines. Default: 24.", 2, 200),
        cols=count("Width in columns. Default: 80.", 20, 400),
        network=flag("Give it a way out, as in shell.run. Default: no."),
        wait_s=seconds("How long to wait for it to come to rest before looking. Default: 2.", 60),
    ),
)

TERMINAL_SEND: Final = Tool(
    "terminal.send",
    "Type at a live terminal, wait until it comes to rest, and give what it shows then.",
    "once",
    "executor",
    arguments(
        ("terminal",),
        terminal=_TERMINAL,
        text=text("What to type, as it is; a line ends with \\n, which is sent as Enter.", 16_384),
        keys={
            "type": "array",
            "maxItems": 64,
            "items": text(
                "A key by name: Enter, Escape, Tab, Backspace, Delete, Up, Down, Left, Right, Home, End, "
                "PageUp, PageDown, F1 to F12, or C- and a letter.",
                16,
                minLength=1,
            ),
            "description": "Keys to press after the text.",
        },
        wait_s=seconds("How long to wait for it to come to rest. Default: 2.", 60),
        rows=count("New height. Default: as it is.", 2, 200),
        cols=count("New width. Default: as it is.", 20, 400),
    ),
)

TERMINAL_SCREEN: Final = Tool(
    "terminal.screen",
    "Look at a live terminal without typing: its screen, its cursor, and whether its program waits for "
    "input.",
    "read",
    "executor",
    arguments(
        ("terminal",),
        terminal=_TERMINAL,
        history=count("So many lines that have scrolled off, too. Default: 0.", 0, 1_000),
    ),
)

TERMINAL_CLOSE: Final = Tool(
    "terminal.close",
    "End a live terminal and all that runs in it. With `keep`, what it changed in the workspace is shown to "
    "policy and then counts; without, it is thrown away.",
    "once",
    "executor",
    arguments(
        ("terminal",),
        terminal=_TERMINAL,
        keep=flag("Whether its changes to files shall count. Default: yes."),
    ),
)
