"""The framing rules of server-sent events."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from homeostat.workers.brain.providers.sse import Parser, ServerEvent, StreamTooLargeError

LINE = st.one_of(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12).map(
        lambda text: f"data: {text}"
    ),
    st.sampled_from(["", "", "data", "data:", "data:x", "event: named", ": comment", "id: 7", "junk"]),
)  # fmt: skip
STREAM = st.lists(st.tuples(LINE, st.sampled_from(["\n", "\r", "\r\n"])), max_size=30).map(
    lambda lines: "".join(line + end for line, end in lines).encode()
)


def events_of(data: bytes) -> list[ServerEvent]:
    """Parse in one piece."""
    return Parser().feed(data)


@given(STREAM, st.data(), st.booleans())
def test_parser_gives_the_same_events_when_bytes_are_cut_anywhere(
    data: bytes, draw: st.DataObject, bom: bool
) -> None:
    """Borders of chunks, inside characters, line ends and the BOM included, mean nothing."""
    stream = b"\xef\xbb\xbf" * bom + data
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    parser, pieces = Parser(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        pieces += parser.feed(stream[start:end])
    assert pieces == events_of(data)


@pytest.mark.parametrize(("stream", "wanted"), [
    (b"data: a\n\n", [ServerEvent("a")]),
    (b"data: a\r\rdata: b\r\n\r\n", [ServerEvent("a"), ServerEvent("b")]),
    (b"data: a\ndata:  b\n\n", [ServerEvent("a\n b")]),
    (b"event: e\ndata\n\n", [ServerEvent("", "e")]),
    (b": ping\n\nevent: lost\n\ndata: x\n\n", [ServerEvent("x")]),
    (b"data: never closed\n", []),
    (b"data: \xff\n\n", [ServerEvent("\ufffd")]),
])  # fmt: skip
def test_parser_follows_the_rules(stream: bytes, wanted: list[ServerEvent]) -> None:
    """Examples after the standard's own."""
    assert events_of(stream) == wanted


def test_parser_refuses_when_a_line_never_ends() -> None:
    """A line is bounded even while it is still arriving."""
    parser = Parser(line_limit_bytes=100)
    parser.feed(b"data: " + b"x" * 90)
    with pytest.raises(StreamTooLargeError):
        parser.feed(b"x" * 20)


def test_parser_refuses_when_an_event_never_ends() -> None:
    """So is the sum of an event's lines."""
    with pytest.raises(StreamTooLargeError):
        Parser(event_limit_bytes=100).feed(b"data: 0123456789\n" * 20)
