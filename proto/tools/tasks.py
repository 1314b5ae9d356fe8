"""The tools for the task itself and for its memory.

Owns: their names, descriptions, effect classes and JSON Schemas.
Must not know: how they do their work, what policy says about them.
Invariant: schemas are closed, every string is bounded, every pattern is linear in time (form.py).
Source: DESIGN §3 ("Where tools run"), §4 (effect classes), §8.2.
"""

from __future__ import annotations

from typing import Final

from .form import Tool, arguments, count, text

TASK_NOTE: Final = Tool(
    "task.note",
    "Write a note into the record of this task: what was found, decided or is left to do. Nothing else "
    "changes.",
    "once",
    "gate",
    arguments(("text",), text=text("The note.", 16_384, minLength=1)),
)

MEMORY_RECALL: Final = Tool(
    "memory.recall",
    "Search what was done and seen before, in this task and in others. Says where each memory comes from.",
    "read",
    "memory",
    arguments(
        ("query",),
        query=text("What to look for, in words.", 2_000, minLength=1),
        limit=count("How many memories at most. Default: 5.", 1, 50),
    ),
)
