"""What a worker tells of what it dropped: bounded in number and size, and nothing goes uncounted."""

from __future__ import annotations

from homeostat.proto import messages as m
from homeostat.workers.letters import BURST, DATA_BYTES, Dropped


def test_dropped_tells_within_its_pace_when_much_is_dropped() -> None:
    """A burst, then so many a second; the next that is told has the number of those that were not."""
    told: list[m.DeadLetter] = []
    now_s = 0.0
    dropped = Dropped(told.append, lambda: now_s)
    for _ in range(1_000):
        dropped.tell("undecodable", b"x" * 10_000, detail="w" * 1_000, subject="records 4")
    assert len(told) == int(BURST)
    now_s = 1.0
    dropped.tell("undecodable", b"y")
    assert told[-1] == m.DeadLetter("undecodable", "", "", 1, b"y", 1_000 - int(BURST))
    assert (told[0].size_bytes, len(told[0].data), len(told[0].detail)) == (10_000, DATA_BYTES, 400)
