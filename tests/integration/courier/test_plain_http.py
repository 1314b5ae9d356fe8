"""Plain HTTP through the proxy: rewritten, one request a connection, and nothing smuggled past its check."""

from __future__ import annotations

import http.client
import socket
import time
import urllib.request

import pytest

from homeostat.proto.config import Courier as Limits, Egress
from homeostat.workers.courier import sessions
from tests.fakes.far_host import FarHost, reply
from tests.integration.courier.conftest import MakeHost, MakeStand
from tests.integration.courier.stand import LOOPBACK, PATIENCE_S, Sandbox, Stand, agent, all_of

NAMES = {"api.test": ["127.0.0.1"]}


@pytest.fixture
def host(far: MakeHost) -> FarHost:
    """A host that answers hello."""
    return far(reply())


@pytest.fixture
def courier(stand: MakeStand, host: FarHost) -> Stand:
    """A courier whose agent may reach it."""
    return stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)


def test_request_is_written_anew_for_its_host(courier: Stand, host: FarHost) -> None:
    """Origin-form, the target's Host, no headers between neighbours; the answer says that it closes."""
    answer = courier.sandbox().ask(
        b"GET http://api.test:%d/a?b=c HTTP/1.1\r\nHost: api.test:%d\r\nAccept: */*\r\nX-Gone: 1\r\n"
        b"Proxy-Authorization: Basic x\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\n"
        b"Connection: X-Gone, Upgrade\r\n\r\n" % (host.port, host.port)
    )
    assert host.requests == [
        b"GET /a?b=c HTTP/1.1\r\nHost: api.test:%d\r\nAccept: */*\r\nConnection: close\r\n\r\n" % host.port
    ]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert head.lower().count(b"connection: close") == 1
    assert body == b"hello"


def test_programs_that_know_the_proxy_by_its_variable_get_through(courier: Stand, host: FarHost) -> None:
    """urllib, as a command would use it, also with a body in chunks."""
    sandbox = courier.sandbox()
    proxies = urllib.request.ProxyHandler({"http": f"http://127.0.0.1:{sandbox.port}"})
    opener = urllib.request.build_opener(proxies)
    with opener.open(f"http://api.test:{host.port}/x", timeout=PATIENCE_S) as answer:
        assert answer.read() == b"hello"
    client = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=PATIENCE_S)
    client.request("POST", f"http://api.test:{host.port}/y", iter([b"one", b"two"]), encode_chunked=True)
    assert client.getresponse().read() == b"hello"
    client.close()
    assert host.requests[-1].startswith(b"POST /y HTTP/1.1\r\n")


