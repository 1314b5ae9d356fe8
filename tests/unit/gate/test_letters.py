"""The ring of dead letters on a real disk: bounded, counted, legible after any end, and never trusted."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from homeostat.proto import wire
from homeostat.workers.gate import letters as module
from homeostat.workers.gate.admission import Refusal
from homeostat.workers.gate.letterbox import page
from homeostat.workers.gate.letters import DATA_BYTES, SLOT_BYTES, SLOTS, Letters

HOSTILE = b"\x1b]0;owned\x07\x9b2J \xe2\x80\xae\\x41\n\xff"


class Clock:
    """Time goes by as the test says."""

    now_s = 0.0

    def __call__(self) -> float:
        """Read it."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """A clock that stands."""
    return Clock()


@pytest.fixture
def ring(tmp_path: Path, clock: Clock) -> Letters:
    """A ring without a letter."""
    return Letters(tmp_path / "letters", clock)


def send(ring: Letters, clock: Clock, count: int, first: int = 0) -> None:
    """Drop so many different things, none too fast."""
    for number in range(first, first + count):
        clock.now_s += 1.0
        ring.keep("undecodable", "brain.0.1", b"%d" % number + b"x" * 10_000)


def test_ring_is_bounded_after_2000_letters(ring: Letters, clock: Clock, tmp_path: Path) -> None:
    """The newest 512 are there, whole numbers of them, in a file that grew no further."""
    counted: Counter[str] = Counter()
    ring.counted = lambda reason: counted.update([reason])
    send(ring, clock, 2_000)
    found = ring.page(5_000)
    assert [letter.number for letter in found] == list(range(2_000, 2_000 - SLOTS, -1))
    assert {len(letter.data) for letter in found} == {DATA_BYTES}
    assert found[0].data.startswith(b"1999x")
    assert found[0].size_bytes == 10_004
    assert (tmp_path / "letters").stat().st_size <= SLOTS * SLOT_BYTES
    assert counted == {"undecodable": 2_000}


def test_ring_goes_on_numbering_when_it_is_opened_again(ring: Letters, clock: Clock, tmp_path: Path) -> None:
    """Nothing was closed or synced: the process was killed."""
    send(ring, clock, 600)
    again = Letters(tmp_path / "letters", clock)
    send(again, clock, 1, first=600)
    assert [letter.number for letter in again.page(2)] == [601, 600]


def test_ring_counts_what_comes_too_fast(ring: Letters, clock: Clock, tmp_path: Path) -> None:
    """A flood costs counting alone; what was not kept is told with the next letter that is."""
    for number in range(10_000):
        ring.keep("bad_request", "local", b"%d" % number)
    kept = ring.page(SLOTS)
    assert len(kept) == int(module.BURST)
    assert ring.total == 10_000
    clock.now_s += 1.0
    ring.keep("bad_request", "local", b"last")
    assert ring.page(1)[0].unkept == 10_000 - len(kept)
    assert (tmp_path / "letters").stat().st_size <= (len(kept) + 2) * SLOT_BYTES


def test_ring_keeps_one_letter_when_the_same_comes_again(ring: Letters, clock: Clock) -> None:
    """A message that is resent for ever must not push the others out."""
    ring.keep("stale_epoch", "brain.0.1", b"other")
    for _ in range(20):
        clock.now_s += 1.0
        ring.keep("stale_epoch", "brain.0.2", b"hello", detail="a greeting")
    assert [(letter.number, letter.times) for letter in ring.page(5)] == [(2, 20), (1, 1)]


def test_ring_passes_over_a_slot_that_is_torn(ring: Letters, clock: Clock, tmp_path: Path) -> None:
    """A power cut in the middle of a write, garbage, a truncated file: the other letters are read."""
    send(ring, clock, 3)
    with (tmp_path / "letters").open("r+b") as file:
        os.pwrite(file.fileno(), b"\xff" * 20, 2 * SLOT_BYTES + 30)
        os.ftruncate(file.fileno(), 3 * SLOT_BYTES + 100)
    assert [letter.number for letter in Letters(tmp_path / "letters", clock).page(9)] == [1]


def test_ring_says_so_when_it_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dead letter must not end the gate: it is counted, and the log has the reason."""
    (tmp_path / "letters").mkdir()
    ring = Letters(tmp_path / "letters")
    ring.keep("overflow", "gate", b"x")
    assert ring.total == 1
    assert "could not be kept" in capsys.readouterr().err


def test_ring_fits_a_slot_when_all_words_are_long(ring: Letters, clock: Clock) -> None:
    """Sender, detail and subject come from strangers too."""
    long = "\x1bü\ud800" * 5_000
    ring.keep("bad_request", long, b"\xff" * 50_000, detail=long, subject=long)
    (letter,) = ring.page(1)
    assert all(
        text.isascii() and text.isprintable() for text in (letter.sender, letter.detail, letter.subject)
    )
    assert len(letter.data) == DATA_BYTES


def test_reason_is_one_of_the_known_ones_when_a_worker_says_another(ring: Letters) -> None:
    """A label of a metric is nothing that a worker may invent."""
    ring.keep("my own\n", "brain.0.1", b"x")
    assert ring.page(1)[0].reason == "other"


def test_page_escapes_what_a_letter_holds(ring: Letters) -> None:
    """Nothing steers a terminal, and the bytes can be had back."""
    ring.keep("bad_request", "local", HOSTILE)
    (view,) = page(wire.Letters(), ring, "local").letters
    assert view.data.isascii()
    assert view.data.isprintable()
    back = view.data.encode().decode("unicode_escape").encode("latin-1")
    assert back == HOSTILE


def test_pages_give_every_letter_once_when_followed(ring: Letters, clock: Clock) -> None:
    """Through ``next`` until it is 0."""
    send(ring, clock, 130)
    numbers: list[int] = []
    before = 0
    while True:
        answer = page(wire.Letters(limit=50, before=before), ring, "local")
        numbers += [letter.number for letter in answer.letters]
        before = answer.next
        if not before:
            break
    assert numbers == list(range(130, 0, -1))


@pytest.mark.parametrize(
    ("request_", "principal", "code"),
    [
        (wire.Letters(), "curve:abc", "local_only"),
        (wire.Letters(limit=0), "local", "bad_field"),
        (wire.Letters(limit=SLOTS + 1), "local", "bad_field"),
        (wire.Letters(before=-1), "local", "bad_field"),
    ],
)
def test_page_is_refused_when_asked_wrongly(
    ring: Letters, request_: wire.Letters, principal: str, code: str
) -> None:
    """A remote client does not read what others sent."""
    with pytest.raises(Refusal) as refused:
        page(request_, ring, principal)
    assert refused.value.code == code


def test_page_is_refused_when_the_ring_cannot_be_read(tmp_path: Path) -> None:
    """With the place to look at, not with a traceback."""
    (tmp_path / "letters").mkdir()
    with pytest.raises(Refusal) as refused:
        page(wire.Letters(), Letters(tmp_path / "letters"), "local")
    assert refused.value.code == "letters_unreadable"
    assert "journal/letters" in refused.value.remedy
