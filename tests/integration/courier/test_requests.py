"""http.request against real servers: credentials, redirects, limits, doubts."""

from __future__ import annotations

import base64
import socket
import time
from pathlib import Path

import pytest

from homeostat.proto import messages as m
from homeostat.proto.config import Courier as Limits, Credential, Egress
from tests.fakes.far_host import AUTHORITY, reply
from tests.integration.courier.conftest import MakeHost, MakeStand
from tests.integration.courier.stand import LOOPBACK, TASK, Stand, agent, eventually

NAMES = {"api.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]}
SECRET = "s3cret-value/with+odd=chars"


@pytest.fixture
def secret(tmp_path: Path) -> Credential:
    """A credential in a file."""
    path = tmp_path / "token"
    path.write_text(SECRET + "\n")
    return Credential("token", value_file=str(path))


def test_request_gives_status_headers_and_body(stand: MakeStand, far: MakeHost) -> None:
    """What is sent names host, key and length; what comes back is told in words, the connection too."""
    host = far(reply(b"hello w\xc3\xb6rld", "200 OK", "Content-Type: text/plain; charset=utf-8", "X-A: b"))
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    key = courier.new_key()
    url = f"http://api.test:{host.port}/a?b=c#not-sent"
    ended = courier.request(url, key=key, method="POST", body="data", headers={"X-Own": "1"})
    assert ended.status == "ok"
    assert ended.text.startswith("HTTP 200 OK\ncontent-type: text/plain; charset=utf-8\nx-a: b\n")
    assert ended.text.endswith("\n\nhello wörld")
    assert ended.output_bytes == len("hello wörld".encode())
    head, _, body = host.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert (lines[0], body) == (b"POST /a?b=c HTTP/1.1", b"data")
    assert {
        b"Host: api.test:%d" % host.port, b"Idempotency-Key: " + key.encode(), b"Content-Length: 4",
        b"X-Own: 1",
    } <= set(lines)  # fmt: skip
    told = courier.connection(key)
    assert (told.host, told.port, told.method, told.verdict) == ("api.test", host.port, "POST", "open")
    assert told.received_bytes == ended.output_bytes


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://other.test:{}/", "is not in the egress list of agent 'web'"),
        ("http://api.test/", "api.test:80 is not in the egress list"),
        ("http://127.1:{}/", "no host in a spelling"),
        ("http://api.test@other.test:{}/", "no host in a spelling"),
        ("http://api.test\\@other.test:{}/", "no URL that is taken"),
        ("ftp://api.test:{}/", "no URL that is taken"),
    ],
)
def test_request_is_refused_when_its_host_is_not_listed(
    stand: MakeStand, far: MakeHost, url: str, words: str
) -> None:
    """Nothing is sent, and the reason names what would be allowed."""
    host = far(reply())
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    ended = courier.request(url.format(host.port))
    assert ended.status == "refused"
    assert words in ended.text
    assert host.accepted == 0


