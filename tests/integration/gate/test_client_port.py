"""The client port of a real gate process: framing, garbage, CURVE keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import zmq

from homeostat.proto import codec, messages as m, wire
from homeostat.proto.config import Agent, Client, Config
from homeostat.supervisor.listeners import address_of
from tests.integration.gate.gate_world import GateWorld, ask

AGENT = (Agent(name="default", provider="chat"),)
MakeWorld = Callable[[Config], GateWorld]


@pytest.fixture
def world(new_world: MakeWorld) -> GateWorld:
    """A gate that serves."""
    world = new_world(Config(agent=AGENT))
    world.start()
    assert isinstance(world.hear(), m.Ready)
    return world


@pytest.fixture
def dealer(world: GateWorld) -> Iterator[zmq.Socket[bytes]]:
    """A client's DEALER."""
    with world.client() as sock:
        yield sock


@pytest.fixture
def req(world: GateWorld) -> Iterator[zmq.Socket[bytes]]:
    """A client's REQ."""
    with world.client(zmq.REQ) as sock:
        yield sock


def test_port_answers_dealer_and_req_alike(dealer: zmq.Socket[bytes], req: zmq.Socket[bytes]) -> None:
    """With and without the empty delimiter; each answer has its request's id."""
    for sock in (dealer, req):
        reply = ask(sock, wire.Status(rid="mine"))
        assert isinstance(reply, wire.StatusReply)
        assert reply.rid == "mine"


def test_port_refuses_100_mb_of_garbage_with_a_typed_answer(dealer: zmq.Socket[bytes]) -> None:
    """The connection lives on: the next request is answered."""
    dealer.send(b"\xc1" * (100 << 20), copy=False)
    assert dealer.poll(60_000)
    refused = codec.decode_reply(dealer.recv())
    assert isinstance(refused, wire.Refused)
    assert (refused.code, refused.message) == ("too_large", f"request of {100 << 20} bytes")
    assert isinstance(ask(dealer, wire.Status()), wire.StatusReply)


@pytest.mark.parametrize("frames", [[b""], [b"", b""], [b"\xff" * 10], [b"a", b"b", b"c"], [b"", b"x", b""]])
def test_port_answers_every_framing(dealer: zmq.Socket[bytes], frames: list[bytes]) -> None:
    """Garbage in any number of frames is refused, never met with silence."""
    dealer.send_multipart(frames)
    assert dealer.poll(10_000)
    assert isinstance(codec.decode_reply(dealer.recv_multipart()[-1]), wire.Refused)


def test_port_survives_numbers_at_the_end_of_their_range(dealer: zmq.Socket[bytes]) -> None:
    """A cursor or a page beyond everything is a refusal or an empty page, not the end of the gate."""
    most = (1 << 64) - 1
    for request in (
        wire.Watch(cursor=most),
        wire.Watch(cursor=-1),
        wire.Watch(cursor=(1 << 63) - 1),
        wire.Watch(wait_s=float("nan")),
        wire.List(before=most),
        wire.List(before=-5),
        wire.List(limit=most),
        wire.Get(task="t" * 10_000),
        wire.Get(task="tnobody", from_step=most),
        wire.Cancel(task="\0"),
        wire.Resolve(task="x", key="y", answer="z"),
    ):
        assert isinstance(ask(dealer, request), wire.Reply)
    assert isinstance(ask(dealer, wire.Status()), wire.StatusReply)


def test_port_pipelines_a_submit_and_what_follows_it(dealer: zmq.Socket[bytes]) -> None:
    """Requests behind an uncommitted submit in the same round are answered, not refused or fatal."""
    requests: list[wire.Request] = [
        wire.Submit(rid="a", objective="o", key="k"),
        wire.List(rid="b"),
        wire.Submit(rid="c", objective="o", key="k"),
        wire.Status(rid="d"),
    ]
    for request in requests:
        dealer.send(codec.encode(request))
    replies = {}
    for _ in requests:
        assert dealer.poll(10_000)
        reply = codec.decode_reply(dealer.recv())
        replies[reply.rid] = reply
    first, second = replies["a"], replies["c"]
    assert isinstance(first, wire.Submitted)
    assert isinstance(second, wire.Submitted)
    assert (first.task, first.created, second.created) == (second.task, True, False)
    assert isinstance(replies["b"], wire.Tasks)


def test_port_follows_for_a_dealer_and_gives_a_req_one_batch(
    dealer: zmq.Socket[bytes], req: zmq.Socket[bytes]
) -> None:
    """A watch is a cursor: both see the same events, and ended with the last."""
    submitted = ask(dealer, wire.Submit(objective="o"))
    dealer.send(codec.encode(wire.Watch(rid="w", task=submitted.task, follow=True)))
    ask(req, wire.Cancel(task=submitted.task))
    events: list[wire.Event] = []
    ended = False
    while not ended:
        assert dealer.poll(10_000)
        batch = codec.decode_reply(dealer.recv())
        assert isinstance(batch, wire.Events)
        events += batch.events
        ended = batch.ended
    assert [event.kind for event in events] == ["accepted", "cancel_requested", "status"]
    once = ask(req, wire.Watch(task=submitted.task, follow=True))
    assert (once.events, once.ended) == (events, True)
    rest = ask(req, wire.Watch(task=submitted.task, cursor=once.cursor))
    assert (rest.events, rest.ended) == ([], True)


def test_port_lets_in_remote_clients_with_an_authorized_key_alone(new_world: MakeWorld) -> None:
    """CURVE over TCP: the right key works, a stranger's and a plain connection are never answered."""
    mine, stranger = zmq.curve_keypair(), zmq.curve_keypair()
    world = new_world(
        Config(agent=AGENT, client=Client(listen="127.0.0.1:0", authorized_keys=(mine[0].decode(),)))
    )
    world.start()
    assert isinstance(world.hear(), m.Ready)
    assert world.listeners.client_tcp is not None
    endpoint = f"tcp://{address_of(world.listeners.client_tcp)}"
    server_key = (world.home / "keys" / "server.pub").read_bytes().strip()
    assert (world.home / "keys" / "server.secret").stat().st_mode & 0o777 == 0o600

    def connected(keys: tuple[bytes, bytes] | None) -> zmq.Socket[bytes]:
        sock = world.zmq.socket(zmq.DEALER)
        sock.setsockopt(zmq.LINGER, 0)
        if keys is not None:
            sock.curve_publickey, sock.curve_secretkey = keys
            sock.curve_serverkey = server_key
        sock.connect(endpoint)
        return sock

    with connected(mine) as sock:
        submitted = ask(sock, wire.Submit(objective="o", key="k"))
        assert isinstance(submitted, wire.Submitted)
    for keys in (stranger, None):
        with connected(keys) as sock:
            sock.send(codec.encode(wire.Status()))
            assert sock.poll(500) == 0
    with world.client() as local:
        other = ask(local, wire.Submit(objective="o", key="k"))
        assert other.task != submitted.task, "a key belongs to the client that chose it"
