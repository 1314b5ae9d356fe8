"""A diff as text for a person: unified, in git's form.

Owns: how one changed path looks, and the bound of the whole.
Must not know: stages, where versions are kept (showing.py).
Invariants: a binary or large file is one line; what is cut is said; the work on one file is bounded
            (lines.py). Control characters of a file are kept: whoever prints the text escapes them.
Source: git-diff(1), "Generating patch text with -p".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from .beneath import EntryType, shown
from .lines import Block, differing

MOST_FILE_BYTES: Final = 1 << 20
_CONTEXT: Final = 3
_LOOKED_AT_BYTES: Final = 8_000
"""So far git looks for a NUL."""
_LETTERS: Final[dict[EntryType, str]] = {"file": "100", "symlink": "120"}


class Version(NamedTuple):
    """A thing before or after. ``read`` gives a file's bytes or a link's target; None: lost meanwhile."""

    type: EntryType
    mode: int
    size: int
    read: Callable[[], bytes] | None


class Pair(NamedTuple):
    """One path before and after; ``source``: its old name, where it was renamed."""

    path: bytes
    old: Version | None
    new: Version | None
    source: bytes = b""


def render(pairs: Iterable[Pair], limit_bytes: int) -> tuple[str, str]:
    """The text, and what is missing of it."""
    parts: list[str] = []
    left, gone = limit_bytes, 0
    for pair in pairs:
        gone += any(version is not None and version.read is None for version in (pair.old, pair.new))
        for line in _lines(pair):
            left -= len(line.encode())
            if left < 0:
                return "".join(parts), f"cut after {limit_bytes} bytes"
            parts.append(line)
    trouble = f"{gone} of the files were changed again since, and are not shown as they were" if gone else ""
    return "".join(parts), trouble


def _lines(pair: Pair) -> Iterator[str]:
    old, new = pair.old, pair.new
    if old and new and old.type != new.type:  # as git has it: the one is gone, the other new
        yield from _lines(Pair(pair.path, old, None))
        yield from _lines(Pair(pair.path, None, new))
        return
    yield from _header(pair)
    yield from _body(pair)


def _header(pair: Pair) -> Iterator[str]:
    old, new = pair.old, pair.new
    name, source = shown(pair.path) or ".", shown(pair.source or pair.path) or "."
    if (new or old) and (new or old).type not in _LETTERS:  # type: ignore[union-attr]
        yield from _plain(pair)
        return
    yield f"diff --git a/{source} b/{name}\n"
    if pair.source:
        yield f"rename from {source}\nrename to {name}\n"
    elif old is None and new:
        yield f"new file mode {_mode(new)}\n"
    elif new is None and old:
        yield f"deleted file mode {_mode(old)}\n"
    if old and new and old.mode != new.mode and new.type == "file":
        yield f"old mode {_mode(old)}\nnew mode {_mode(new)}\n"


def _plain(pair: Pair) -> Iterator[str]:
    """A folder, or what is no file at all."""
    old, new, name = pair.old, pair.new, shown(pair.path) or "."
    if new is None and old:
        yield f"deleted {old.type} {name}\n"
    elif old is None and new:
        yield f"new {new.type} {name} mode {new.mode:04o}\n"
    elif old and new and old.mode != new.mode:
        yield f"{new.type} {name}: old mode {old.mode:04o}, new mode {new.mode:04o}\n"


def _mode(version: Version) -> str:
    return f"{_LETTERS[version.type]}{version.mode if version.type == 'file' else 0:03o}"


def _body(pair: Pair) -> Iterator[str]:
    versions = [version for version in (pair.old, pair.new) if version]
    if pair.source or any(version.type not in _LETTERS for version in versions):
        return
    if any(version.read is None for version in versions):
        yield "changed again since: its text of then is not kept\n"
        return
    if any(version.size > MOST_FILE_BYTES for version in versions):
        yield f"too large to show: {_sizes(pair)}\n"
        return
    before, after = (
        version.read() if version is not None and version.read is not None else b""
        for version in (pair.old, pair.new)
    )
    if before == after:
        return
    if b"\0" in before[:_LOOKED_AT_BYTES] or b"\0" in after[:_LOOKED_AT_BYTES]:
        yield f"binary: {_sizes(pair)}\n"
        return
    name = shown(pair.path)
    yield f"--- {'a/' + name if pair.old else '/dev/null'}\n"
    yield f"+++ {'b/' + name if pair.new else '/dev/null'}\n"
    yield from _hunks(before.splitlines(keepends=True), after.splitlines(keepends=True))


def _sizes(pair: Pair) -> str:
    old, new = (f"{version.size} bytes" if version else "nothing" for version in (pair.old, pair.new))
    return f"{old} before, {new} now"


def _hunks(old: list[bytes], new: list[bytes]) -> Iterator[str]:
    for blocks in _near(differing(old, new)):
        start = max(0, blocks[0].old - _CONTEXT)
        stop = min(len(old), blocks[-1].old_end + _CONTEXT)
        new_start = blocks[0].new - (blocks[0].old - start)
        new_stop = blocks[-1].new_end + (stop - blocks[-1].old_end)
        yield f"@@ -{_range(start, stop)} +{_range(new_start, new_stop)} @@\n"
        at = start
        for block in blocks:
            yield from (_line(" ", line) for line in old[at : block.old])
            yield from (_line("-", line) for line in old[block.old : block.old_end])
            yield from (_line("+", line) for line in new[block.new : block.new_end])
            at = block.old_end
        yield from (_line(" ", line) for line in old[at:stop])


def _near(blocks: list[Block]) -> Iterator[list[Block]]:
    """Blocks whose contexts would touch, together."""
    together: list[Block] = []
    for block in blocks:
        if together and block.old - together[-1].old_end > 2 * _CONTEXT:
            yield together
            together = []
        together.append(block)
    if together:
        yield together


def _range(start: int, stop: int) -> str:
    length = stop - start
    if length == 1:
        return f"{start + 1}"
    return f"{start + 1 if length else start},{length}"


def _line(sign: str, line: bytes) -> str:
    text = sign + line.decode("utf-8", "backslashreplace")
    return text if line.endswith(b"\n") else text + "\n\\ No newline at end of file\n"
