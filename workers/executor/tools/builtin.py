"""The frame of a tool that runs as a function within the sandbox: arguments, paths, its one line of failure.

Owns: reading the arguments, keeping paths in the workspace, printing without a shell.
Must not know: what any tool does. Imports little: the zygote imports this.
Invariant: an expected failure is one line and exit code 1; anything else is a crash that shows its traceback.
Source: DESIGN §9. The sandbox is the wall; refusing ``..`` here is the courtesy of a clear message.
"""

from __future__ import annotations

import json
import os
import posixpath
import stat
from collections.abc import Callable
from typing import Any, Final

ARGUMENTS_ON_STDIN: Final = b"-"
"""In place of the arguments, when they are too long for a packet: they come on standard input."""

LARGEST_FILE_BYTES: Final = 16 << 20
_PROBE_BYTES: Final = 8_192


class Failure(Exception):
    """What the tool says when it can't do what was asked."""


def builtin(act: Callable[[dict[str, Any]], str]) -> Callable[[list[bytes]], int]:
    """Make a function from arguments to text into what a zygote can run."""

    def run(argv: list[bytes]) -> int:
        try:
            say(act(_arguments(argv)))
        except Failure as failure:
            say(f"{failure}\n")
            return 1
        except OSError as error:
            where = f"{shown(error.filename)}: " if error.filename is not None else ""
            say(f"{where}{error.strerror or error}\n")
            return 1
        return 0

    return run


def _arguments(argv: list[bytes]) -> dict[str, Any]:
    text = argv[1]
    if text == ARGUMENTS_ON_STDIN:
        parts = []
        while part := os.read(0, 1 << 16):
            parts.append(part)
        text = b"".join(parts)
    arguments: dict[str, Any] = json.loads(text)
    return arguments


def say(text: str) -> None:
    """Write to standard output, all of it; a name that is not UTF-8 comes out as the bytes it is."""
    data = text.encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(1, data) :]


def place(path: str) -> str:
    """The absolute path of what was named.

    Raises:
        Failure: it lies outside the workspace, which is the working folder.

    """
    root = os.getcwd()
    whole = posixpath.normpath(posixpath.join(root, path))
    if whole != root and not whole.startswith(root.rstrip("/") + "/"):
        raise Failure(f"{shown(path)}: this path leaves the workspace; only paths within it can be used")
    return whole


def relative(whole: str) -> str:
    """A path as the model names it."""
    return posixpath.relpath(whole, os.getcwd())


def shown(path: object) -> str:
    """A name on one line: what would break the line or hide itself is written out."""
    text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else str(path)
    return "".join(c if c.isprintable() or 0xDC80 <= ord(c) <= 0xDCFF else repr(c)[1:-1] for c in text)


def open_file(path: str) -> int:
    """A descriptor to read a regular file.

    Raises:
        Failure: there is none, or it is something else.

    """
    whole = place(path)
    try:
        fd = os.open(whole, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hold us
    except FileNotFoundError:
        raise Failure(f"{shown(path)}: no such file") from None
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
    raise Failure(f"{shown(path)}: it is {kind}")


def read_all(fd: int) -> bytes:
    """Everything from here to the end."""
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def put(whole: str, data: bytes) -> None:
    """Make this the whole content of a file."""
    fd = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def set_executable(whole: str, *, executable: bool) -> None:
    """Whoever may read it may execute it, as the umask would have it; or nobody."""
    mode = os.stat(whole).st_mode & 0o777
    os.chmod(whole, mode | (mode & 0o444) >> 2 if executable else mode & ~0o111)


def is_binary(head: bytes) -> bool:
    """Whether this is no text, by the rule that grep and git use: a NUL near the beginning."""
    return b"\0" in head[:_PROBE_BYTES]
