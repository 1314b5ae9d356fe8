"""The catalogue of tools: what a model may ask for, with what arguments, and who carries it out.

Owns: names, descriptions, effect classes and JSON Schemas of the built-in tools.
Must not know: how a tool does its work, what policy says about it.
Invariant: schemas are closed (no additional properties), every string is bounded, every pattern is linear
    in time;
           the ``thought`` is not in them: the gate adds it in front.
Source: DESIGN §3 ("Where tools run"), §4 (effect classes), §8.2.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from .ids import EffectClass, Role

PATH_CHARS: Final = 4_096
COMMAND_CHARS: Final = 65_536
CONTENT_CHARS: Final = 200_000
NO_NUL: Final = "^[^\\u0000]*$"
"""Paths and commands hold no NUL: the kernel would cut them there, and policy would have seen something else.

In JSON Schema's own escape, so that no NUL stands in the pattern itself.
"""


class Tool(msgspec.Struct, frozen=True):
    """One tool. ``schema`` is the JSON Schema of its arguments, without the thought."""

    name: str
    description: str
    klass: EffectClass
    runs_in: Role
    schema: dict[str, Any]


def _text(description: str, limit_chars: int, **more: Any) -> dict[str, Any]:
    return {"type": "string", "maxLength": limit_chars, "description": description, **more}


def _path(description: str) -> dict[str, Any]:
    return _text(description, PATH_CHARS, minLength=1, pattern=NO_NUL)


def _count(description: str, least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most, "description": description}


def _flag(description: str) -> dict[str, Any]:
    return {"type": "boolean", "description": description}


def _arguments(required: tuple[str, ...], **properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_IN_WORKSPACE = "Relative to the workspace."

SHELL_RUN: Final = Tool(
    "shell.run",
    "Run a command with bash in the workspace, inside a sandbox without network. Gives its output "
    "(standard output "
    "and standard error in the order written) and its exit code. When it has ended, its changes to "
    "files are shown "
    "to policy and only then count. A command's daemons die with the call: "
    "whatever it leaves running is killed when it ends.",
    "staged",
    "executor",
    _arguments(
        ("command",),
        command=_text("The command, as after `bash -c`.", COMMAND_CHARS, minLength=1, pattern=NO_NUL),
        timeout_s={
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 86_400,
            "description": "Kill it after this many seconds; the deadline of the call holds too.",
        },
        pty=_flag(
            "Run it on a terminal of 80 x 24 (programs then believe that a person watches). Default: no."
        ),
        cwd=_path(f"Folder to run it in. {_IN_WORKSPACE} Default: the workspace itself."),
        stdin=_text("Text for its standard input. Default: nothing (end of file at once).", CONTENT_CHARS),
    ),
)

FILE_READ: Final = Tool(
    "file.read",
    "Read a file as text. A longer file is given in parts: the answer says where to go on.",
    "read",
    "executor",
    _arguments(
        ("path",),
        path=_path(f"The file. {_IN_WORKSPACE}"),
        offset_bytes=_count("First byte to give. Default: 0.", 0, 1 << 50),
        limit_bytes=_count("How many bytes at most. Default: 4,096.", 1, 16_000),
    ),
)

FILE_WRITE: Final = Tool(
    "file.write",
    "Write a whole file, replacing what was there; missing folders are made.",
    "staged",
    "executor",
    _arguments(
        ("path", "content"),
        path=_path(f"The file. {_IN_WORKSPACE}"),
        content=_text("Everything that shall be in the file.", CONTENT_CHARS),
        executable=_flag("Whether it may be executed. Default: as it was; no for a new file."),
    ),
)

FILE_EDIT: Final = Tool(
    "file.edit",
    "Replace text in a file, exactly as written. Fails without a change when the text is not found "
    "as often as "
    "said.",
    "staged",
    "executor",
    _arguments(
        ("path", "old", "new"),
        path=_path(f"The file. {_IN_WORKSPACE}"),
        old=_text(
            "The text to replace; enough of it to be found only where meant.", CONTENT_CHARS, minLength=1
        ),
        new=_text("What to put there.", CONTENT_CHARS),
        count=_count("How often `old` must occur; all of them are replaced. Default: 1.", 1, 1_000_000),
    ),
)

FILE_LIST: Final = Tool(
    "file.list",
    "List a folder: one path a line, folders with a slash at the end, files with their size, links "
    "with their "
    "target.",
    "read",
    "executor",
    _arguments(
        (),
        path=_path(f"The folder. {_IN_WORKSPACE} Default: the workspace itself."),
        recursive=_flag("Also what lies in folders below. Default: no."),
        limit=_count("How many entries at most. Default: 500.", 1, 10_000),
    ),
)

FILE_SEARCH: Final = Tool(
    "file.search",
    "Find lines in the files of a folder, recursively: `path:line: text`. Binary files, links and "
    "`.git` are left "
    "out.",
    "read",
    "executor",
    _arguments(
        ("pattern",),
        pattern=_text("What to find: text, or a Python regular expression with `regex`.", 1_000, minLength=1),
        path=_path(f"Folder or file to search. {_IN_WORKSPACE} Default: the workspace itself."),
        regex=_flag("Whether the pattern is a regular expression. Default: no, literal text."),
        limit=_count("How many lines at most. Default: 100.", 1, 5_000),
    ),
)

TASK_NOTE: Final = Tool(
    "task.note",
    "Write a note into the record of this task: what was found, decided or is left to do. Nothing else "
    "changes.",
    "once",
    "gate",
    _arguments(("text",), text=_text("The note.", 16_384, minLength=1)),
)

MEMORY_RECALL: Final = Tool(
    "memory.recall",
    "Search what was done and seen before, in this task and in others. Says where each memory comes from.",
    "read",
    "memory",
    _arguments(
        ("query",),
        query=_text("What to look for, in words.", 2_000, minLength=1),
        limit=_count("How many memories at most. Default: 5.", 1, 50),
    ),
)

CATALOGUE: Final[dict[str, Tool]] = {
    tool.name: tool
    for tool in (
        SHELL_RUN,
        FILE_READ,
        FILE_WRITE,
        FILE_EDIT,
        FILE_LIST,
        FILE_SEARCH,
        TASK_NOTE,
        MEMORY_RECALL,
    )
}
"""Every built-in tool by its name."""
