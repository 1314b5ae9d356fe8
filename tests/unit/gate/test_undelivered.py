"""What the gate's own words to workers come to when nobody gets them: a letter each, and no error."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from homeostat.proto import codec, link, messages as m, wire
from homeostat.proto.ids import Key, TaskId, identity
from homeostat.proto.transport import dealer, router
from homeostat.workers.gate.clients import Delivery, Sender
from homeostat.workers.gate.letters import Letter, Letters
from homeostat.workers.gate.peers import Peers

SECRET = b"s" * 16
PLACES = frozenset({("brain", 0), ("executor", 0)})


class Post:
    """Peers over a real socket, with a ring and one welcomed brain."""

    def __init__(self, folder: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.listener.bind(str(folder / "s"))
        self.listener.listen()
        self.zmq: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.ring = Letters(folder / "letters")
        self.router = router(self.zmq, self.listener.fileno(), codec.LINK_LIMIT_BYTES)
        self.peers = Peers(self.router, 9, self.ring, PLACES)
        self.peers.allow(m.Epochs((m.Incarnation("brain", 0, 3, SECRET),)))
        self.dealer = dealer(self.zmq, f"ipc://{folder}/s", identity("brain", 0, 3))
        self.dealer.send(link.encode(m.Hello(link.VERSION, "brain", 0, 3, SECRET, 1)))
        assert self.router.poll(10_000)
        assert len(list(self.peers.receive(0.0))) == 1

    @property
    def letters(self) -> list[Letter]:
        """All, newest first."""
        return self.ring.page(9)


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    """A fresh one."""
    post = Post(tmp_path)
    yield post
    post.zmq.destroy(linger=0)
    post.listener.detach()  # ZMQ_USE_FD: closed with the socket
    post.ring.close()


def test_message_leaves_a_letter_when_there_is_no_such_worker(post: Post) -> None:
    """One that is only away gets its state afresh and leaves none."""
    post.peers.post("executor", 7, m.Forget(Key("k")))
    post.peers.post("executor", 0, m.Forget(Key("k")))
    (letter,) = post.letters
    assert (letter.reason, letter.subject, letter.sender) == ("unknown_destination", "forget k", "gate")
    assert "executor.7" in letter.detail
    assert codec.TO_WORKER.decode(letter.data) == m.Forget(Key("k"))


def test_message_leaves_a_letter_when_a_mailbox_is_full(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the message that no longer fitted."""
    monkeypatch.setattr(link, "OUTBOX_LIMIT", 3)
    for number in range(6):
        post.peers.post("brain", 0, m.Drop(TaskId(f"t{number}")))
    (letter,) = post.letters
    assert (letter.reason, letter.subject) == ("overflow", "drop t3")
    assert "brain.0" in letter.detail


def test_message_is_not_sent_when_its_subject_is_put_aside(post: Post) -> None:
    """A brain that dies of it never gets it again; others go their way."""
    post.peers.aside = {"drop t1": object()}
    for name in ("t1", "t2"):
        post.peers.post("brain", 0, m.Drop(TaskId(name)))
    post.peers.flush(0.0)
    heard: list[Any] = []
    while post.dealer.poll(1_000 if not heard else 100):
        frame = link.decode_to_worker(post.dealer.recv())
        heard += [] if isinstance(frame, m.Welcome) else frame.messages
    assert heard == [m.Drop(TaskId("t2"))]
    assert [(one.reason, one.subject) for one in post.letters] == [("quarantined", "drop t1")]


def test_answer_leaves_a_letter_when_its_client_does_not_read(tmp_path: Path) -> None:
    """Or is gone; a batch of events leaves none, since it will be asked for again."""
    ring = Letters(tmp_path / "letters")
    with zmq.Context() as context, context.socket(zmq.ROUTER) as sock, context.socket(zmq.DEALER) as client:
        sock.setsockopt(zmq.ROUTER_MANDATORY, 1)
        sock.setsockopt(zmq.SNDHWM, 2)
        sock.bind("inproc://clients")
        client.setsockopt(zmq.IDENTITY, b"me")
        client.setsockopt(zmq.RCVHWM, 2)
        client.connect("inproc://clients")
        sender = Sender(sock, b"me", False, "local", letters=ring)
        reply = wire.Cancelled(task="t", status="cancelled")
        assert [sender.answer(reply) for _ in range(5)][-1] is Delivery.FULL
        nobody = Sender(sock, b"nobody", False, "local", letters=ring)
        assert nobody.answer(reply) is Delivery.LOST
        assert nobody.answer(wire.Events(cursor=1, events=[])) is Delivery.LOST
    found = [(one.reason, one.subject) for one in ring.page(9)]
    assert found == [("unknown_destination", "client cancelled"), ("overflow", "client cancelled")]
    ring.close()
