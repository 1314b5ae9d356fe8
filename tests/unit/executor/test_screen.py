"""A terminal's screen: what programs draw, what a model reads of it, what can't get through."""

from __future__ import annotations

import random
import re

import pyte
import pytest

from homeostat.workers.executor.terminals.screen import HISTORY_LINES, Screen
from homeostat.workers.executor.terminals.sifter import Sifter


def shown(*chunks: bytes, rows: int = 5, cols: int = 20) -> Screen:
    """The screen after these bytes, sifted as they would be."""
    screen, sifter = Screen(rows, cols), Sifter()
    for chunk in chunks:
        screen.feed(sifter.feed(chunk))
    return screen


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"one\r\ntwo", "one\ntwo"),
        (b"x\x1b[3;5Hthere", "x\n\n    there"),
        (b"abcdef\x1b[1;3H\x1b[K", "ab"),
        (b"over\rO", "Over"),
        ("wide 漢字 end".encode(), "wide 漢字 end"),
        ("e\u0301 zero\u200bwidth".encode(), "\u00e9 zerowidth"),
        (b"unprintable\x05 goes on", "unprintable goes on"),
        (b"\x1bP+q436f\x1b\\dcs", "dcs"),
        (b"\x1b[>4;2m\x1b[?1;2cprivate", "private"),
        (b"\x1b[4:3mcolon", "colon"),
        (b"\x1b]52;c;aGk=\x07clip", "clip"),
        ("\x9b31mc1".encode(), "\ufffd31mc1"),
        (b"x\x1b[4b", "xxxxx"),
        (b"1\r\n2\r\n3\x1b[1S", "2\n3"),
        (b"main\x1b[?1049halt", "    alt"),
        (b"main\x1b[?1049halt\x1b[?1049l!", "main!"),
        (b"a" * 25, "a" * 20 + "\n" + "a" * 5),
        (b"bidi \xe2\x80\xaeevil", "bidi evil"),
    ],
)
def test_screen_shows_what_a_terminal_would(raw: bytes, text: str) -> None:
    """Cursor, colours, wide characters, the alternate screen; nothing of a sequence is shown as text."""
    assert shown(raw).text() == text


def test_screen_is_the_same_however_the_stream_is_cut() -> None:
    """Sequences and characters that a read splits."""
    raw = "a\x1b[31mb\x1b[2;3Hc\x1b]0;título\x1b\\漢\x1bPxx\x1b\\d\x9bê\x1b[1;1H".encode()
    whole = shown(raw)
    rng = random.Random(3)
    for _ in range(200):
        cuts = sorted(rng.sample(range(len(raw)), rng.randint(1, 9)))
        chunks = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
        found = shown(*chunks)
        assert (found.text(), found.title, found.cursor) == (whole.text(), whole.title, whole.cursor), chunks


def test_screen_survives_whatever_is_fed() -> None:
    """Random bytes and random sequences raise nothing, and the text holds no control characters."""
    rng = random.Random(11)
    screen, sifter = Screen(6, 12), Sifter()
    for _ in range(3_000):
        kind = rng.random()
        if kind < 0.5:
            final = bytes([rng.randrange(0x40, 0x7F)])
            numbers = b";".join(
                b"%d" % rng.choice([0, 1, 3, 25, 132, 99999]) for _ in range(rng.randrange(4))
            )
            raw = b"\x1b[" + rng.choice([b"", b"?", b">", b"="]) + numbers + final
        else:
            raw = rng.randbytes(rng.randrange(1, 30))
        screen.feed(sifter.feed(raw))
        assert len(sifter._held) <= 4_096
    text = screen.text(history=50)
    assert not [letter for letter in text if ord(letter) < 32 and letter != "\n"]
    assert screen.size == (6, 12)
    assert screen.failures == 0


def test_screen_draws_as_pyte_does() -> None:
    """The faster way to draw leaves the same cells, colours and cursor."""
    rng = random.Random(5)
    words = [b"plain", b"\x1b[31m", b"\x1b[0m", b"\r\n", b"\r", b"\t", b"\x1b[4;4H", b"long " * 9,
             "é漢".encode(), b"\x1b[4h", b"\x1b[4l", b"\x1b[?7l", b"\x1b[?7h"]  # fmt: skip
    for _ in range(60):
        raw = b"".join(rng.choice(words) for _ in range(40))
        ours, theirs = Screen(6, 17), pyte.Screen(17, 6)
        ours.feed(raw)
        pyte.ByteStream(theirs).feed(raw)
        cells = ours._cells
        assert cells.display == theirs.display
        assert (cells.cursor.x, cells.cursor.y) == (theirs.cursor.x, theirs.cursor.y)
        assert [[cells.buffer[y][x] for x in range(17)] for y in range(6)] == [
            [theirs.buffer[y][x] for x in range(17)] for y in range(6)
        ]


def test_screen_keeps_what_has_scrolled_off() -> None:
    """So many lines as are asked for, the latest."""
    screen = shown(b"".join(b"line %d\r\n" % number for number in range(2_000)))
    assert screen.text(history=2).startswith(
        "line 1994\nline 1995\n[above: 2 lines that have scrolled off]\nline 1996"
    )
    assert screen.text(history=5_000).count("\n") < HISTORY_LINES + 10


