"""Text files as they are: which encoding, which line ends, and back to the same bytes.

Owns: telling a file's encoding, reading it as text, writing text as it.
Must not know: paths, tools. Imports little: the zygote imports this.
Invariant: bytes that are read and written without a change are the same bytes.
Source: Unicode 15 §23.8 (byte order marks). What is no UTF-8 is read as Latin-1, in which every byte is text.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Final

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PROBE_BYTES: Final = 8_192


class UnwritableError(ValueError):
    """The text has a character that the file's encoding lacks."""


@dataclass(frozen=True)
class Encoding:
    """How a file's text is bytes; ``mark`` stands before it."""

    name: str
    mark: bytes = b""

    def text(self, data: bytes) -> str:
        """The text without its mark. Raises UnicodeDecodeError."""
        return data.removeprefix(self.mark).decode(self.name)

    def data(self, text: str) -> bytes:
        """The bytes with the mark. Raises UnwritableError."""
        try:
            return self.mark + text.encode(self.name)
        except UnicodeEncodeError as error:
            character = text[error.start]
            raise UnwritableError(f"{character!r} can't be written in its encoding, {self.name}") from error


UTF_8: Final = Encoding("utf-8")
LATIN_1: Final = Encoding("latin-1")


def marked(head: bytes) -> Encoding | None:
    """The encoding that a file's first four bytes tell; None when they tell none."""
    if head.startswith(codecs.BOM_UTF32_LE):
        return None  # Else it would be taken for UTF-16 with a NUL; a file of this kind is not known here.
    return next((Encoding(name, mark) for mark, name in _MARKS if head.startswith(mark)), None)


def of(data: bytes) -> Encoding | None:
    """The encoding of a whole file; None for what is no text: a NUL near its beginning, as git says."""
    encoding = marked(data[:4])
    if encoding is not None and encoding.name != "utf-8":
        return encoding if _reads(encoding, data) else None
    if b"\0" in data[:_PROBE_BYTES]:
        return None
    encoding = encoding or UTF_8
    return encoding if _reads(encoding, data) else LATIN_1


def _reads(encoding: Encoding, data: bytes) -> bool:
    try:
        text = encoding.text(data)
    except UnicodeDecodeError:
        return False
    return "\0" not in text[:_PROBE_BYTES]
