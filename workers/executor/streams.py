"""What a command prints: taken without ever blocking, excerpted for the model, kept whole for a person.

Owns: the reading of pipes and terminals, the head and the tail that the model sees.
Must not know: calls, sandboxes, where artifacts lie.
Invariant: memory per call is bounded by the text's limit, whatever is printed; a wake reads a bounded
           amount, so that a flood can't starve the loop.
Source: DESIGN §9 "Streams"; pipe(7); tty_ioctl(4) (a terminal's master gives EIO at its end).
"""

from __future__ import annotations

import errno
import os
from typing import Final

from .artifacts import SHORT_BYTES, ArtifactWriter
from .calls import Output
from .terminal import Stripper

TEXT_LIMIT_BYTES: Final = 4_096
WAKE_BYTES: Final = 256 << 10
_READ_BYTES: Final = 64 << 10
_MARKER_BYTES: Final = 160


class Excerpt:
    """The head and the tail of a text of any length."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._head = bytearray()
        self._tail = bytearray()
        self.total_bytes = 0

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

    def feed(self, data: bytes) -> None:
        """Take the next bytes as they were printed."""
        self._writer.write(data)
        self._excerpt.add(self._stripper.feed(data))

    def is_short(self) -> bool:
        """Whether finish() has nothing to bring to the disk."""
        return self._writer.kept_bytes <= SHORT_BYTES and not self._stripper.replaced

    def finish(self) -> Output:
        """Close it and give what is reported. Blocks for the disk when there is an artifact."""
        self._excerpt.add(self._stripper.finish())
        writer = self._writer
        artifact = writer.finish(always=self._stripper.replaced)
        note = writer.trouble
        kept = f"whole output: artifact {artifact}" if artifact else ""
        if writer.kept_bytes < writer.seen_bytes and not note:
            kept = f"its first {writer.kept_bytes} bytes: artifact {artifact}" if artifact else ""
            note = f"printed {writer.seen_bytes} bytes; only the first {writer.kept_bytes} were kept"
        return Output(self._excerpt.text(kept), artifact, writer.seen_bytes, note)

    def discard(self) -> None:
        """Keep nothing of it."""
        self._writer.discard()


def drain(fd: int, capture: Capture, limit_bytes: int = WAKE_BYTES) -> bool:
    """Take what is there, at most so much; true at the end of the stream. The descriptor doesn't block."""
    taken = 0
    while taken < limit_bytes:
        try:
            data = os.read(fd, min(_READ_BYTES, limit_bytes - taken))
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return True  # a terminal whose last user is gone
        if not data:
            return True
        capture.feed(data)
        taken += len(data)
    return False
