"""file.list and file.search: run within the sandbox, on a folder and what lies below.

Owns: what these two do and say.
Must not know: stages, the ledger, the gate.
Invariants: links are never followed downwards; the order is by name, so the same folder gives the same text.
            A pattern that explodes is ended by the call's deadline: that is why it is matched in here.
Source: DESIGN §8.2 (backtracking measured), §9.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from typing import Any, Final

from .builtin import LARGEST_FILE_BYTES, Failure, is_binary, open_file, place, read_all, relative, shown

LIST_DEFAULT: Final = 500
SEARCH_DEFAULT: Final = 100
_LINE_CHARS: Final = 300
_DEEPEST: Final = 100


def list_folder(arguments: dict[str, Any]) -> str:
    """The entries of a folder, one a line."""
    path = arguments.get("path", ".")
    recursive, limit = arguments.get("recursive", False), arguments.get("limit", LIST_DEFAULT)
    whole = _folder(path)
    lines: list[str] = []
    for entry in _walk(whole, recursive=recursive):
        if len(lines) == limit:
            lines.append(f"[more than {limit} entries: name a folder below, or raise the limit]")
            break
        lines.append(_line(entry))
    return "".join(f"{line}\n" for line in lines) or "[the folder is empty]\n"


def _folder(path: str) -> str:
    whole = place(path)
    if not os.path.lexists(whole):
        raise Failure(f"{shown(path)}: no such folder")
    if not os.path.isdir(whole):
        raise Failure(f"{shown(path)}: it is not a folder")
    return whole


def _walk(folder: str, *, recursive: bool, skip: str = "", depth: int = 0) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        if depth == 0:
            raise
        return  # a folder below that can't be read: it was listed itself, what is in it can't be
    for entry in entries:
        yield entry
        if recursive and depth < _DEEPEST and entry.name != skip and entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, recursive=True, skip=skip, depth=depth + 1)


def _line(entry: os.DirEntry[str]) -> str:
    name = shown(relative(entry.path))
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        return f"{name}/"
    if stat.S_ISLNK(status.st_mode):
        return f"{name} -> {shown(os.readlink(entry.path))}"
    if stat.S_ISREG(status.st_mode):
        return f"{name} ({status.st_size} bytes{', executable' if status.st_mode & 0o100 else ''})"
    return f"{name} (special file)"


def search(arguments: dict[str, Any]) -> str:
    """The lines in which the pattern occurs."""
    path, limit = arguments.get("path", "."), arguments.get("limit", SEARCH_DEFAULT)
    matches = _matcher(arguments["pattern"], regex=arguments.get("regex", False))
    lines: list[str] = []
    too_large = 0
    for name in _files(path):
        data = _text_of(name)
        if data is None:
            too_large += 1
            continue
        for line in _found_in(name, data, matches):
            if len(lines) == limit:
                lines.append(f"[more than {limit} lines: search for less, or raise the limit]")
                return "".join(f"{line}\n" for line in lines)
            lines.append(line)
    if too_large:
        lines.append(f"[{too_large} files over {LARGEST_FILE_BYTES} bytes were not searched]")
    if len(lines) == bool(too_large):
        raise Failure("\n".join(["no match", *lines]))
    return "".join(f"{line}\n" for line in lines)


def _matcher(pattern: str, *, regex: bool) -> Callable[[str], object]:
    if not regex:
        return lambda line: pattern in line
    try:
        return re.compile(pattern).search
    except (re.error, RecursionError, OverflowError) as error:
        raise Failure(f"not a regular expression: {error}") from None


def _files(path: str) -> Iterator[str]:
    whole = place(path)
    if not os.path.lexists(whole):
        raise Failure(f"{shown(path)}: no such file or folder")
    if not os.path.isdir(whole):
        yield whole
        return
    for entry in _walk(whole, recursive=True, skip=".git"):
        if entry.is_file(follow_symlinks=False):
            yield entry.path


def _text_of(name: str) -> bytes | None:
    """What is in a file: empty if it is binary or can't be read, None if it is too large."""
    try:
        fd = open_file(name)
    except (OSError, Failure):
        return b""  # unreadable, or gone since the folder was read: a search goes on without it
    try:
        if os.fstat(fd).st_size > LARGEST_FILE_BYTES:
            return None
        data = read_all(fd)
    finally:
        os.close(fd)
    return b"" if is_binary(data) else data


def _found_in(name: str, data: bytes, matches: Callable[[str], object]) -> Iterator[str]:
    where = shown(relative(name))
    for number, raw in enumerate(data.split(b"\n"), 1):
        line = raw.decode("utf-8", "replace").rstrip("\r")
        if matches(line):
            yield f"{where}:{number}: {line[:_LINE_CHARS]}{'…' if len(line) > _LINE_CHARS else ''}"
