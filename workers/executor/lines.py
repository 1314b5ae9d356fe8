"""Which lines of two texts differ, found in bounded time.

Owns: the shortest edit script, and when it is given up.
Must not know: files, how a difference is shown.
Invariant: whatever the texts, the work is bounded; beyond the bound everything between the common beginning
           and the common end counts as replaced, which is true and only longer.
Source: Myers, "An O(ND) Difference Algorithm and Its Variations" (1986), the greedy one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

_MOST_EDITS: Final = 400
_MOST_STEPS: Final = 400_000


class Block(NamedTuple):
    """Lines [old, old_end) of the one stand where lines [new, new_end) of the other do, all different."""

    old: int
    old_end: int
    new: int
    new_end: int


def differing(old: Sequence[bytes], new: Sequence[bytes]) -> list[Block]:
    """The blocks that differ, in order."""
    start = _common(old, new)
    end = _common(old[start:][::-1], new[start:][::-1])
    a, b = old[start : len(old) - end], new[start : len(new) - end]
    if not a and not b:
        return []
    edits = _edits(a, b) if a and b else None
    if edits is None:
        return [Block(start, start + len(a), start, start + len(b))]
    return [Block(*(start + at for at in block)) for block in _blocks(edits)]


def _common(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    at, most = 0, min(len(one), len(other))
    while at < most and one[at] == other[at]:
        at += 1
    return at


def _edits(a: Sequence[bytes], b: Sequence[bytes]) -> list[tuple[int, int, int, int]] | None:
    """Single insertions and deletions, first to last; None when there are too many to look for."""
    reached, trace, steps = {1: 0}, [], 0
    for distance in range(min(len(a) + len(b), _MOST_EDITS) + 1):
        trace.append(dict(reached))
        for diagonal in range(-distance, distance + 1, 2):
            x = _furthest(reached, diagonal, distance)
            began = x
            while x < len(a) and x - diagonal < len(b) and a[x] == b[x - diagonal]:
                x += 1
            steps += x - began + 1
            reached[diagonal] = x
            if x >= len(a) and x - diagonal >= len(b):
                return list(_backtrack(trace, len(a), len(b)))[::-1]
        if steps > _MOST_STEPS:
            return None
    return None


def _furthest(reached: dict[int, int], diagonal: int, distance: int) -> int:
    """Where the next edit on a diagonal begins: one line inserted, or one deleted."""
    if diagonal == -distance or (diagonal != distance and reached[diagonal - 1] < reached[diagonal + 1]):
        return reached[diagonal + 1]
    return reached[diagonal - 1] + 1


def _backtrack(trace: list[dict[int, int]], x: int, y: int) -> Iterator[tuple[int, int, int, int]]:
    for distance in range(len(trace) - 1, 0, -1):
        reached, diagonal = trace[distance], x - y
        inserted = diagonal == -distance or (
            diagonal != distance and reached[diagonal - 1] < reached[diagonal + 1]
        )
        before = diagonal + 1 if inserted else diagonal - 1
        x = reached[before]
        y = x - before
        yield (x, x, y, y + 1) if inserted else (x, x + 1, y, y)


def _blocks(edits: list[tuple[int, int, int, int]]) -> Iterator[Block]:
    """Edits that touch each other, as one."""
    block: tuple[int, int, int, int] | None = None
    for edit in edits:
        if block is not None and (edit[0], edit[2]) == (block[1], block[3]):
            block = (block[0], edit[1], block[2], edit[3])
            continue
        if block is not None:
            yield Block(*block)
        block = edit
    if block is not None:
        yield Block(*block)
