"""How a record and the small values lie in LMDB.

Owns: the bytes of a frame, its checksum, how a long payload is cut, the keys of every database.
Must not know: LMDB, or what a payload means.
Invariant: a checksum covers the key too, so that bytes under the wrong key are damage, not data.
Source: DESIGN §5; lmdb.h: a node over 2,038 bytes takes whole 4,096-byte pages of its own.

Frame: version u8, flags u8, task u64, seq u32, [leaf u64], [length u32], crc32 u32, then the payload, or its
head if it is long; the rest lies in ``chunks`` under (position, n).
"""

import struct
from collections.abc import Callable
from typing import NamedTuple
from zlib import crc32

from .errors import DamagedError, TooLargeError

SCHEMA = 1
AUDITED = 1
CHUNKED = 2

PAGE_PIECE = 4070  # the most that fits one overflow page whole (4,096 less header, rounded down)
PAGE_PIECE_MIN = 3600  # from here on a page of its own wastes at most an eighth
NODE_PIECE = 968  # four of them with frame, key and node header fill one leaf page: 4 × (968 + 48) ≤ 4,080
PAYLOAD_LIMIT = 16 << 20
KEY_LIMIT = 480  # LMDB allows 511; timers put eight bytes before theirs

U64 = struct.Struct(">Q")
U32 = struct.Struct(">I")
TASK_SEQ = struct.Struct(">QI")
POSITION_N = struct.Struct(">QI")
RUN = struct.Struct(">QI")

_PLAIN = struct.Struct(">QBBQI")
_LEAF = struct.Struct(">QBBQIQ")
_LONG = struct.Struct(">QBBQII")
_LEAF_LONG = struct.Struct(">QBBQIQI")
_HEADS = (_PLAIN, _LEAF, _LONG, _LEAF_LONG)

_pack_plain, _pack_leaf, _pack_u32 = _PLAIN.pack, _LEAF.pack, U32.pack


class Record(NamedTuple):
    """One record as it is read."""

    position: int
    task_no: int
    seq: int
    payload: bytes


class Frame(NamedTuple):
    """One frame taken apart; ``leaf`` is the record's place in the audit tree."""

    task_no: int
    seq: int
    leaf: int | None
    payload: bytes


def cut(payload: bytes) -> list[bytes]:
    """Cut a long payload so that little of a page is lost; the first piece stays in the log."""
    pieces: list[bytes] = []
    start, left = 0, len(payload)
    while left >= PAGE_PIECE_MIN:
        size = min(left, PAGE_PIECE)
        pieces.append(payload[start : start + size])
        start, left = start + size, left - size
    tail = [payload[at : at + NODE_PIECE] for at in range(start, len(payload), NODE_PIECE)]
    # The log's own piece must fit a node, or the log would get pages of its own too.
    return [tail.pop(0) if tail else b"", *pieces, *tail] if pieces else tail


def chunk_count(length: int) -> int:
    """Count the pieces that a payload of ``length`` bytes has outside the log."""
    whole, rest = divmod(length, PAGE_PIECE)
    if rest >= PAGE_PIECE_MIN:
        whole, rest = whole + 1, 0
    return whole + max(0, -(-rest // NODE_PIECE) - 1)


def join(head: bytes, pieces: list[bytes], length: int) -> bytes:
    """Put a payload together that ``cut`` took apart."""
    whole = length // PAGE_PIECE + (length % PAGE_PIECE >= PAGE_PIECE_MIN)
    return b"".join([*pieces[:whole], head, *pieces[whole:]])


def encode(
    position: int, task_no: int, seq: int, payload: bytes, leaf: int | None
) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    """Make the log's key and value and the chunks of one record. About 1 µs for a short one."""
    if len(payload) > NODE_PIECE:
        return _encode_long(position, task_no, seq, payload, leaf)
    if leaf is None:
        head = _pack_plain(position, SCHEMA, 0, task_no, seq)
    else:
        head = _pack_leaf(position, SCHEMA, AUDITED, task_no, seq, leaf)
    return head[:8], head[8:] + _pack_u32(crc32(payload, crc32(head))) + payload, []


def _encode_long(
    position: int, task_no: int, seq: int, payload: bytes, leaf: int | None
) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    if len(payload) > PAYLOAD_LIMIT:
        raise TooLargeError("a payload", len(payload), PAYLOAD_LIMIT)
    if leaf is None:
        head = _LONG.pack(position, SCHEMA, CHUNKED, task_no, seq, len(payload))
    else:
        head = _LEAF_LONG.pack(position, SCHEMA, CHUNKED | AUDITED, task_no, seq, leaf, len(payload))
    first, *rest = cut(payload)
    chunks = [(POSITION_N.pack(position, n), piece) for n, piece in enumerate(rest)]
    return head[:8], head[8:] + _pack_u32(crc32(payload, crc32(head))) + first, chunks


def decode(key: bytes, value: bytes, chunks: Callable[[bytes], list[bytes]]) -> Frame:
    """Take a frame apart and check it; ``chunks`` reads the pieces under a position's key.

    Raises:
        DamagedError: unknown version, impossible size, or a checksum that doesn't fit.

    """
    position = int.from_bytes(key, "big")
    if len(value) < 2 or value[0] != SCHEMA or value[1] > AUDITED | CHUNKED:
        raise DamagedError("a record of an unknown schema", position)
    flags = value[1]
    shape = _HEADS[flags]
    end = shape.size - 8
    if len(value) < end + 4:
        raise DamagedError("a record that is cut short", position)
    fields = shape.unpack(key + value[:end])
    payload = value[end + 4 :]
    if flags & CHUNKED:
        payload = join(payload, chunks(key), fields[-1])
    if U32.unpack_from(value, end)[0] != crc32(payload, crc32(value[:end], crc32(key))):
        raise DamagedError("a checksum that doesn't fit", position)
    return Frame(fields[3], fields[4], fields[5] if flags & AUDITED else None, payload)


def seal(key: bytes, value: bytes) -> bytes:
    """Put a checksum over key and value before a small value."""
    return _pack_u32(crc32(value, crc32(key))) + value


def unseal(database: str, key: bytes, sealed: bytes) -> bytes:
    """Check and take off what ``seal`` put on.

    Raises:
        DamagedError: the checksum doesn't fit.

    """
    value = sealed[4:]
    if len(sealed) < 4 or U32.unpack_from(sealed)[0] != crc32(value, crc32(key)):
        raise DamagedError(f"a checksum in {database!r} doesn't fit, under {key.hex()}")
    return value


def check_key(key: bytes) -> bytes:
    """Give the key back if LMDB will take it.

    Raises:
        TooLargeError: empty, or over ``KEY_LIMIT``.

    """
    if not 0 < len(key) <= KEY_LIMIT:
        raise TooLargeError("a key", len(key), KEY_LIMIT)
    return key
