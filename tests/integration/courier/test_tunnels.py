"""CONNECT through the proxy: who gets through, what passes, how it ends."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

import pytest

from homeostat.proto import egress, messages as m
from homeostat.proto.config import Config, Courier as Limits, Egress
from homeostat.proto.ids import TaskId
from homeostat.workers.courier import sessions, shell
from tests.fakes.far_host import echo
from tests.integration.courier.conftest import MakeHost, MakeStand
from tests.integration.courier.stand import LOOPBACK, PATIENCE_S, Sandbox, agent, all_of, eventually

NAMES = {"api.test": ["127.0.0.1"]}


def tunnel(sandbox: Sandbox, authority: str) -> socket.socket:
    """A tunnel that is open."""
    one = sandbox.dial()
    one.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        more = one.recv(1)
        assert more, answer
        answer += more
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    return one


def test_tunnel_carries_both_ways_when_the_host_is_listed(stand: MakeStand, far: MakeHost) -> None:
    """Bytes go and come back, a half-closed end is passed on, and one Connection tells of it."""
    host = far(echo, heads=False)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    sandbox = courier.sandbox()
    with tunnel(sandbox, f"api.test:{host.port}") as one:
        one.sendall(b"x" * 100_000)
        one.shutdown(socket.SHUT_WR)
        assert all_of(one) == b"x" * 100_000
    told = courier.connection(sandbox.key)
    assert (told.host, told.port, told.address, told.method) == (
        "api.test",
        host.port,
        "127.0.0.1",
        "CONNECT",
    )
    assert (told.verdict, told.reason, told.sent_bytes, told.received_bytes) == ("open", "", 100_000, 100_000)
    assert told.duration_s > 0


def test_tunnel_carries_what_came_with_the_head(stand: MakeStand, far: MakeHost) -> None:
    """A client that does not wait for the answer loses nothing."""
    host = far(echo, heads=False)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    with courier.sandbox().dial() as one:
        one.sendall(f"CONNECT api.test:{host.port} HTTP/1.1\r\n\r\nearly".encode())
        one.shutdown(socket.SHUT_WR)
        assert all_of(one).endswith(b"\r\n\r\nearly")


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("evil.test:{port}", b"evil.test:{port} is not in the egress list of agent 'web'"),
        ("api.test:1", b"api.test:1 is not in the egress list"),
        ("sub.api.test:{port}", b"is not in the egress list"),
        ("api.test.evil.test:{port}", b"is not in the egress list"),
        ("127.0.0.1:{port}", b"is not in the egress list"),
        ("localhost:{port}", b"is not in the egress list"),
    ],
)
def test_tunnel_is_refused_when_host_or_port_is_another(
    stand: MakeStand, far: MakeHost, destination: str, words: bytes
) -> None:
    """403 with the reason in the status line, the remedy in the body, and a Connection that says refused."""
    host = far(echo, heads=False)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=lambda _: ["127.0.0.1"])
    sandbox = courier.sandbox()
    answer = sandbox.ask(f"CONNECT {destination.format(port=host.port)} HTTP/1.1\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert words.replace(b"{port}", str(host.port).encode()) in answer.partition(b"\r\n")[0]
    assert b"Allowed: api.test:%d." % host.port in answer
    assert courier.connection(sandbox.key).verdict == "refused"
    assert host.accepted == 0


@pytest.mark.parametrize(
    "agents", [(agent(),), (), (agent(Egress("bad host")),), (agent(Egress("a.test", (0,))),)]
)
def test_nothing_is_reached_when_the_list_is_empty_or_cannot_be_read(
    stand: MakeStand, far: MakeHost, agents: tuple[object, ...]
) -> None:
    """52, 53: an empty list, an unknown agent and a list with a fault all mean nothing."""
    host = far(echo, heads=False)
    courier = stand(*agents, names=lambda _: ["127.0.0.1"])
    answer = courier.sandbox().ask(f"CONNECT a.test:{host.port} HTTP/1.1\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert host.accepted == 0


def test_a_listed_entry_does_not_help_when_another_of_the_list_is_faulty(
    stand: MakeStand, far: MakeHost
) -> None:
    """53: half a list is no list."""
    host = far(echo, heads=False)
    good, bad = Egress("api.test", (host.port,), LOOPBACK), Egress("127.1", (443,))
    courier = stand(agent(good, bad), names=NAMES)
    answer = courier.sandbox().ask(f"CONNECT api.test:{host.port} HTTP/1.1\r\n\r\n".encode())
    assert b"the egress list of agent 'web' can't be used" in answer
    assert host.accepted == 0


def test_nothing_is_served_before_the_gate_permits_it(stand: MakeStand, far: MakeHost) -> None:
    """A listener waits for its permit; one of another task is never served."""
    host = far(echo, heads=False)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    key = courier.new_key()
    sandbox = courier.offer(key)
    with sandbox.dial() as one:
        one.sendall(f"CONNECT api.test:{host.port} HTTP/1.1\r\n\r\n".encode())
        one.settimeout(0.3)
        with pytest.raises(TimeoutError):
            one.recv(1)
        one.settimeout(PATIENCE_S)
        courier.permit(key)
        assert one.recv(12) == b"HTTP/1.1 200"
    other = courier.offer(courier.new_key(), TaskId("t2"))
    courier.permit(other.key)
    assert other.connection.recv(1) == b""


def test_an_offer_is_not_heard_when_its_descriptor_is_no_listener(stand: MakeStand) -> None:
    """A file, an unconnected socket, two descriptors, none, words that are none: hung up, and all closed."""
    courier = stand(agent())
    packet = egress.encode(egress.Offer(courier.new_key(), TaskId("t1")))
    with open("/dev/null", "rb") as null, socket.socket() as plain:
        for data, fds in (
            (packet, [null.fileno()]),
            (packet, [plain.fileno()]),
            (packet, [plain.fileno(), null.fileno()]),
            (packet, []),
            (b"\x00" * 100, [null.fileno()]),
            (packet + b"\x00" * 4_096, [null.fileno()]),
        ):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one:
                one.connect(courier.path)
                one.settimeout(PATIENCE_S)
                socket.send_fds(one, [data], fds)
                assert one.recv(1) == b""


def test_an_offer_is_not_heard_when_another_user_makes_it(
    stand: MakeStand, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The kernel says who connected; here the executor would be somebody else than we are."""
    monkeypatch.setattr(shell, "executors_uid", lambda _: os.geteuid() + 1)
    courier = stand(agent())
    packet = egress.encode(egress.Offer(courier.new_key(), TaskId("t1")))
    kind = (socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(*kind) as one:
        one.connect(courier.path)
        one.settimeout(PATIENCE_S)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # It may hang up before that.
            socket.send_fds(one, [packet], [listener.fileno()])
            assert one.recv(1) == b""
    courier.stop()  # What it printed is there by then.
    assert "was not heard" in capfd.readouterr().err


def test_executor_has_a_user_of_its_own_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two above ours where we have the courier's; else everybody is who started us."""
    base = Config().users.base
    monkeypatch.setattr(os, "geteuid", lambda: base + 5)
    assert shell.executors_uid(Config()) == base + 3
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    assert shell.executors_uid(Config()) == 1_000


def test_an_error_of_our_own_ends_one_connection(
    stand: MakeStand, far: MakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is in the log and in the record; the next connection is served."""
    host = far(echo, heads=False)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    sandbox = courier.sandbox()

    def broken(_: bytes) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(sessions, "parse_request", broken)
        assert sandbox.ask(b"CONNECT api.test:443 HTTP/1.1\r\n\r\n") == b""
    assert "a bug" in capfd.readouterr().err
    assert "an error of the courier's own" in courier.connection(sandbox.key).reason
    tunnel(sandbox, f"api.test:{host.port}").close()


def test_everything_of_a_call_ends_when_its_sandbox_ends_or_the_gate_forgets_it(
    stand: MakeStand, far: MakeHost
) -> None:
    """Open tunnels are cut and told at once; the listener is closed."""
    host = far(echo, heads=False)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    for end in (Sandbox.end, lambda one: courier.say(m.Forget(one.key))):
        sandbox = courier.sandbox()
        with tunnel(sandbox, f"api.test:{host.port}") as one:
            end(sandbox)
            assert all_of(one) == b""
        assert courier.connection(sandbox.key).reason == "the command ended"
        with pytest.raises(ConnectionRefusedError):
            sandbox.dial()


def test_a_permit_ends_with_its_time(stand: MakeStand, far: MakeHost) -> None:
    """Then the way out is shut, though its sandbox lives."""
    host = far(echo, heads=False)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    key = courier.new_key()
    courier.permit(key, timeout_s=0.5)
    sandbox = courier.offer(key)
    with tunnel(sandbox, f"api.test:{host.port}") as one:
        assert all_of(one) == b""
    assert sandbox.connection.recv(1) == b""


def test_a_slow_reader_holds_back_the_host_and_no_memory(stand: MakeStand, far: MakeHost) -> None:
    """64 MB for somebody who does not read: the courier takes what the sockets and one buffer hold."""
    size = 64 << 20
    gone: list[int] = []

    def flood(one: socket.socket, _head: bytes) -> None:
        block = b"z" * (1 << 20)
        for _ in range(size // len(block)):
            one.sendall(block)
            gone.append(len(block))

    host = far(flood, heads=False)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    with tunnel(courier.sandbox(), f"api.test:{host.port}") as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        eventually(lambda: gone)
        stands_still(gone)
        assert sum(gone) < size // 2
        received = 0
        while part := one.recv(1 << 20):
            received += len(part)
        assert received == size


def stands_still(list_: list[int]) -> None:
    """Wait until nothing is added any more."""
    before = -1
    while before != len(list_):
        before = len(list_)
        time.sleep(0.3)


def test_connections_beyond_the_share_of_a_call_wait_their_turn(stand: MakeStand, far: MakeHost) -> None:
    """Of 300 at once no more than the call's share is dialled at a time, and all get through in the end."""
    lock, now, most = threading.Lock(), [0], [0]

    def hold(one: socket.socket, _: bytes) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        one.recv(1)
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        one.sendall(b"ok")

    host = far(hold, heads=False)
    limits = Limits(connections=16, connections_per_call=8)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES, limits=limits)
    sandbox = courier.sandbox()
    opened = [sandbox.dial() for _ in range(300)]
    for one in opened:
        one.sendall(f"CONNECT api.test:{host.port} HTTP/1.1\r\n\r\nx".encode())
    answers = []
    for one in opened:
        with one:
            answers.append(all_of(one))
    assert all(answer.endswith(b"\r\n\r\nok") for answer in answers)
    assert 1 < most[0] <= 8
    eventually(lambda: len(courier.connections(sandbox.key)) + courier.more(sandbox.key) == 300)
    assert len(courier.connections(sandbox.key)) == 256
    assert courier.more(sandbox.key) == 44


def test_connections_are_refused_when_the_host_does_not_answer(stand: MakeStand) -> None:
    """A closed port is a 502 that says so; a resolver that does not answer is one in bounded time."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    limits = Limits(dial_s=1.0)

    def names(host: str) -> list[str]:
        if host == "slow.test":
            time.sleep(5)
        return ["127.0.0.1"]

    entries = (Egress("api.test", (port,), LOOPBACK), Egress("slow.test", (port,), LOOPBACK))
    courier = stand(agent(*entries), names=names, limits=limits)
    sandbox = courier.sandbox()
    assert b"502 no connection to the host: 127.0.0.1: connection refused" in sandbox.ask(
        f"CONNECT api.test:{port} HTTP/1.1\r\n\r\n".encode()
    )
    assert sandbox.ask(f"CONNECT slow.test:{port} HTTP/1.1\r\n\r\n".encode()).startswith(b"HTTP/1.1 504 ")
    assert {one.verdict for one in courier.connections(sandbox.key)} <= {"failed"}


def test_a_restarted_courier_serves_what_is_offered_and_permitted_again(
    stand: MakeStand, far: MakeHost
) -> None:
    """Its death hangs up on executors and commands; what it knew it is told again."""
    host = far(echo, heads=False)
    courier = stand(agent(Egress("api.test", (host.port,), LOOPBACK)), names=NAMES)
    sandbox = courier.sandbox()
    with tunnel(sandbox, f"api.test:{host.port}") as one:
        courier.stop()
        assert all_of(one) == b""
    assert sandbox.connection.recv(1) == b""
    courier.start()
    again = courier.offer(sandbox.key)
    courier.permit(sandbox.key)
    tunnel(again, f"api.test:{host.port}").close()
