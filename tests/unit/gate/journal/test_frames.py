import pytest
from hypothesis import given, strategies as st

from homeostat.workers.gate.journal.errors import DamagedError, TooLargeError
from homeostat.workers.gate.journal.frames import (
    KEY_LIMIT,
    NODE_PIECE,
    PAGE_PIECE,
    PAGE_PIECE_MIN,
    PAYLOAD_LIMIT,
    check_key,
    chunk_count,
    cut,
    decode,
    encode,
    join,
    seal,
    unseal,
)

EDGES = sorted(
    {0, 1, *(base + d for base in (NODE_PIECE, 2 * NODE_PIECE, PAGE_PIECE_MIN, PAGE_PIECE, 2 * PAGE_PIECE,
                                   PAGE_PIECE + PAGE_PIECE_MIN, 9 * PAGE_PIECE + 7) for d in (-1, 0, 1))}
)  # fmt: skip


def pattern(size: int) -> bytes:
    """Bytes in which every place differs from its neighbours."""
    return bytes(i * 131 % 251 for i in range(size))


@pytest.mark.parametrize("size", EDGES)
@pytest.mark.parametrize("leaf", [None, 0, 7_000_000_000])
def test_frame_comes_back_whole_at_every_edge_of_cutting(size: int, leaf: int | None) -> None:
    """What is encoded is decoded, in as many chunks as are counted, none of a size that wastes a page."""
    payload = pattern(size)
    key, value, chunks = encode(1 << 40, 3, 9, payload, leaf)
    pieces = [piece for _, piece in chunks]
    assert [k for k, _ in chunks] == [key + n.to_bytes(4, "big") for n in range(len(chunks))]
    assert decode(key, value, lambda k: pieces if k == key else []) == (3, 9, leaf, payload)
    assert len(pieces) == chunk_count(size)
    assert len(value) <= 1000
    assert all(len(p) <= NODE_PIECE or PAGE_PIECE_MIN <= len(p) <= PAGE_PIECE for p in pieces)


@given(st.integers(NODE_PIECE + 1, 30_000))
def test_cut_and_join_are_inverse_for_any_length(size: int) -> None:
    """Nothing is lost or turned round between cutting and joining."""
    payload = pattern(size)
    head, *pieces = cut(payload)
    assert join(head, pieces, size) == payload


@pytest.mark.parametrize("size", [0, 40, 5000])
def test_decode_refuses_any_flipped_byte(size: int) -> None:
    """A flip in the key, the header, the payload or a chunk is damage at that position."""
    key, value, chunks = encode(5, 3, 9, pattern(size), 2)
    pieces = [piece for _, piece in chunks]
    for at in range(len(value)):
        bent = value[:at] + bytes([value[at] ^ 0x10]) + value[at + 1 :]
        with pytest.raises(DamagedError) as caught:
            decode(key, bent, lambda _: pieces)
        assert caught.value.position == 5
    with pytest.raises(DamagedError):
        decode((6).to_bytes(8, "big"), value, lambda _: pieces)
    if pieces:
        with pytest.raises(DamagedError):
            decode(key, value, lambda _: [bytes(len(pieces[0])), *pieces[1:]])
        with pytest.raises(DamagedError):
            decode(key, value, lambda _: pieces[:-1])


@given(st.binary(max_size=40))
def test_decode_refuses_garbage_without_another_error(value: bytes) -> None:
    """Bytes that never were a frame are damage, whatever they are."""
    with pytest.raises(DamagedError):
        decode(bytes(8), value, lambda _: [])


def test_seal_binds_a_value_to_its_key() -> None:
    """A small value is refused under another key, bent, or cut short."""
    sealed = seal(b"key", b"value")
    assert unseal("keys", b"key", sealed) == b"value"
    for key, bent in ((b"kez", sealed), (b"key", sealed[:-1]), (b"key", b"\x00" + sealed[1:]), (b"key", b"")):
        with pytest.raises(DamagedError, match="keys"):
            unseal("keys", key, bent)


def test_limits_are_refused_with_sizes() -> None:
    """A payload or key over its limit names size and limit."""
    with pytest.raises(TooLargeError) as caught:
        encode(1, 1, 1, bytes(PAYLOAD_LIMIT + 1), None)
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (PAYLOAD_LIMIT + 1, PAYLOAD_LIMIT)
    for key in (b"", bytes(KEY_LIMIT + 1)):
        with pytest.raises(TooLargeError):
            check_key(key)
    assert check_key(bytes(KEY_LIMIT)) == bytes(KEY_LIMIT)
