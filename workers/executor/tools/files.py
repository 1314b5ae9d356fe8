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

from .builtin import (
    LARGEST_FILE_BYTES,
    Failure,
    builtin,
    is_binary,
    open_file,
    place,
    put,
    read_all,
    set_executable,
    shown,
)
from .encodings import LATIN_1, UTF_8, Encoding, UnwritableError, marked, of
from .folders import list_folder, search
from .patch import patch

READ_DEFAULT_BYTES: Final = 4_096
MARK_BYTES: Final = 4
UTF_8_MARK: Final = b"\xef\xbb\xbf"


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
        encoding = marked(os.pread(fd, MARK_BYTES, 0))
    finally:
        os.close(fd)
    if encoding is not None and encoding.name != "utf-8":
        return _wide(path, data, offset, size, encoding)
    if is_binary(data):
        raise Failure(f"{shown(path)}: it is a binary file of {size} bytes")
    if offset + len(data) < size:
        data = _whole_characters(data)
    text = _text(data if offset else data.removeprefix(UTF_8_MARK))
    return _part(text, offset, offset + len(data), size)


def _part(text: str, offset: int, after: int, size: int) -> str:
    if after >= size:
        return text
    return f"{text}\n[bytes {offset} to {after} of {size}; go on with offset_bytes={after}]\n"


def _text(data: bytes) -> str:
    """UTF-8, or what every byte is a character of; a part may begin within a character."""
    for skipped in range(4):
        try:
            return "\ufffd" * skipped + UTF_8.text(data[skipped:])
        except UnicodeDecodeError:
            continue
    return LATIN_1.text(data)


def _wide(path: str, data: bytes, offset: int, size: int, encoding: Encoding) -> str:
    """A part of UTF-16, at whole units; a pair that the end splits is left to the next part."""
    if offset % 2:
        raise Failure(f"{shown(path)}: it is {encoding.name}: offset_bytes must be even")
    data = data[: len(data) // 2 * 2] or data
    if offset + len(data) < size and len(data) > 2:
        high = data[-1] if encoding.name.endswith("le") else data[-2]
        data = data[:-2] if 0xD8 <= high <= 0xDB else data
    text = (data if offset else data.removeprefix(encoding.mark)).decode(encoding.name, "replace")
    if "\0" in text:
        raise Failure(f"{shown(path)}: it is a binary file of {size} bytes")
    return _part(text, offset, offset + len(data), size)


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
    put(whole, data)
    if "executable" in arguments:
        set_executable(whole, executable=arguments["executable"])
    return f"{'replaced' if existed else 'wrote'} {shown(path)}: {len(data)} bytes\n"


def edit(arguments: dict[str, Any]) -> str:
    """Replace text that occurs exactly as often as said; encoding and line ends stay."""
    path, count = arguments["path"], arguments.get("count", 1)
    old, new = arguments["old"], arguments["new"]
    fd = open_file(path)
    try:
        if os.fstat(fd).st_size > LARGEST_FILE_BYTES:
            raise Failure(f"{shown(path)}: too large to edit (over {LARGEST_FILE_BYTES} bytes)")
        data = read_all(fd)
    finally:
        os.close(fd)
    encoding = of(data)
    if encoding is None:
        raise Failure(f"{shown(path)}: it is a binary file")
    text = encoding.text(data)
    if old not in text and "\r\n" in text and "\n" in old and "\r" not in old:
        # The file has Windows line ends, which file.read doesn't show.
        old, new = old.replace("\n", "\r\n"), new.replace("\r\n", "\n").replace("\n", "\r\n")
    found = text.count(old)
    if found != count:
        what = "the text was not found" if not found else f"the text occurs {found} times, not {count}"
        raise Failure(f"{shown(path)}: {what}; nothing was changed")
    try:
        put(place(path), encoding.data(text.replace(old, new)))
    except UnwritableError as error:
        raise Failure(f"{shown(path)}: {error}; nothing was changed") from None
    return f"edited {shown(path)}: {found} {'place' if found == 1 else 'places'}\n"


BUILTINS: Final[dict[str, Callable[[list[bytes]], int]]] = {
    "file.read": builtin(read),
    "file.write": builtin(write),
    "file.edit": builtin(edit),
    "file.patch": builtin(patch),
    "file.list": builtin(list_folder),
    "file.search": builtin(search),
}
"""What a zygote can run without exec, by the tool's name."""
