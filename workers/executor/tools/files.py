"""file.read, file.write, file.edit: run within the sandbox, on one file each.

Owns: what these three do and say.
Must not know: stages, the ledger, the gate.
Invariants: file.edit changes nothing unless the text was found exactly as often as said; what file.read gives
            is cut at whole characters and says where to go on.
Source: DESIGN §9; issue "The spine", executor.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from .builtin import LARGEST_FILE_BYTES, Failure, builtin, is_binary, open_file, place, read_all, shown
from .folders import list_folder, search

READ_DEFAULT_BYTES: Final = 4_096


def read(arguments: dict[str, Any]) -> str:
    """A part of a file as text."""
    path, offset = arguments["path"], arguments.get("offset_bytes", 0)
    limit = arguments.get("limit_bytes", READ_DEFAULT_BYTES)
    fd = open_file(path)
    try:
        size = os.fstat(fd).st_size
        if offset and offset >= size:
            raise Failure(f"{shown(path)}: it has {size} bytes; there is nothing at {offset}")
        data = os.pread(fd, limit, offset)
    finally:
        os.close(fd)
    if is_binary(data):
        raise Failure(f"{shown(path)}: it is a binary file of {size} bytes")
    after = offset + len(data)
    if after < size:
        data = _whole_characters(data)
        after = offset + len(data)
    text = data.decode("utf-8", "replace")
    if after >= size:
        return text
    return f"{text}\n[bytes {offset} to {after} of {size}; go on with offset_bytes={after}]\n"


def _whole_characters(data: bytes) -> bytes:
    """Cut a character that the end splits, unless these bytes are no UTF-8 anyhow."""
    for back in range(1, min(4, len(data))):
        byte = data[-back]
        if byte & 0xC0 == 0xC0:
            wanted = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if back < wanted else data
        if byte < 0x80:
            return data
    return data


def write(arguments: dict[str, Any]) -> str:
    """Put a file there, whole."""
    path, data = arguments["path"], arguments["content"].encode()
    whole = place(path)
    if os.path.isdir(whole):
        raise Failure(f"{shown(path)}: it is a folder")
    try:
        os.makedirs(os.path.dirname(whole), exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise Failure(f"{shown(path)}: a part of this path is a file, not a folder") from None
    existed = os.path.lexists(whole)
    _put(whole, data)
    if "executable" in arguments:
        _set_executable(whole, executable=arguments["executable"])
    return f"{'replaced' if existed else 'wrote'} {shown(path)}: {len(data)} bytes\n"


def _put(whole: str, data: bytes) -> None:
    fd = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def _set_executable(whole: str, *, executable: bool) -> None:
    mode = os.stat(whole).st_mode & 0o777
    # Whoever may read it may execute it, as the umask would have it.
    os.chmod(whole, mode | (mode & 0o444) >> 2 if executable else mode & ~0o111)


def edit(arguments: dict[str, Any]) -> str:
    """Replace text that occurs exactly as often as said."""
    path, count = arguments["path"], arguments.get("count", 1)
    old, new = arguments["old"].encode(), arguments["new"].encode()
    fd = open_file(path)
    try:
        if os.fstat(fd).st_size > LARGEST_FILE_BYTES:
            raise Failure(f"{shown(path)}: too large to edit (over {LARGEST_FILE_BYTES} bytes)")
        data = read_all(fd)
    finally:
        os.close(fd)
    if is_binary(data):
        raise Failure(f"{shown(path)}: it is a binary file")
    if old not in data and b"\r\n" in data and b"\n" in old and b"\r" not in old:
        # The file has Windows line ends, which file.read doesn't show.
        old, new = old.replace(b"\n", b"\r\n"), new.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    found = data.count(old)
    if found != count:
        what = "the text was not found" if not found else f"the text occurs {found} times, not {count}"
        raise Failure(f"{shown(path)}: {what}; nothing was changed")
    _put(place(path), data.replace(old, new))
    return f"edited {shown(path)}: {found} {'place' if found == 1 else 'places'}\n"


BUILTINS: Final[dict[str, Callable[[list[bytes]], int]]] = {
    "file.read": builtin(read),
    "file.write": builtin(write),
    "file.edit": builtin(edit),
    "file.list": builtin(list_folder),
    "file.search": builtin(search),
}
"""What a zygote can run without exec, by the tool's name."""