@pytest.mark.parametrize(
    "more",
    [
        {"headers": {"Host": "other.test"}},
        {"headers": {"host": "other.test"}},
        {"headers": {"Content-Length": "0"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"headers": {"Idempotency-Key": "mine"}},
        {"headers": {"Proxy-Foo": "x"}},
        {"headers": {"X A": "b"}},
        {"headers": {"X-A": "b\r\nX-B: c"}},
        {"headers": {"X-A": "1", "x-a": "2"}},
        {"headers": {"Authorization": "mine"}},
        {"headers": {"Range": "bytes=0-9"}},
        {"method": "CONNECT"},
        {"method": "GET", "body": "x"},
        {"unknown": 1},
    ],
)
def test_request_is_refused_when_its_arguments_would_change_what_is_sent(
    stand: MakeStand, far: MakeHost, secret: Credential, more: dict[str, object]
) -> None:
    """Headers that are ours, broken lines, a credential of the agent's own in the operator's place."""
    host = far(reply())
    entry = Egress("api.test", (host.port,), LOOPBACK, credential="token")
    courier = stand(agent(entry), names=NAMES, credentials=(secret,))
    ended = courier.request(f"http://api.test:{host.port}/", **more)  # type: ignore[arg-type]
    assert ended.status == "refused"
    assert host.accepted == 0


def test_request_is_refused_when_its_host_leads_inward(stand: MakeStand, far: MakeHost) -> None:
    """49: the same addresses as for commands; no second resolution."""
    host = far(reply())
    courier = stand(agent(Egress("api.test", (host.port,))), names=NAMES)
    ended = courier.request(f"http://api.test:{host.port}/")
    assert ended.status == "refused"
    assert "127.0.0.1 (loopback)" in ended.text
    assert host.accepted == 0


# -- credentials -----------------------------------------------------------------------------------------
def test_credential_is_sent_and_seen_nowhere(stand: MakeStand, far: MakeHost, secret: Credential) -> None:
    """A server that echoes it in every form shows stars; it is in nothing that was posted."""
    basic = base64.b64encode(SECRET.encode()).decode()

    def parrot(one: socket.socket, head: bytes) -> None:
        body = f"plain {SECRET} json {SECRET!r} base64 {basic} ".encode() + SECRET.encode("utf-16-le")
        fields = (
            f"X-Echo: {SECRET}\r\nX-Url: s3cret-value%2Fwith%2Bodd%3Dchars\r\nContent-Length: {len(body)}"
        )
        one.sendall(f"HTTP/1.1 200 {SECRET}\r\n{fields}\r\n\r\n".encode() + body)

    host = far(parrot)
    entry = Egress("api.test", (host.port,), LOOPBACK, credential="token")
    courier = stand(agent(entry), names=NAMES, credentials=(secret,))
    ended = courier.request(f"http://api.test:{host.port}/")
    assert b"Authorization: Bearer " + SECRET.encode() in host.requests[0].split(b"\r\n")
    assert ended.status == "ok"
    assert ended.text.count("***") >= 4
    courier.connection(ended.key)
    everything = repr(courier.loop.posted)
    for form in (SECRET, basic.rstrip("="), "s3cret-value%2F", "s\\x003\\x00c"):
        assert form not in everything


def test_credential_is_read_anew_when_it_was_rotated(
    stand: MakeStand, far: MakeHost, secret: Credential
) -> None:
    """No restart; a file that is gone refuses the request by name, without sending it bare."""
    host = far(reply())
    entry = Egress("api.test", (host.port,), LOOPBACK, credential="token")
    courier = stand(agent(entry), names=NAMES, credentials=(secret,))
    courier.request(f"http://api.test:{host.port}/")
    Path(secret.value_file).write_text("another-value\n")
    courier.request(f"http://api.test:{host.port}/")
    assert b"Authorization: Bearer another-value" in host.requests[1]
    Path(secret.value_file).unlink()
    ended = courier.request(f"http://api.test:{host.port}/")
    assert ended.status == "error"
    assert "credential 'token': value_file" in ended.text
    assert "no such file" in ended.text
    assert len(host.requests) == 2


def test_credential_stays_when_a_redirect_leads_to_another_place(
    stand: MakeStand, far: MakeHost, secret: Credential
) -> None:
    """Another host or port gets neither the operator's credential nor the agent's own cookie."""
    second = far(reply(b"there"))
    first = far(reply(b"", "302 Found", f"Location: http://other.test:{second.port}/x"))
    entries = (
        Egress("api.test", (first.port,), LOOPBACK, credential="token"),
        Egress("other.test", (second.port,), LOOPBACK, credential="token"),
    )
    courier = stand(agent(*entries), names=NAMES, credentials=(secret,))
    ended = courier.request(f"http://api.test:{first.port}/", headers={"Cookie": "own=1", "X-Kept": "1"})
    assert ended.status == "ok"
    assert ended.text.startswith(f"[after 1 redirects, from http://other.test:{second.port}]\nHTTP 200")
    assert SECRET.encode() in first.requests[0]
    assert SECRET.encode() not in second.requests[0]
    assert b"Cookie" not in second.requests[0]
    assert b"X-Kept: 1" in second.requests[0]


def test_credential_is_not_sent_in_the_clear_to_a_public_address(
    stand: MakeStand, far: MakeHost, secret: Credential
) -> None:
    """Over http:// it goes to networks of the operator's own only."""
    entry = Egress("api.test", (80,), credential="token")
    courier = stand(agent(entry), names={"api.test": ["93.184.215.14"]}, credentials=(secret,))
    ended = courier.request("http://api.test/")
    assert ended.status == "refused"
    assert "is not sent to a public address without TLS" in ended.text


# -- TLS -------------------------------------------------------------------------------------------------
def test_tls_is_verified_by_name_and_authority(
    stand: MakeStand, far: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate of nobody we know, and one of another name, are refused; the right one is taken."""
    host = far(reply(b"over TLS"), tls=True)
    names = {"api.test": ["127.0.0.1"], "wrong.test": ["127.0.0.1"]}
    entries = (Egress("api.test", (host.port,), LOOPBACK), Egress("wrong.test", (host.port,), LOOPBACK))
    courier = stand(agent(*entries), names=names)
    ended = courier.request(f"https://api.test:{host.port}/")
    assert ended.status == "error"
    assert "its certificate is not accepted" in ended.text
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    ended = courier.request(f"https://api.test:{host.port}/")
    assert (ended.status, ended.text.rpartition("\n")[2]) == ("ok", "over TLS")
    ended = courier.request(f"https://wrong.test:{host.port}/")
    assert ended.status == "error"
    assert "Hostname mismatch" in ended.text


# -- redirects -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://evil.test/", "evil.test:80 is not in the egress list"),
        ("http://169.254.169.254/latest/", "169.254.169.254:80 is not in the egress list"),
        ("//evil.test/", "evil.test:80 is not in the egress list"),
        ("file:///etc/passwd", "no URL that is taken"),
        ("http://api.test@evil.test/", "no host in a spelling"),
        ("http://127.1/", "no host in a spelling"),
    ],
)
def test_redirect_is_not_followed_when_it_leads_out_of_the_list(
    stand: MakeStand, far: MakeHost, location: str, words: str
) -> None:
    """Every hop is judged like the first; what the server said is the answer."""
    host = far(lambda one, _: reply(b"", "302 Found", f"Location: {location}")(one, b""))
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=lambda _: ["127.0.0.1"])
    ended = courier.request(f"http://api.test:{host.port}/")
    assert ended.status == "error"
    assert ended.text.startswith("HTTP 302 Found\n")
    assert "the redirect was not followed" in ended.text
    assert words in ended.text
    assert host.accepted == 1


def test_redirects_end_at_their_limit_and_keep_the_key(stand: MakeStand, far: MakeHost) -> None:
    """A loop of relative redirects is followed five times, under the same key each time."""
    host = far(reply(b"", "307 Temporary Redirect", "Location: again?x"))
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    ended = courier.request(f"http://api.test:{host.port}/a/b")
    assert ended.status == "error"
    assert "5 redirects have been followed" in ended.text
    assert [one.split(b" ")[1] for one in host.requests] == [b"/a/b", *[b"/a/again?x"] * 5]
    assert all(b"Idempotency-Key: " + ended.key.encode() in one for one in host.requests)


def test_redirect_of_a_post_becomes_a_get_where_the_standard_says_so(stand: MakeStand, far: MakeHost) -> None:
    """303 without the body; 307 with it."""

    def first(one: socket.socket, head: bytes) -> None:
        if head.startswith(b"POST /see"):
            reply(b"", "303 See Other", "Location: /there")(one, head)
        elif head.startswith(b"POST /move"):
            reply(b"", "307 Temporary Redirect", "Location: /there")(one, head)
        else:
            reply()(one, head)

    host = far(first)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    for path, expected in (("/see", b"GET /there"), ("/move", b"POST /there")):
        ended = courier.request(f"http://api.test:{host.port}{path}", "once", method="POST", body="data")
        assert ended.status == "ok"
        assert host.requests[-1].startswith(expected)
        assert host.requests[-1].endswith(b"data") == (b"POST" in expected)


# -- limits ----------------------------------------------------------------------------------------------
def test_answer_is_bounded_in_what_is_read_and_shown(stand: MakeStand, far: MakeHost) -> None:
    """Of an endless body so much is read and so much shown, and it is said; binary is not shown at all."""

    def endless(one: socket.socket, head: bytes) -> None:
        kind = b"image/png" if head.startswith(b"GET /png") else b"text/plain"
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\n\r\n")
        while True:
            one.sendall(b"abc\n" * 16_384)

    host = far(endless)
    limits = Limits(max_response_bytes=1 << 20)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES, limits=limits)
    ended = courier.request(f"http://api.test:{host.port}/text", limit_bytes=100)
    assert "abc\n" * 25 in ended.text
    assert ended.text.count("abc") == 25
    assert "[the first 100 of 1," in ended.text
    assert "the rest was left: an answer may have 1,048,576 bytes" in ended.text
    ended = courier.request(f"http://api.test:{host.port}/png")
    assert "[not text: 1," in ended.text
    assert "abc" not in ended.text


def test_request_ends_in_time_when_the_host_trickles(stand: MakeStand, far: MakeHost) -> None:
    """A byte now and then does not stretch its time; a request that asks for no change is a timeout."""

    def trickle(one: socket.socket, _: bytes) -> None:
        for byte in b"HTTP/1.1 200 OK\r\n" * 1_000:
            one.sendall(bytes([byte]))
            time.sleep(0.05)

    host = far(trickle)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    ended = courier.request(f"http://api.test:{host.port}/", timeout_s=0.5)
    assert ended.status == "timeout"
    ended = courier.request(f"http://api.test:{host.port}/", "once", method="POST", timeout_s=0.5)
    assert ended.status == "in_doubt"
    assert "may have taken effect" in ended.text


def test_head_of_an_answer_is_bounded(stand: MakeStand, far: MakeHost) -> None:
    """Endless headers end the request."""

    def bomb(one: socket.socket, _: bytes) -> None:
        one.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            one.sendall(b"X: y\r\n" * 1_000)

    host = far(bomb)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    ended = courier.request(f"http://api.test:{host.port}/")
    assert ended.status == "error"
    assert "more than 100 headers" in ended.text


# -- once and again --------------------------------------------------------------------------------------
def hanging_up(one: socket.socket, _: bytes) -> None:
    """Takes the request and goes."""


def test_lost_answer_is_asked_for_again_only_under_its_key(stand: MakeStand, far: MakeHost) -> None:
    """keyed: the same key again, twice at most; once: in doubt at the first; a GET is a plain error."""
    host = far(hanging_up)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK, idempotent=True)), names=NAMES)
    ended = courier.request(f"http://api.test:{host.port}/", "keyed", method="POST", body="x")
    assert ended.status == "in_doubt"
    assert len(host.requests) == 3
    assert all(b"Idempotency-Key: " + ended.key.encode() in one for one in host.requests)
    ended = courier.request(f"http://api.test:{host.port}/", "once", method="POST", body="x")
    assert ended.status == "in_doubt"
    assert len(host.requests) == 4
    assert courier.request(f"http://api.test:{host.port}/").status == "error"


def test_outcome_is_told_again_and_not_made_again(stand: MakeStand, far: MakeHost) -> None:
    """A gate that was restarted asks again: it gets the outcome, until it says Forget."""
    host = far(reply())
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    first = courier.request(f"http://api.test:{host.port}/", "once", method="POST")
    courier.loop.posted.clear()
    again = courier.request(
        f"http://api.test:{host.port}/", "once", key=first.key, method="POST", resumed=True
    )
    assert again == first
    assert len(host.requests) == 1


def test_resumed_request_is_sent_again_or_in_doubt_by_its_class(stand: MakeStand, far: MakeHost) -> None:
    """A courier that knows nothing of it: keyed is made, once is not."""
    host = far(reply())
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK, idempotent=True)), names=NAMES)
    url = f"http://api.test:{host.port}/"
    assert courier.request(url, "keyed", method="POST", resumed=True).status == "ok"
    ended = courier.request(url, "once", method="POST", resumed=True)
    assert ended.status == "in_doubt"
    assert len(host.requests) == 1


def test_abort_cuts_a_request_and_answers_one_that_is_not_known(stand: MakeStand, far: MakeHost) -> None:
    """While it waits for the host, before it begins, and before its Execute has come."""
    arrived: list[bytes] = []

    def never(one: socket.socket, head: bytes) -> None:
        arrived.append(head)
        one.recv(1)

    host = far(never)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    key = courier.new_key()
    courier.request(f"http://api.test:{host.port}/", key=key, wait=False)
    eventually(lambda: arrived)
    courier.say(m.Abort(key, "cancelled"))
    assert courier.ended(key).status == "cancelled"
    unknown = courier.new_key()
    courier.say(m.Abort(unknown, "timeout"))
    assert courier.ended(unknown).status == "timeout"
    courier.permit(unknown)
    courier.say(m.Execute(unknown, TASK, "http.request", b"{}", "keyed", "", 60.0, 1 << 20))
    eventually(lambda: len(courier._ends(unknown)) == 2)
    assert courier.ended(unknown).status == "timeout"


def test_more_requests_than_threads_wait_and_too_many_are_refused(stand: MakeStand, far: MakeHost) -> None:
    """Eight at a time, 64 waiting; what is beyond is refused at once."""
    host = far(lambda one, _: (one.recv(1), None)[1])
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    keys = [courier.new_key() for _ in range(75)]
    for key in keys:
        courier.request(f"http://api.test:{host.port}/", key=key, wait=False)
    refused = [courier.ended(key) for key in keys[72:]]
    assert {one.status for one in refused} == {"refused"}
    assert "64 requests wait already" in refused[0].text
    assert host.accepted <= 8
    for key in keys:
        courier.say(m.Abort(key, "cancelled"))
    assert {courier.ended(key).status for key in keys[:72]} == {"cancelled"}


def test_stop_lets_a_request_come_to_its_end(stand: MakeStand, far: MakeHost) -> None:
    """What is under way is not left in doubt, as long as there is time."""

    def slow(one: socket.socket, head: bytes) -> None:
        time.sleep(0.5)
        reply()(one, head)

    host = far(slow)
    courier: Stand = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    key = courier.new_key()
    courier.request(f"http://api.test:{host.port}/", "once", key=key, method="POST", wait=False)
    eventually(lambda: host.requests)
    courier.stop(20.0)
    assert courier.ended(key).status == "ok"
