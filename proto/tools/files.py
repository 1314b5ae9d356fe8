"""The tools for files and folders.

Owns: their names, descriptions, effect classes and JSON Schemas.
Must not know: how they do their work, what policy says about them.
Invariant: schemas are closed, every string is bounded, every pattern is linear in time (form.py).
Source: DESIGN §3 ("Where tools run"), §4 (effect classes), §8.2.
"""

from __future__ import annotations

from typing import Final

from .form import CONTENT_CHARS, IN_WORKSPACE, Tool, arguments, count, flag, path, text

FILE_READ: Final = Tool(
    "file.read",
    "Read a file as text. A longer file is given in parts: the answer says where to go on.",
    "read",
    "executor",
    arguments(
        ("path",),
        path=path(f"The file. {IN_WORKSPACE}"),
        offset_bytes=count("First byte to give. Default: 0.", 0, 1 << 50),
        limit_bytes=count("How many bytes at most. Default: 4,096.", 1, 16_000),
    ),
)

FILE_WRITE: Final = Tool(
    "file.write",
    "Write a whole file, replacing what was there; missing folders are made.",
    "staged",
    "executor",
    arguments(
        ("path", "content"),
        path=path(f"The file. {IN_WORKSPACE}"),
        content=text("Everything that shall be in the file.", CONTENT_CHARS),
        executable=flag("Whether it may be executed. Default: as it was; no for a new file."),
    ),
)

FILE_EDIT: Final = Tool(
    "file.edit",
    "Replace text in a file, exactly as written. Fails without a change when the text is not found "
    "as often as "
    "said.",
    "staged",
    "executor",
    arguments(
        ("path", "old", "new"),
        path=path(f"The file. {IN_WORKSPACE}"),
        old=text(
            "The text to replace; enough of it to be found only where meant.", CONTENT_CHARS, minLength=1
        ),
        new=text("What to put there.", CONTENT_CHARS),
        count=count("How often `old` must occur; all of them are replaced. Default: 1.", 1, 1_000_000),
    ),
)

FILE_LIST: Final = Tool(
    "file.list",
    "List a folder: one path a line, folders with a slash at the end, files with their size, links "
    "with their "
    "target.",
    "read",
    "executor",
    arguments(
        (),
        path=path(f"The folder. {IN_WORKSPACE} Default: the workspace itself."),
        recursive=flag("Also what lies in folders below. Default: no."),
        limit=count("How many entries at most. Default: 500.", 1, 10_000),
    ),
)

FILE_SEARCH: Final = Tool(
    "file.search",
    "Find lines in the files of a folder, recursively: `path:line: text`. Binary files, links and "
    "`.git` are left "
    "out.",
    "read",
    "executor",
    arguments(
        ("pattern",),
        pattern=text("What to find: text, or a Python regular expression with `regex`.", 1_000, minLength=1),
        path=path(f"Folder or file to search. {IN_WORKSPACE} Default: the workspace itself."),
        regex=flag("Whether the pattern is a regular expression. Default: no, literal text."),
        limit=count("How many lines at most. Default: 100.", 1, 5_000),
    ),
)

FILE_PATCH: Final = Tool(
    "file.patch",
    "Apply a unified diff (as of `diff -u` or `git diff`) to one or more files: all of it, or nothing. "
    "Context must match exactly; line numbers may be off.",
    "staged",
    "executor",
    arguments(
        ("patch",),
        patch=text(
            "The diff. Paths as in `--- a/path` and `+++ b/path`; /dev/null makes or removes.",
            CONTENT_CHARS,
            minLength=1,
        ),
    ),
)
