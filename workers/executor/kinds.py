"""What bytes that are no text most likely are.

Owns: the table of first bytes.
Must not know: where the bytes come from, what is said of them.
Invariant: a guess, in words for people and models; never a reason to treat the bytes in some way.
Source: file(1)'s magic; PNG, gzip (RFC 1952), zip (APPNOTE 4.3.7), ELF and SQLite format documents.
"""

from __future__ import annotations

from typing import Final

HEAD_BYTES: Final = 1_024
"""So much of the beginning is enough."""

_BEGINNINGS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x1f\x8b", "gzip data"),
    (b"\x28\xb5\x2f\xfd", "zstd data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"BZh", "bzip2 data"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x7fELF", "an ELF program or library"),
    (b"\x89PNG\r", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "a RIFF file"),
    (b"%PDF-", "a PDF document"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\xca\xfe\xba\xbe", "a Java class"),
    (b"\x00asm", "a WebAssembly module"),
    (b"!<arch>\n", "an ar archive"),
    (b"PACK\x00", "a git pack"),
    (b"OggS", "an Ogg stream"),
    (b"ID3", "an MP3 file"),
    (b"\xff\xfe", "UTF-16 text, little endian"),
    (b"\xfe\xff", "UTF-16 text, big endian"),
)
_TAR: Final = slice(257, 262)


def guess(head: bytes) -> str:
    """What bytes that begin like this are, ``unknown data`` when nothing fits."""
    if head[_TAR] == b"ustar":
        return "a tar archive"
    for beginning, name in _BEGINNINGS:
        if head.startswith(beginning):
            return name
    if head and not head.strip(b"\0"):
        return "zeros"
    if head[1:64:2].count(0) > 16 and head[0:64:2].count(0) == 0:
        return "UTF-16 text, little endian"
    return "unknown data"
