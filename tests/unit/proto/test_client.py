"""The blocking client against a real ROUTER that drops, dies and refuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from homeostat.proto import wire
from homeostat.proto.client import Client
from homeostat.proto.conversation import Exchange, WireRefusedError
from homeostat.proto.errors import HomeError, RefusedError, UnreachableError
from tests.fakes.wire_gate import WireGate, local, serving


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[WireGate]:
    """A gate on the client port of a home."""
    yield from serving(local(tmp_path))


@pytest.fixture
def client(gate: WireGate, tmp_path: Path) -> Iterator[Client]:
    """A client of that home."""
    with Client.for_home(tmp_path, timeout_s=5) as client:
        yield client


def test_submit_gives_the_task_when_taken_in(gate: WireGate, client: Client) -> None:
    """A submit without a key gets one, so that repeating it is harmless."""
    answer = client.submit("count")
    assert answer.created
    assert answer.task in gate.tasks
    (request,) = gate.requests
    assert isinstance(request, wire.Submit)
    assert len(request.key) == 32


def test_submit_makes_one_task_when_the_first_request_is_lost(
    gate: WireGate, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A swallowed request is sent again with the same key and id."""
    monkeypatch.setattr("homeostat.proto.conversation.RESEND_S", 0.05)
    gate.drop = 1
    client.submit("count")
    assert len(gate.tasks) == 1


def test_submit_makes_one_task_when_the_gate_dies_with_the_request(gate: WireGate, client: Client) -> None:
    """A new connection is the sign that the old one's words may be lost."""
    client.status()
    gate.drop = 1
    restart = threading.Timer(0.1, die_and_return, (gate,))
    restart.start()
    client.submit("count", key="k1")
    restart.join()
    assert len(gate.tasks) == 1
    assert not client.submit("count", key="k1").created


def test_ask_raises_the_refusal_when_refused(client: Client) -> None:
    """The wire's refusal is in the error, and in what a person is shown."""
    with pytest.raises(RefusedError) as caught:
        client.get("t0")
    assert isinstance(caught.value, WireRefusedError)
    assert caught.value.refusal.code == "unknown_task"
    assert "unknown_task" in caught.value.diagnostics()
    assert caught.value.exit_code == 3


def test_submit_is_refused_when_too_large(gate: WireGate, client: Client) -> None:
    """What the gate would not read is not sent, and the refusal has the gate's code."""
    with pytest.raises(WireRefusedError) as caught:
        client.submit("x" * (100 << 20))
    assert caught.value.refusal.code == "too_large"
    assert gate.requests == []


def test_ask_raises_unreachable_when_nobody_answers_in_time(gate: WireGate, tmp_path: Path) -> None:
    """A gate that is connected and silent is given up."""
    gate.drop = 100
    with Client.for_home(tmp_path, timeout_s=0.2) as client, pytest.raises(UnreachableError):
        client.status()


def test_for_home_raises_unreachable_when_there_is_no_socket(tmp_path: Path) -> None:
    """A home without a supervisor is told at once, with the remedy."""
    with pytest.raises(UnreachableError, match="no supervisor"):
        Client.for_home(tmp_path)


def test_for_home_raises_unreachable_when_the_socket_is_a_leftover(tmp_path: Path) -> None:
    """A socket file that nobody listens on is not waited for."""
    gate = WireGate(local(tmp_path))
    path = tmp_path / "run" / "client.sock"
    path.rename(tmp_path / "kept")
    gate.stop()
    (tmp_path / "kept").rename(path)
    with pytest.raises(UnreachableError, match="no supervisor answers"):
        Client.for_home(tmp_path)


def test_for_home_raises_when_the_path_is_too_long(tmp_path: Path) -> None:
    """Unix socket paths end at 107 bytes."""
    with pytest.raises(HomeError, match="too long"):
        Client.for_home(tmp_path / ("h" * 120))


def test_watch_ends_when_the_task_has_ended(gate: WireGate, client: Client) -> None:
    """Events come once each and in order, over several batches."""
    gate.add_task("t1")
    gate.add_task("t2")
    for number in range(5):
        gate.record("t1", "event", step=number, rule="", message="")
        gate.record("t2", "event", step=number, rule="", message="")
    gate.record("t1", "status", status="done", reason="", result="")
    assert [event.position for event in client.watch("t1", limit=2)] == [1, 3, 5, 7, 9, 11]


def test_watch_goes_on_from_its_cursor_when_the_gate_restarts(gate: WireGate, client: Client) -> None:
    """A watch held by a gate that dies is asked again of the next one; nothing is missed or repeated."""
    gate.add_task("t1")
    gate.record("t1", "event", step=1, rule="", message="")
    seen = []
    for event in client.watch("t1"):
        seen.append(event.position)
        if event.position == 1:
            threading.Timer(0.1, restart_and_end, (gate,)).start()
    assert seen == [1, 2, 3]


def die_and_return(gate: WireGate) -> None:
    """What a SIGKILL and the supervisor do to a gate."""
    gate.stop()
    gate.start()


def restart_and_end(gate: WireGate) -> None:
    """Die while a watch is held; come back with two more events."""
    die_and_return(gate)
    gate.record("t1", "event", step=2, rule="", message="")
    gate.record("t1", "status", status="done", reason="", result="")


def test_history_ends_when_there_is_no_more(gate: WireGate, client: Client) -> None:
    """The events there are, of a task that goes on."""
    gate.add_task("t1")
    gate.record("t1", "event", step=1, rule="", message="")
    assert [event.position for event in client.history("t1")] == [1]


def test_show_joins_all_pages(gate: WireGate, client: Client) -> None:
    """Five steps in pages of two are five steps."""
    gate.add_task("t1", steps=5)
    assert [step.step for step in client.show("t1").steps] == [1, 2, 3, 4, 5]


def test_client_reaches_the_gate_over_tcp_when_its_key_is_known() -> None:
    """CURVE with a pair of one's own."""
    public, secret = zmq.curve_keypair()

    def configure(socket: zmq.Socket[bytes]) -> None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, secret)

    gate = WireGate("tcp://127.0.0.1:*", configure)
    mine = tuple(key.decode() for key in zmq.curve_keypair())
    try:
        with Client(
            gate.endpoint, server_key=public.decode(), keys=(mine[0], mine[1]), timeout_s=5
        ) as client:
            assert client.status().ready
    finally:
        gate.stop()


def test_exchange_keeps_its_patience_when_reconnected() -> None:
    """A short absence of the gate must not shorten a held watch for good."""
    exchange = Exchange(wire.Watch(rid="r", wait_s=20.0), wire.Events, now=0.0, timeout_s=5.0, held_s=20.0)
    exchange.disconnected(1.0)
    assert exchange.pause_s(1.0) <= 5.0
    exchange.connected(2.0)
    assert exchange.due(2.0)
    assert exchange.pause_s(20.0) > 0.0
    with pytest.raises(UnreachableError):
        exchange.pause_s(27.0)


def test_exchange_ignores_answers_when_they_are_anothers() -> None:
    """A late answer to a former request is not taken for this one's."""
    from homeostat.proto.codec import encode

    exchange = Exchange(wire.Status(rid="mine"), wire.StatusReply, now=0.0, timeout_s=5.0)
    assert exchange.take(encode(wire.Cancelled(rid="theirs", task="t", status="done"))) is None
