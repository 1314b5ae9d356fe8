from __future__ import annotations

import random

import pytest

from homeostat.workers.executor.terminal import Stripper


def strip(*chunks: bytes) -> str:
    """The text of a stream cut like this."""
    stripper = Stripper()
    return b"".join([*(stripper.feed(chunk) for chunk in chunks), stripper.finish()]).decode()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain\n", "plain\n"),
        (b"\x1b[31mred\x1b[0m\n", "red\n"),
        (b"\x1b[1;38;5;208mx\x1b[K", "x"),
        (b"\x1b]0;title\x07after", "after"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1bP1$r0m\x1b\\dcs", "dcs"),
        (b"\x1b(Bascii\x1b=", "ascii"),
        (b"a\r\nb\r\n", "a\nb\n"),
        (b"10%\r55%\r100%\n", "100%\n"),
        (b"tab\tkept\x07\x00\x0e", "tab\tkept"),
        (b"N\x08NA\x08AME", "NAME"),
        (b"bad \xff\xfe utf8", "bad �� utf8"),
        ("c1 \x9b31m csi".encode(), "c1 31m csi"),
        ("bidi \u202eevil".encode(), "bidi evil"),
        (b"cut \x1b[3", "cut "),
        (b"esc esc \x1b\x1b[31mx", "esc esc x"),
    ],
)
def test_stripper_gives_what_a_person_would_read(raw: bytes, text: str) -> None:
    """Sequences, overwritten text and controls are gone; the rest is there."""
    assert strip(raw) == text


def test_stripper_gives_the_same_text_for_any_chunking() -> None:
    """Sequences and characters that a read splits are recognised all the same."""
    raw = (
        b"\x1b[1mbold\x1b[0m \x1b]0;t\x1b\\ok\r\n10%\r20%\r\n"
        + "grüße → \U0001f600\n".encode()
        + b"\xff\x1bP q\x1b\\end"
        b"\x1b]8;;u\x07l\x1b]8;;\x07\n\x1b[\x1b[31mz"
    )
    whole = strip(raw)
    rng = random.Random(7)
    for _ in range(300):
        cuts = sorted(rng.sample(range(len(raw)), rng.randint(1, 12)))
        chunks = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
        assert strip(*chunks) == whole, chunks


def test_stripper_holds_little_when_a_sequence_never_ends() -> None:
    """An endless title is swallowed without being kept."""
    stripper = Stripper()
    assert stripper.feed(b"before\n\x1b]0;") == b"before\n"
    for _ in range(100):
        assert stripper.feed(b"x" * 10_000) == b""
        assert len(stripper._held) < 20_000
    assert stripper.feed(b"\x07after\n") == b"after\n"


def test_stripper_gives_away_an_endless_line_in_parts() -> None:
    """A line without an end is not collected."""
    stripper = Stripper()
    given = sum(len(stripper.feed(b"y" * 10_000)) for _ in range(100))
    assert given >= 990_000


def test_stripper_tells_when_bytes_were_replaced() -> None:
    """Text that is not all of the bytes is marked, so that the bytes are kept."""
    stripper = Stripper()
    stripper.feed(b"fine\n")
    assert not stripper.replaced
    stripper.feed(b"\xff\n")
    assert stripper.replaced


def test_stripper_takes_a_long_line_of_escapes_in_linear_steps() -> None:
    """Text made to make a pattern backtrack costs no more than its length."""
    for raw in (
        b"\x1b]" * 200_000,
        b"\x1b[" * 200_000,
        b"x" * 400_000 + b"\r",
        b"\x1bP" * 200_000,
        b"a\x08" * 200_000,
    ):
        strip(raw)  # quadratic work on these would run into the test's timeout
