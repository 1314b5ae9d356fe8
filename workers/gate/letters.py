"""Dead letters: what was dropped, the newest of it kept in a ring on disk.

Owns: the file ``letters`` beside the journal's data, and how many letters a second are written to it.
Must not know: why anything is dropped, who reads the letters; what they hold is never decoded here.
Invariant: the file never has more than SLOTS slots of SLOT_BYTES; a letter costs no sync, and a flood of them
    costs only counting.
Source: the dead letter channel of Hohpe and Woolf; DESIGN §2 law 5.

A file of its own, not a database of the journal: LMDB can't commit without a sync, so there a letter would
have to wait for the next commit, and be lost with the gate that it is to explain. What is written here
outlives the process at once; a power cut may cost the last letters, and a torn slot fails its checksum.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

SLOTS: Final = 512
SLOT_BYTES: Final = 5_120
DATA_BYTES: Final = 4_096
"""So much of a letter is kept."""
PER_SECOND: Final = 16.0
BURST: Final = 64.0
REASONS: Final = frozenset({
    "undecodable", "stale_epoch", "no_secret", "not_its_role", "unknown_destination", "overflow",
    "bad_request", "quarantined", "poison", "other",
})  # fmt: skip
"""Labels of a metric: what a worker says beside these is ``other``."""
_HEAD = struct.Struct(">II")
_SENDER_BYTES, _DETAIL_BYTES, _SUBJECT_BYTES = 120, 400, 200


class Letter(msgspec.Struct, frozen=True, array_like=True):
    """One dropped message: why, whose, and its first bytes as they came."""

    number: int
    at_ns: int
    reason: str
    sender: str
    detail: str
    subject: str
    size_bytes: int
    data: bytes
    times: int = 1
    """So often it came in a row."""
    unkept: int = 0
    """So many others before it were only counted: they came too fast."""


_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Letter] = msgspec.msgpack.Decoder(Letter)


def _uncounted(_reason: str) -> None:
    """Nobody counts."""


class Letters:
    """The ring. Nothing is opened or read before the first letter, or the first reader."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._fd = -1
        self._newest: Letter | None = None
        self._allowance, self._allowed_s = BURST, clock()
        self._unkept = 0
        self.counted: Callable[[str], None] = _uncounted
        self.total = 0
        """Letters since this process began, those that were only counted too."""

    # -- writing -----------------------------------------------------------------------------------------
    def keep(
        self,
        reason: str,
        sender: str,
        data: bytes | memoryview = b"",
        *,
        detail: str = "",
        subject: str = "",
        size_bytes: int = 0,
        unkept: int = 0,
    ) -> None:
        """Count what was dropped, and keep it if not too many came just now.

        ``size_bytes``: how much it was, where ``data`` is only its beginning. ``unkept``: how many others its
        sender counted and did not tell.
        """
        self._unkept += unkept
        reason = reason if reason in REASONS else "other"
        self.total += 1
        self.counted(reason)
        if not self._may():
            self._unkept += 1
            return
        letter = Letter(
            0,
            time.time_ns(),
            reason,
            _cut(sender, _SENDER_BYTES),
            _cut(detail, _DETAIL_BYTES),
            _cut(subject, _SUBJECT_BYTES),
            max(len(data), size_bytes),
            bytes(data[:DATA_BYTES]),
            1,
            self._unkept,
        )
        try:
            self._write(letter)
        except OSError as error:  # A full disk must not end the gate over what it dropped anyway.
            self._unkept += 1
            print(f"a dead letter ({reason}) could not be kept: {error.strerror}", file=sys.stderr)
            return
        self._unkept = 0

    def _may(self) -> bool:
        now_s = self._clock()
        gained = (now_s - self._allowed_s) * PER_SECOND
        self._allowance, self._allowed_s = min(BURST, self._allowance + gained), now_s
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def _write(self, letter: Letter) -> None:
        self._open()
        newest = self._newest
        if newest is not None and _alike(newest, letter):
            letter = msgspec.structs.replace(
                letter, number=newest.number, times=newest.times + 1, unkept=newest.unkept + letter.unkept
            )
        else:
            number = newest.number + 1 if newest is not None else 1
            letter = msgspec.structs.replace(letter, number=number)
            about = f", {letter.subject}" if letter.subject else ""
            print(
                f"dropped {letter.size_bytes} bytes of {letter.sender!r}{about}: {reason_and(letter)}",
                file=sys.stderr,
            )
        body = _encode(letter)
        slot = (_HEAD.pack(len(body), crc32(body)) + body).ljust(SLOT_BYTES, b"\0")
        os.pwrite(self._fd, slot, (letter.number % SLOTS) * SLOT_BYTES)
        self._newest = letter

    def _open(self) -> None:
        if self._fd >= 0:
            return
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._fd = fd
        self._newest = max(self._all(), key=lambda letter: letter.number, default=None)

    # -- reading -----------------------------------------------------------------------------------------
    def page(self, limit: int, before: int = 0) -> list[Letter]:
        """Give the newest letters, newest first; with ``before``, those with lower numbers.

        Raises OSError.
        """
        self._open()
        found = [letter for letter in self._all() if not before or letter.number < before]
        return sorted(found, key=lambda letter: -letter.number)[:limit]

    def _all(self) -> list[Letter]:
        data = os.pread(self._fd, SLOTS * SLOT_BYTES, 0)
        slots = (_read(data[at : at + SLOT_BYTES]) for at in range(0, len(data), SLOT_BYTES))
        return [letter for letter in slots if letter is not None]

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def letters_path(home: str | os.PathLike[str]) -> Path:
    """Where a home has its dead letters: the one folder in which the gate alone writes."""
    return Path(home) / "journal" / "letters"


def reason_and(letter: Letter) -> str:
    """The reason with what is known beside it."""
    return f"{letter.reason} ({letter.detail})" if letter.detail else letter.reason


def escaped(data: bytes) -> str:
    """Bytes of whoever as one line of ASCII: nothing in it steers a terminal, and it can be read back."""
    return "".join(chr(byte) if 32 <= byte < 127 and byte != 92 else f"\\x{byte:02x}" for byte in data)


def _alike(one: Letter, other: Letter) -> bool:
    return (one.reason, one.sender, one.detail, one.subject, one.size_bytes, one.data) == (
        other.reason,
        other.sender,
        other.detail,
        other.subject,
        other.size_bytes,
        other.data,
    )


def _cut(text: str, limit_bytes: int) -> str:
    """The text as plain ASCII within a limit, so that a slot always holds it."""
    plain = text.encode("ascii", "backslashreplace").decode()
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in plain)[:limit_bytes]


def _read(slot: bytes) -> Letter | None:
    """The letter of a slot; None where there is none, or only part of one."""
    if len(slot) < _HEAD.size:
        return None
    length, checksum = _HEAD.unpack_from(slot)
    body = slot[_HEAD.size : _HEAD.size + length]
    if not length or len(body) != length or crc32(body) != checksum:
        return None
    try:
        return _decoder.decode(body)
    except msgspec.MsgspecError:
        return None  # Of another version of homeostat, with other fields.
