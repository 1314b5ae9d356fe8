"""What a command prints: taken without ever blocking, excerpted for the model, kept whole for a person.

Owns: the reading of pipes and terminals, the head and the tail that the model sees.
Must not know: calls, sandboxes, where artifacts lie.
Invariant: memory per call is bounded by the text's limit, whatever is printed; a wake reads a bounded
           amount, so that a flood can't starve the loop; only what will be shown is stripped.
Source: DESIGN §9 "Streams"; pipe(7); tty_ioctl(4) (a terminal's master gives EIO at its end).
"""

from __future__ import annotations

import errno
import os
from typing import Final, Protocol

from .artifacts import SHORT_BYTES, ArtifactWriter
from .calls import Output
from .kinds import HEAD_BYTES, guess
from .terminal import Stripper

TEXT_LIMIT_BYTES: Final = 4_096
WAKE_BYTES: Final = 64 << 10
_MARKER_BYTES: Final = 160
_RAW_BYTES: Final = 64 << 10
"""Beyond the head so much of what was printed last is kept as it came, and stripped when it has ended."""
_MOST_REPLACED: Final = 0.3
_LEAST_REPLACED: Final = 8
_REPLACEMENT: Final = "\ufffd"


class Excerpt:
    """The head and the tail of a text of any length."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._head = bytearray()
        self._tail = bytearray()
        self.total_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether its head is: what comes now is tail."""
        return self.total_bytes > self._limit_bytes

    def add(self, text: bytes) -> None:
        """Take the next part (UTF-8)."""
        self.total_bytes += len(text)
        if room := self._limit_bytes - len(self._head):
            self._head += text[:room]
            text = text[room:]
        if not text:
            return
        self._tail += text[-self._limit_bytes :]
        if len(self._tail) > 4 * self._limit_bytes:
            del self._tail[: -self._limit_bytes]

    def skip_to(self, text: bytes, over_bytes: int) -> None:
        """So many bytes more were printed; of them only this is known, their end."""
        self.total_bytes += over_bytes
        self._tail = bytearray(text[-self._limit_bytes :])

    def text(self, kept: str) -> str:
        """The whole if it fits, else both ends; ``kept`` says where the whole can be found."""
        if self.total_bytes <= self._limit_bytes:
            return self._head.decode("utf-8", "ignore")
        room = max(0, self._limit_bytes - _MARKER_BYTES)
        head = self._head[: room // 2].decode("utf-8", "ignore")
        end = (self._head + self._tail)[-(room - room // 2) :] if room else b""
        tail = end.decode("utf-8", "ignore")
        left_out = self.total_bytes - len(head.encode()) - len(tail.encode())
        where = f", {kept}" if kept else ""
        return f"{head}\n[… {left_out} bytes left out{where}]\n{tail}"


class Capture:
    """One command's output."""

    def __init__(self, writer: ArtifactWriter, text_limit_bytes: int = TEXT_LIMIT_BYTES) -> None:
        self._writer = writer
        self._stripper = Stripper()
        self._excerpt = Excerpt(text_limit_bytes)
        self._beginning = b""
        self._has_zeros = False
        self._raw = bytearray()
        self._raw_limit_bytes = text_limit_bytes + _RAW_BYTES
        self._raw_seen_bytes = 0
        self._remark = ""

    def remark(self, words: str) -> None:
        """Say this too of what was printed."""
        self._remark = words

    def feed(self, data: memoryview | bytes) -> None:
        """Take the next bytes as they were printed. A view is used before this returns, and not after."""
        self._writer.write(data)
        if len(self._beginning) < HEAD_BYTES:
            self._beginning += data[: HEAD_BYTES - len(self._beginning)]
            self._has_zeros = b"\0" in self._beginning
        if self._has_zeros:
            return
        if self._excerpt.is_full:
            self._keep_raw(data)
        else:
            self._excerpt.add(self._stripper.feed(bytes(data)))

    def _keep_raw(self, data: memoryview | bytes) -> None:
        limit = self._raw_limit_bytes
        self._raw_seen_bytes += len(data)
        self._raw += data[-limit:]
        if len(self._raw) > 4 * limit:
            del self._raw[:-limit]

    def is_short(self) -> bool:
        """Whether finish() has nothing to bring to the disk."""
        short = self._writer.kept_bytes <= SHORT_BYTES
        return short and not self._stripper.replaced and not self._has_zeros

    def finish(self) -> Output:
        """Close it and give what is reported. Blocks for the disk when there is an artifact."""
        self._strip_the_rest()
        writer, is_binary = self._writer, self._is_binary()
        artifact = writer.finish(always=is_binary or self._stripper.replaced)
        notes = [writer.trouble]
        kept = f"whole output: artifact {artifact}" if artifact else ""
        if writer.kept_bytes < writer.seen_bytes and not writer.trouble:
            kept = f"its first {writer.kept_bytes} bytes: artifact {artifact}" if artifact else ""
            notes = [f"printed {writer.seen_bytes} bytes; only the first {writer.kept_bytes} were kept"]
        text = "" if is_binary else self._excerpt.text(kept)
        if is_binary:
            words = f"binary output of {writer.seen_bytes} bytes, it looks like {guess(self._beginning)}"
            text = f"[{words}; {kept}]" if kept else f"[{words}]"
            notes.insert(0, words)
        note = "; ".join(filter(None, [*notes, self._remark]))
        return Output(text, artifact, writer.seen_bytes, note)

    def _strip_the_rest(self) -> None:
        if self._raw_seen_bytes <= len(self._raw):
            self._excerpt.add(self._stripper.feed(bytes(self._raw)) + self._stripper.finish())
            return
        self._excerpt.add(self._stripper.finish())
        end = Stripper()
        raw = bytes(self._raw[-self._raw_limit_bytes :])
        whole = raw[raw.find(b"\n", 0, len(raw) // 2) + 1 :]  # a sequence cut in two would be read as text
        self._excerpt.skip_to(end.feed(whole) + end.finish(), self._raw_seen_bytes)

    def _is_binary(self) -> bool:
        """A text does not begin with zeros (git's rule), nor is it mostly bytes that mean nothing in it."""
        if self._has_zeros or not self._stripper.replaced:
            return self._has_zeros
        text = self._excerpt.text("")
        replaced = text.count(_REPLACEMENT)
        return replaced >= _LEAST_REPLACED and replaced > _MOST_REPLACED * len(text)

    def discard(self) -> None:
        """Keep nothing of it."""
        self._writer.discard()


class Sink(Protocol):
    """Who takes what was printed."""

    def feed(self, data: memoryview, /) -> None:
        """The next bytes; the view is not theirs to keep."""


_buffer: Final = memoryview(bytearray(WAKE_BYTES))


def drain(fd: int, sink: Sink, limit_bytes: int = WAKE_BYTES) -> bool:
    """Take what is there, at most so much; true at the end of the stream. The descriptor doesn't block.

    A terminal gives at most 4,095 bytes a read: they are collected, since each feed has its price.
    """
    taken = filled = 0
    ended = blocked = False
    while taken < limit_bytes and not (ended or blocked):
        try:
            got = os.readv(fd, [_buffer[filled : filled + limit_bytes - taken]])
            ended = not got
        except BlockingIOError:
            got, blocked = 0, True
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            got, ended = 0, True  # a terminal whose last user is gone
        taken, filled = taken + got, filled + got
        if filled and (ended or blocked or filled == len(_buffer) or taken >= limit_bytes):
            sink.feed(_buffer[:filled])
            filled = 0
    return ended