def test_body_goes_whole_and_what_follows_it_goes_nowhere(stand: MakeStand, far: MakeHost) -> None:
    """A second request behind the first is not passed on: it was not checked."""
    got: list[bytes] = []

    def take(one: socket.socket, head: bytes) -> None:
        body = head.partition(b"\r\n\r\n")[2]
        one.settimeout(0.3)
        try:
            while data := one.recv(65_536):
                body += data
        except TimeoutError:
            pass
        got.append(body)
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    host = far(take)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    second = b"GET http://api.test:%d/second HTTP/1.1\r\nHost: api.test:%d\r\n\r\n" % (host.port, host.port)
    start = b"POST http://api.test:%d/ HTTP/1.1\r\nHost: api.test:%d\r\n" % (host.port, host.port)
    for framing, body in (
        (b"Content-Length: 5\r\n\r\n", b"first"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nfirst\r\n0\r\n\r\n"),
    ):
        with courier.sandbox().dial() as one:
            one.sendall(start + framing + body + second)
            answer = all_of(one)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert got.pop() == body


SMUGGLED = {
    "both framings": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "two lengths": b"Content-Length: 4\r\nContent-Length: 4\r\n",
    "a list of lengths": b"Content-Length: 4, 4\r\n",
    "a signed length": b"Content-Length: +4\r\n",
    "a length in hexadecimal": b"Content-Length: 0x4\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "another coding": b"Transfer-Encoding: gzip, chunked\r\n",
    "chunked with a blank": b"Transfer-Encoding: \x0bchunked\r\n",
    "a blank before the colon": b"Transfer-Encoding : chunked\r\n",
    "a folded line": b"X-A: b\r\n c\r\n",
    "a bare line feed": b"X-A: b\nTransfer-Encoding: chunked\r\n",
    "a bare carriage return": b"X-A: b\rTransfer-Encoding: chunked\r\n",
    "a NUL": b"X-A: b\x00c\r\n",
    "a line without a colon": b"X-A\r\n",
    "an empty name": b": b\r\n",
    "two hosts": b"Host: api.test\r\n",
}


@pytest.mark.parametrize("kind", SMUGGLED)
def test_request_is_refused_when_it_can_be_read_in_two_ways(courier: Stand, host: FarHost, kind: str) -> None:
    """Each is a 400, and the host hears nothing."""
    head = b"POST http://api.test:%d/ HTTP/1.1\r\nHost: api.test:%d\r\n" % (host.port, host.port)
    answer = courier.sandbox().ask(head + SMUGGLED[kind] + b"\r\nbody")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert host.accepted == 0


LINES = {
    "an origin form": b"GET / HTTP/1.1",
    "https in the clear": b"GET https://api.test/ HTTP/1.1",
    "an upper-case scheme": b"GET HTTP://api.test/ HTTP/1.1",
    "a user": b"GET http://user@api.test:{}/ HTTP/1.1",
    "a fragment": b"GET http://api.test:{}/#x HTTP/1.1",
    "two blanks": b"GET  http://api.test:{}/ HTTP/1.1",
    "a tab": b"GET\thttp://api.test:{}/ HTTP/1.1",
    "no version": b"GET http://api.test:{}/",
    "a backslash": b"GET http://api.test:{}\\@evil.test/ HTTP/1.1",
    "an empty host": b"GET http:///x HTTP/1.1",
    "an asterisk": b"OPTIONS * HTTP/1.1",
    "a percent-encoded host": b"GET http://api%2etest:{}/ HTTP/1.1",
    "a dot at its end": b"GET http://api.test.:{}/ HTTP/1.1",
    "another host behind a blank": b"CONNECT api.test:{} evil.test:443 HTTP/1.1",
    "a tunnel without a port": b"CONNECT api.test HTTP/1.1",
    "a tunnel to a URL": b"CONNECT http://api.test:{} HTTP/1.1",
    "a body in a tunnel's head": b"CONNECT api.test:{} HTTP/1.1\r\nContent-Length: 5",
}


@pytest.mark.parametrize("kind", LINES)
def test_request_is_refused_when_its_line_is_odd(courier: Stand, host: FarHost, kind: str) -> None:
    """No other spelling of a target is taken."""
    line = LINES[kind].replace(b"{}", b"%d" % host.port)
    answer = courier.sandbox().ask(line + b"\r\nHost: api.test:%d\r\n\r\n" % host.port)
    assert answer.startswith(b"HTTP/1.1 4")
    assert host.accepted == 0


@pytest.mark.parametrize("named", [b"evil.test", b"api.test", b"API.test:{}", b""])
def test_request_is_refused_when_its_host_header_names_another(
    courier: Stand, host: FarHost, named: bytes
) -> None:
    """48: policy saw the target, so the host must be told the same; letters' case does not count."""
    value = named.replace(b"{}", b"%d" % host.port)
    answer = courier.sandbox().ask(
        b"GET http://api.test:%d/ HTTP/1.1\r\nHost: %b\r\n\r\n" % (host.port, value)
    )
    if named.startswith(b"API"):
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"\r\nHost: api.test:%d\r\n" % host.port in host.requests[0]
    else:
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert host.accepted == 0


def test_plain_http_is_judged_like_a_tunnel(courier: Stand, host: FarHost) -> None:
    """48: there is no way past the list by not encrypting."""
    answer = courier.sandbox().ask(
        b"GET http://evil.test:%d/ HTTP/1.1\r\nHost: evil.test:%d\r\n\r\n" % (host.port, host.port)
    )
    assert answer.startswith(b"HTTP/1.1 403 evil.test:")
    assert host.accepted == 0


CHUNKS = {
    "an extension": b"5;x=y\r\nhello\r\n0\r\n\r\n",
    "a blank": b"5 \r\nhello\r\n0\r\n\r\n",
    "a sign": b"-5\r\nhello\r\n0\r\n\r\n",
    "a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a long size": b"0" * 40 + b"5\r\nhello\r\n0\r\n\r\n",
    "a bare line feed": b"5\nhello\r\n0\r\n\r\n",
    "a wrong size": b"4\r\nhello\r\n0\r\n\r\n",
    "a trailer": b"5\r\nhello\r\n0\r\nX-A: b\r\n\r\n",
}


@pytest.mark.parametrize("kind", CHUNKS)
def test_chunks_are_refused_when_they_are_not_strict(courier: Stand, host: FarHost, kind: str) -> None:
    """Said before the host is told anything, where all of it came at once."""
    head = b"POST http://api.test:%d/ HTTP/1.1\r\nHost: api.test:%d\r\n" % (host.port, host.port)
    answer = courier.sandbox().ask(head + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS[kind])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert host.requests == []


def test_head_is_refused_when_it_is_too_long_or_too_slow(
    stand: MakeStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bomb of headers is 431, many headers too; a head that trickles is 408 after its time."""
    monkeypatch.setattr(sessions, "HEAD_S", 1.0)
    courier = stand(agent(), names=NAMES)
    sandbox = courier.sandbox()
    head = b"GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\n"
    assert sandbox.ask(head + b"X: " + b"y" * 1_000_000).startswith(b"HTTP/1.1 431 ")
    assert sandbox.ask(head + b"X: y\r\n" * 101 + b"\r\n").startswith(b"HTTP/1.1 431 ")
    trickle(sandbox, head)


def trickle(sandbox: Sandbox, head: bytes) -> None:
    """A byte now and then: time counts from the start, not from the last byte."""
    with sandbox.dial() as one:
        began_s = time.monotonic()
        one.settimeout(0.2)
        answer, at = b"", 0
        while not answer:
            one.sendall(head[at : at + 1] or b"x")
            at += 1
            try:
                answer = one.recv(65_536)
            except TimeoutError:
                continue
            assert time.monotonic() - began_s < PATIENCE_S
    assert answer.startswith(b"HTTP/1.1 408 ")


ANSWERS = {
    "no HTTP": b"SSH-2.0-x\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_answer_is_a_502_when_it_is_none(stand: MakeStand, far: MakeHost, kind: str) -> None:
    """What can't be an answer is not passed on."""
    host = far(lambda one, _: one.sendall(ANSWERS[kind]))
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    answer = courier.sandbox().ask(
        b"GET http://api.test:%d/ HTTP/1.1\r\nHost: api.test:%d\r\n\r\n" % (host.port, host.port)
    )
    assert answer.startswith(b"HTTP/1.1 502 ")


def test_interim_answers_come_first_and_a_long_answer_comes_whole(stand: MakeStand, far: MakeHost) -> None:
    """100 Continue for a body that waits for it; 20 MB, with no length, to the end of the connection."""
    body = bytes(range(256)) * 80_000

    def answer(one: socket.socket, head: bytes) -> None:
        one.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert one.recv(5) == b"hello"
        one.sendall(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n" + body)

    host = far(answer)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    with courier.sandbox().dial() as one:
        one.sendall(
            b"PUT http://api.test:%d/ HTTP/1.1\r\nHost: api.test:%d\r\nExpect: 100-continue\r\n"
            b"Content-Length: 5\r\n\r\n" % (host.port, host.port)
        )
        assert one.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        one.sendall(b"hello")
        assert all_of(one) == b"HTTP/1.1 200 OK\r\nX: y\r\nConnection: close\r\n\r\n" + body


def test_the_proxy_does_not_reach_itself_without_end(stand: MakeStand) -> None:
    """A command whose list names its own proxy makes a chain of connections, as long as its share."""
    limits = Limits(connections_per_call=4, dial_s=1.0)
    names = {"self.test": ["127.0.0.1"]}
    courier = stand(agent(Egress("self.test", tuple(range(1, 65_536)), LOOPBACK)), names=names, limits=limits)
    sandbox = courier.sandbox()
    request = b"CONNECT self.test:%d HTTP/1.1\r\n\r\n" % sandbox.port
    opened = []
    for _ in range(4):
        one = sandbox.dial()
        one.sendall(request * 50)
        opened.append(one)
    time.sleep(0.5)
    assert courier.courier._ways.sessions <= 4
    for one in opened:
        one.close()


def test_the_proxy_s_own_port_is_refused_like_every_loopback(stand: MakeStand) -> None:
    """A list that names no private network reaches none."""
    courier = stand(agent(Egress("self.test", (3_128,))), names={"self.test": ["127.0.0.1"]})
    answer = courier.sandbox().ask(b"CONNECT self.test:3128 HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 self.test resolves to no address that may be reached")
    assert b"127.0.0.1 (loopback)" in answer
