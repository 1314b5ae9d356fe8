"""Heads and bodies as bytes come, in whatever pieces."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from homeostat.workers.courier.bodies import Answer, Chunked, Counted
from homeostat.workers.courier.heads import END, HeadError, parse_request

GOOD = (
    b"GET http://a.test:8080/x?y HTTP/1.1\r\nHost: a.test:8080\r\nX: 1\r\n\r\n",
    b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    b"POST http://[::1]:80/ HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 12\r\n\r\n",
    b"PUT http://a.test/ HTTP/1.1\r\nHost: a.test:80\r\nTransfer-Encoding: chunked\r\n\r\n",
)


@given(st.binary(max_size=300), st.sampled_from(GOOD), st.integers(0, 60), st.integers(0, 60))
def test_head_is_a_request_or_an_error_whatever_the_bytes(
    noise: bytes, good: bytes, start: int, length: int
) -> None:
    """And what goes on is a head of one request that reads the same."""
    head = good[:start] + noise + good[start + length :]
    if not head.endswith(END):
        head += END
    try:
        request = parse_request(head)
    except HeadError:
        return
    if request.method == "CONNECT":
        return
    sent = request.to_origin()
    assert sent.count(END) == 1
    assert sent.endswith(END)
    assert b"\n" not in sent.replace(b"\r\n", b"")
    line = sent.split(b"\r\n")[0]
    assert line == b"%b %b HTTP/1.1" % (request.method.encode(), request.path)


@pytest.mark.parametrize("good", GOOD)
def test_head_is_taken_when_it_is_plain(good: bytes) -> None:
    """The target's host and port, however Host says the default port."""
    request = parse_request(good)
    assert (request.host, request.port) in {("a.test", 8080), ("a.test", 443), ("::1", 80), ("a.test", 80)}


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.binary(max_size=20), st.data())
def test_chunks_pass_whole_and_what_follows_stays_in_whatever_pieces(
    chunks: list[bytes], rest: bytes, data: st.DataObject
) -> None:
    """Byte for byte up to the empty chunk."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    stream = body + rest
    passage, out, at = Chunked(), b"", 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        out += passage.feed(stream[at : at + step])
        at += step
    assert out == body
    assert passage.over


@given(st.binary(max_size=64), st.data())
def test_counted_body_passes_so_many_bytes(stream: bytes, data: st.DataObject) -> None:
    """And not one more."""
    length = data.draw(st.integers(0, 64))
    passage = Counted(length)
    assert b"".join(passage.feed(bytes([byte])) for byte in stream) == stream[:length]
    assert passage.over == (len(stream) >= length)


@given(st.binary(max_size=100), st.data())
def test_answer_says_that_it_closes_in_whatever_pieces(body: bytes, data: st.DataObject) -> None:
    """Once; what follows the head is as it came."""
    head = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: x\r\nX: y\r\n\r\n"
    stream, answer, out, at = b"HTTP/1.1 103 Hints\r\n\r\n" + head + body, Answer(), b"", 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        out += answer.feed(stream[at : at + step])
        at += step
    assert out == b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\nConnection: close\r\n\r\n" + body
