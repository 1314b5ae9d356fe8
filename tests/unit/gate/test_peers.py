"""The gate's ends of its links, over a real ROUTER: who may speak, and what a full mailbox does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from homeostat.proto import link, messages as m
from homeostat.proto.codec import LINK_LIMIT_BYTES
from homeostat.proto.ids import Key, Role, TaskId, identity
from homeostat.proto.transport import dealer, router
from homeostat.workers.gate.peers import Peers

SECRET = b"s" * 16


class Wire:
    """A ROUTER with its peers, and one DEALER that claims to be somebody."""

    def __init__(self, folder: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.listener.bind(str(folder / "s"))
        self.listener.listen()
        self.zmq: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.router = router(self.zmq, self.listener.fileno(), LINK_LIMIT_BYTES)
        self.peers = Peers(self.router, 9)
        self.peers.allow(m.Epochs((m.Incarnation("brain", 0, 3, SECRET),)))
        self.dealer = dealer(self.zmq, f"ipc://{folder}/s", identity("brain", 0, 3))

    def hello(self, role: Role = "brain", index: int = 0, epoch: int = 3, secret: bytes = SECRET) -> Any:
        """Greet; give what the gate takes from it."""
        self.dealer.send(link.encode(m.Hello(link.VERSION, role, index, epoch, secret, 1)))
        return self.arrived()

    def arrived(self) -> list[Any]:
        """What came from the worker."""
        assert self.router.poll(10_000)
        return [message for _, message in self.peers.receive(0.0)]

    def close(self) -> None:
        """Take it down."""
        self.zmq.destroy(linger=0)
        self.listener.detach()  # ZMQ_USE_FD: closed with the socket


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    """A fresh wire."""
    wire = Wire(tmp_path)
    yield wire
    wire.close()


def test_peers_welcome_the_living_incarnation_once(wire: Wire) -> None:
    """A repeated Hello is welcomed again and told to nobody again."""
    assert [type(one) for one in wire.hello()] == [m.Hello]
    assert wire.hello() == []
    assert wire.peers.names() == ["brain.0.3"]
    for _ in range(2):
        assert wire.dealer.poll(10_000)
        assert link.decode_to_worker(wire.dealer.recv()) == m.Welcome(link.VERSION, 9, 1)


@pytest.mark.parametrize(
    "lie", [{"secret": b"guess"}, {"role": "executor"}, {"index": 1}, {"epoch": 4}, {"role": "memory"}]
)
def test_peers_drop_a_greeting_that_is_not_its_senders_own(wire: Wire, lie: dict[str, Any]) -> None:
    """A brain with its own secret can't become an executor."""
    assert wire.hello(**lie) == []
    assert wire.peers.names() == []
    assert wire.peers.dropped == 1


def test_peers_drop_words_before_a_greeting_and_of_the_dead(wire: Wire) -> None:
    """Frames without a Hello, and frames of an incarnation that the supervisor struck off."""
    frame: link.Data[Any] = link.Data(3, 9, 1, 0, (m.Followed("x", 1),))
    wire.dealer.send(link.encode(frame))
    assert wire.arrived() == []
    wire.hello()
    wire.dealer.send(link.encode(frame))
    assert wire.arrived() == [m.Followed("x", 1)]
    wire.peers.allow(m.Epochs((m.Incarnation("brain", 0, 4, SECRET),)))
    wire.dealer.send(link.encode(link.Data(3, 9, 2, 0, (m.Followed("x", 2),))))
    assert wire.arrived() == []
    assert wire.peers.epoch_of("brain", 0) is None


@pytest.mark.parametrize("data", [b"", b"\xc1", b"x" * 1_000])
def test_peers_drop_garbage(wire: Wire, data: bytes) -> None:
    """Counted, and the link lives on."""
    wire.hello()
    wire.dealer.send(data)
    assert wire.arrived() == []
    assert wire.peers.dropped == 1
    wire.dealer.send(link.encode(link.Data(3, 9, 1, 0, (m.Followed("x", 1),))))
    assert wire.arrived() == [m.Followed("x", 1)]


def test_peers_give_up_a_worker_whose_mailbox_is_full(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named once, to be killed; the gate goes on, and its successor begins afresh."""
    monkeypatch.setattr(link, "OUTBOX_LIMIT", 3)
    wire.hello()
    for number in range(6):
        wire.peers.post("brain", 0, m.Drop(TaskId(str(number))))
    assert [(peer.role, peer.index, peer.epoch) for peer in wire.peers.take_stuck()] == [("brain", 0, 3)]
    assert wire.peers.take_stuck() == []
    assert wire.peers.names() == []
    assert wire.peers.due() is None


def test_peers_tell_how_much_mail_waits(wire: Wire) -> None:
    """Until it is acknowledged, whether it was sent or not."""
    wire.hello()
    for number in range(3):
        wire.peers.post("brain", 0, m.Drop(TaskId(str(number))))
    wire.peers.flush(0.0)
    assert wire.peers.mailboxes() == {"brain.0": 3}
    wire.dealer.send(link.encode(link.Data(3, 9, 1, 2, (m.Followed("x", 1),))))
    wire.arrived()
    assert wire.peers.mailboxes() == {"brain.0": 1}


def test_peers_queue_nothing_for_a_worker_that_is_away(wire: Wire) -> None:
    """It gets its state afresh when it comes."""
    wire.peers.post("executor", 0, m.Forget(Key("k")))
    assert wire.peers.due() is None