def test_skim_leaves_the_screen_as_if_all_had_been_fed() -> None:
    """A flood of lines and colours is cut to what will be seen of it."""
    raw = (
        b"begin"
        + b"".join(b"\x1b[3%dmline %d\x1b[0m of a long text\r\n" % (n % 8, n) for n in range(9_000))
        + b"$ "
    )
    whole, skimmed = Screen(5, 12), Screen(5, 12)
    whole.feed(raw)
    rest = skimmed.skim(raw)
    assert len(rest) < len(raw)
    skimmed.feed(rest)
    assert whole.text(1_000) == skimmed.text(1_000)
    assert whole.repaint() == skimmed.repaint()


def test_skim_touches_nothing_that_moves_about() -> None:
    """With cursor movements every byte counts."""
    raw = b"\x1b[2;2Hx\r\n" * 5_000
    assert Screen(5, 20).skim(raw) == raw


def test_repaint_draws_the_same_screen() -> None:
    """What a person gets shows what the model sees, cell for cell."""
    screen = shown("\x1b[1;31mred\x1b[0m \x1b[42m漢\x1b[0m\r\n\x1b[?25l\x1b[38;2;1;2;3mrgb".encode())
    again = Screen(5, 20)
    again.feed(screen.repaint())
    assert again.text() == screen.text()
    assert again.cursor == screen.cursor
    ours = [[screen._cells.buffer[y][x] for x in range(20)] for y in range(5)]
    assert ours == [[again._cells.buffer[y][x] for x in range(20)] for y in range(5)]


def test_screen_answers_when_asked_where_the_cursor_is() -> None:
    """Programs that wait for it go on; the answer is given once."""
    screen = shown(b"ab\x1b[6n")
    assert screen.take_replies() == b"\x1b[1;3R"
    assert screen.take_replies() == b""


def test_resize_keeps_what_fits() -> None:
    """Fewer rows take blank ones from below the cursor first, then from the top, into the history."""
    screen = shown(b"1\r\n2")
    screen.resize(3, 10)
    assert screen.text() == "1\n2"
    screen = shown(b"1\r\n2\r\n3\r\n4\r\n5")
    screen.resize(3, 10)
    assert screen.text(history=9).startswith("1\n2\n[above: 2 lines")
    assert screen.size == (3, 10)
    assert screen.text().split("\n")[-1] == "5"
    assert screen.cursor[0] <= 3


# -- what passes ------------------------------------------------------------------------------------------
FORMS = re.compile(
    rb"\x1b(?:\[[0-9;?]*[@A-HJ-MPSTX`a-hlmnrsu]|\][02];[^\x00-\x1f\x7f]*(?:\x07|\x1b\\)"
    rb"|[cDEHMZ78=>]|#8|[()][0AB])"
)
"""All that may pass, more widely than the sifter has it."""
PIECES = [
    *(b"\x1b", b"\x1b\\", b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b_", b"]52;c;ZXZpbA==\x07", b"]1337;", b"0;t"),
    *(
        b"[?9999z",
        b"[31m",
        b"[6n",
        b"(",
        b"x",
        b";",
        b"1",
        b"\\",
        b"\r\n",
        b"\x00",
        b"\x07",
        b"\x18",
        b"\x7f",
    ),
    *(b"\xc2", b"\x9d", b"\x9b", b"\xc2\x9d", b"\xe2\x82", b"\xac", b"\xc3\xa9", b"\xf0\x9f\x98\x80"),
]


def sifted(raw: bytes, rng: random.Random) -> bytes:
    """What passes, fed in pieces."""
    sifter, passed, at = Sifter(), b"", 0
    while at < len(raw):
        size = rng.randint(1, 9)
        passed += sifter.feed(raw[at : at + size])
        at += size
    return passed


def forbidden(passed: bytes) -> list[str]:
    """What is in it that may not be: any ESC but that of an allowed form, controls, C1."""
    rest = FORMS.sub(b"", passed).decode()
    return [c for c in rest if (c < " " and c not in "\a\b\t\n\v\f\r") or "\x7f" <= c <= "\x9f"]


@pytest.mark.parametrize(
    "raw",
    [
        b"\x1b\x1bPx\x1b\\]52;c;ZXZpbA==\x07",
        b"\x1b\x1b[?9999z]52;c;ZXZpbA==\x07",
        b"\xc2\xc2\x9d\x9d52;c;ZXZpbA==\x07",
        b"\xc2\x1b[?9999z\x9d52;c;ZXZpbA==\x07",
        b"\x1bP+\x1b[31mx",
        b"\x1b[\n5i",
    ],
)
def test_nothing_dropped_makes_a_sequence_of_what_was_around_it(raw: bytes) -> None:
    """Whole, and a byte at a time."""
    whole, sifter = Sifter().feed(raw), Sifter()
    assert whole == b"".join(sifter.feed(bytes([byte])) for byte in raw)
    assert not forbidden(whole), whole


def test_sifting_again_changes_nothing_however_the_stream_is_cut() -> None:
    """Of whatever bytes: what has passed passes, and holds no escape but the allowed."""
    rng = random.Random(17)
    for _ in range(6_000):
        raw = b"".join(
            rng.choice(PIECES) if rng.random() < 0.9 else rng.randbytes(3) for _ in range(rng.randint(1, 20))
        )
        passed = sifted(raw, rng)
        assert passed == Sifter().feed(raw), raw
        assert sifted(passed, rng) == passed, raw
        assert not forbidden(passed), raw
