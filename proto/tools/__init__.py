"""The catalogue of tools: what a model may ask for, with what arguments, and who carries it out.

Owns: which tools there are.
Must not know: how a tool does its work, what policy says about it.
Invariant: a name is one tool; the ``thought`` is not in a schema: the gate adds it in front.
Source: DESIGN §3 ("Where tools run").
"""

from __future__ import annotations

from typing import Final

from .databases import DB_EXECUTE, DB_QUERY
from .files import FILE_EDIT, FILE_LIST, FILE_PATCH, FILE_READ, FILE_SEARCH, FILE_WRITE
from .form import Tool as Tool
from .network import HTTP_REQUEST
from .shell import SHELL_RUN
from .tasks import MEMORY_RECALL, TASK_NOTE
from .terminals import TERMINAL_CLOSE, TERMINAL_OPEN, TERMINAL_SCREEN, TERMINAL_SEND

CATALOGUE: Final[dict[str, Tool]] = {
    tool.name: tool
    for tool in (
        SHELL_RUN,
        FILE_READ,
        FILE_WRITE,
        FILE_EDIT,
        FILE_PATCH,
        FILE_LIST,
        FILE_SEARCH,
        TERMINAL_OPEN,
        TERMINAL_SEND,
        TERMINAL_SCREEN,
        TERMINAL_CLOSE,
        HTTP_REQUEST,
        DB_QUERY,
        DB_EXECUTE,
        TASK_NOTE,
        MEMORY_RECALL,
    )
}
"""Every built-in tool by its name."""
