"""Unified diffs: read strictly, applied exactly.

Owns: what a diff says of each file, and a file's new lines. Pure.
Must not know: files, folders, encodings. Imports little: the zygote imports this.
Invariant: a hunk is applied where all of its old lines stand, in order and without fuzz, or nowhere.
Source: POSIX diff, "Diff -u output format"; git-diff(1), "Generating patch text with -p".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

FARTHEST_LINES: Final = 10_000
"""So far from where a hunk says it is it is looked for."""
_HUNK: Final = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_EXTENDED: Final = (
    "diff ", "index ", "old mode ", "new mode ", "new file mode ", "deleted file mode ", "similarity index ",
    "dissimilarity index ", "rename from ", "rename to ",
)  # fmt: skip
_UNSUPPORTED: Final = ("GIT binary patch", "Binary files ", "copy from ", "copy to ")
_NO_NEWLINE: Final = "\\"
_ESCAPES: Final = {"n": b"\n", "t": b"\t", "r": b"\r", "a": b"\a", "b": b"\b", "f": b"\f", "v": b"\v"}


class PatchError(Exception):
    """The diff can't be read, or does not fit; says where and why."""


@dataclass
class Hunk:
    """Lines that are there now, and those that shall be; each with its newline where it has one."""

    line: int
    """Of the patch, for words."""
    start: int
    """The first old line's number, from 1; of an empty one, the line before."""
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)


@dataclass
class Change:
    """What a diff says of one file; an empty ``source`` makes it, an empty ``target`` removes it."""

    line: int
    source: str
    target: str
    hunks: list[Hunk] = field(default_factory=list)
    executable: bool | None = None


def parse(patch: str) -> list[Change]:
    """Every file's change, in order. Raises PatchError."""
    changes = list(_Reader(_lines(patch)).changes())
    if not changes:
        raise PatchError("there is no change in this patch: it has no `--- ` and `+++ ` lines")
    return changes


def _lines(patch: str) -> list[str]:
    """Without their newline; a carriage return before it belongs to the line."""
    lines = patch.split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines


class _Reader:
    """One pass over the lines of a patch."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 0
        self._moved: dict[str, str] = {}
        self._executable: bool | None = None
        self._promised = ""
        """A header that must be followed by lines, or something would be passed over in silence."""

    def changes(self) -> Iterator[Change]:
        """Go through it. Raises PatchError."""
        while self._at < len(self._lines):
            line = self._lines[self._at].rstrip("\r")
            if self._begins_file(line):
                yield self._change()
            elif line.startswith("diff "):
                yield from self._renamed()
                self._moved, self._executable = {}, None
                self._at += 1
            elif line.startswith(_EXTENDED):
                self._header(line)
                self._at += 1
            else:
                self._foreign(line)
        yield from self._renamed()

    def _foreign(self, line: str) -> None:
        """Between files all that means nothing is passed over: a mail, a summary."""
        if line.startswith(_UNSUPPORTED):
            raise self._wrong(f"{line[:60]!r}: only text can be patched")
        if line.startswith("@@ "):
            raise self._wrong("a hunk without the `--- ` and `+++ ` lines of its file")
        if line.startswith(("--- ", "+++ ")):
            raise self._wrong("`--- ` and `+++ ` lines belong together, in this order")
        self._at += 1

    def _header(self, line: str) -> None:
        for word in ("rename from ", "rename to "):
            if line.startswith(word):
                self._moved[word] = self._unquoted(line.removeprefix(word))
        if line.startswith(("new mode ", "new file mode ", "deleted file mode ")):
            self._promised = line[:40]
        if line.startswith(("new mode ", "new file mode ")):
            mode = line.rpartition(" ")[2]
            if mode not in {"100644", "100755"}:
                raise self._wrong(f"mode {mode[:20]!r}: only regular files can be patched")
            self._executable = mode == "100755"

    def _renamed(self) -> Iterator[Change]:
        """A rename that has no hunks; what else git says without them would be lost. Raises PatchError."""
        if len(self._moved) == 2:
            yield Change(
                self._at, self._moved["rename from "], self._moved["rename to "], [], self._executable
            )
            self._moved, self._executable, self._promised = {}, None, ""
        if self._promised:
            raise self._wrong(
                f"{self._promised!r} without lines can't be applied: use file.write or shell.run"
            )

    def _change(self) -> Change:
        line = self._at + 1
        source, target = self._path("--- ", "a/"), self._path("+++ ", "b/")
        if not source and not target:
            raise self._wrong("both sides are /dev/null", line)
        if len(self._moved) == 2:
            source, target = self._moved["rename from "], self._moved["rename to "]
        change = Change(line, source, target, executable=self._executable)
        self._moved, self._executable, self._promised = {}, None, ""
        while self._at < len(self._lines) and self._lines[self._at].startswith("@@"):
            change.hunks.append(self._hunk())
        if not change.hunks and source and target == source:
            raise self._wrong(f"{source}: no hunks", line)
        return change

    def _path(self, word: str, prefix: str) -> str:
        """The name on this line: its prefix is git's, what follows a tab is a time."""
        text = self._lines[self._at].rstrip("\r").removeprefix(word)
        path = self._unquoted(text.partition("\t")[0].rstrip(" ") if not text.startswith('"') else text)
        self._at += 1
        if path == "/dev/null":
            return ""
        path = path.removeprefix(prefix)
        if not path:
            raise self._wrong(f"no name after {word!r}", self._at)
        return path

    def _unquoted(self, text: str) -> str:
        """Git writes a name with odd characters in quotes, as C would."""
        if not text.startswith('"'):
            return text
        end = re.match(r'"((?:[^"\\]|\\.)*)"', text)
        if end is None:
            raise self._wrong("a name in quotes does not end")

        def byte(found: re.Match[bytes]) -> bytes:
            word = found[1].decode("latin-1")
            return bytes([int(word, 8) & 255]) if word[0] in "01234567" else _ESCAPES.get(word, found[1])

        return re.sub(rb"\\([0-7]{3}|.)", byte, end[1].encode()).decode("utf-8", "surrogateescape")

    def _hunk(self) -> Hunk:
        head = _HUNK.match(self._lines[self._at])
        if head is None:
            raise self._wrong("not the head of a hunk: `@@ -1,2 +1,3 @@` was expected")
        hunk = Hunk(self._at + 1, int(head[1]))
        left = [int(head[2] or 1), int(head[4] or 1)]
        self._at += 1
        while left[0] > 0 or left[1] > 0:
            self._line(hunk, left)
        if min(left) < 0:
            raise self._wrong("the hunk has more lines than its head says", hunk.line)
        if self._at < len(self._lines) and self._lines[self._at].startswith(_NO_NEWLINE):
            self._no_newline(hunk, self._lines[self._at - 1][:1])
        if self._has_more():
            lone = self._lines[self._at].startswith("--- ")
            or_that = ", or `--- ` and `+++ ` lines do not belong together" if lone else ""
            raise self._wrong(f"the hunk has more lines than its head says{or_that}", hunk.line)
        return hunk

    def _has_more(self) -> bool:
        """Whether what follows a hunk can only be another line of it; its head did not count that."""
        line = self._lines[self._at] if self._at < len(self._lines) else ""
        if line.startswith("-"):
            return not (self._begins_file(line) or self._signs_mail(line))
        return line[:1] in {"+", " "} and not line.startswith("+++ ")

    def _begins_file(self, line: str) -> bool:
        return line.startswith("--- ") and self._next().startswith("+++ ")

    def _signs_mail(self, line: str) -> bool:
        """Git ends a mail with this line and its version below: git-format-patch(1), "--signature"."""
        return line.rstrip("\r") == "-- " and self._next()[:1] not in {"", "+", "-", " ", "@", _NO_NEWLINE}

    def _line(self, hunk: Hunk, left: list[int]) -> None:
        """One line of a hunk; an empty one is an empty line of context, whose blank got lost on the way."""
        if self._at >= len(self._lines):
            raise self._wrong("the hunk has fewer lines than its head says", hunk.line)
        line = self._lines[self._at]
        kind, text = (line[0], line[1:]) if line else (" ", "")
        if kind == _NO_NEWLINE:
            self._no_newline(hunk, self._lines[self._at - 1][:1])
            return
        if line == "\r":
            kind, text = " ", "\r"
        if kind not in " -+":
            raise self._wrong("a line of a hunk begins with a blank, - or +; perhaps its head says too many")
        self._at += 1
        if kind in " -":
            hunk.old.append(text + "\n")
            left[0] -= 1
        if kind in " +":
            hunk.new.append(text + "\n")
            left[1] -= 1

    def _no_newline(self, hunk: Hunk, kind: str) -> None:
        """The line before has no newline: it is followed by a backslash and words that say so."""
        for side, kinds in ((hunk.old, " -"), (hunk.new, " +")):
            if (kind or " ") in kinds and side:
                side[-1] = side[-1].removesuffix("\n")
        self._at += 1

    def _next(self) -> str:
        return self._lines[self._at + 1] if self._at + 1 < len(self._lines) else ""

    def _wrong(self, what: str, line: int = 0) -> PatchError:
        return PatchError(f"line {line or self._at + 1} of the patch: {what}")


def apply(lines: list[str], hunks: list[Hunk]) -> list[str]:
    """A file's lines (each with its newline) after all hunks. Raises PatchError."""
    result: list[str] = []
    done, offset = 0, 0
    for hunk in hunks:
        expected = hunk.start + offset - (1 if hunk.old else 0)
        at = _find(lines, hunk, max(expected, done), done)
        result += [*lines[done:at], *hunk.new]
        done = at + len(hunk.old)
        offset = at - (hunk.start - (1 if hunk.old else 0))
    result += lines[done:]
    if any(not line.endswith("\n") for line in result[:-1]):
        raise PatchError("a line without a newline would come to stand within the file")
    return result


def _find(lines: list[str], hunk: Hunk, expected: int, least: int) -> int:
    """Where the hunk's old lines stand, the nearest place first. Raises PatchError."""
    if not hunk.old:
        if expected > len(lines):
            raise PatchError(f"the hunk in line {hunk.line} of the patch begins beyond the end of the file")
        return expected
    if not hunk.old[-1].endswith("\n") and len(hunk.old) <= len(lines):
        only = len(lines) - len(hunk.old)  # Its last line ends the file.
        if only >= least and lines[only:] == hunk.old:
            return only
        raise _no_fit(lines, hunk, expected)
    size, first = len(hunk.old), hunk.old[0]
    for distance in range(FARTHEST_LINES + 1):
        for at in (expected + distance, expected - distance):
            if least <= at <= len(lines) - size and lines[at] == first and lines[at : at + size] == hunk.old:
                return at
    raise _no_fit(lines, hunk, expected)


def _no_fit(lines: list[str], hunk: Hunk, expected: int) -> PatchError:
    """Where it was expected, and the first line that is another."""
    there = lines[expected : expected + len(hunk.old)]
    for index, line in enumerate(hunk.old):
        found = there[index] if index < len(there) else ""
        if found != line:
            is_said = repr(found.rstrip("\n")[:80]) if found else "the end of the file"
            wanted = repr(line.rstrip("\n")[:80])
            return PatchError(
                f"the hunk in line {hunk.line} of the patch does not fit: "
                f"line {expected + index + 1} is {is_said}, not {wanted}"
            )
    return PatchError(f"the hunk in line {hunk.line} of the patch does not fit")
