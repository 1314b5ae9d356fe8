"""The sans-I/O link: exactly once, in order, whatever a transport does, for a pair of incarnations."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from homeostat.proto import link, messages as m
from homeostat.proto.codec import LINK_LIMIT_BYTES
from homeostat.proto.errors import MessageTooLargeError, ProtocolError
from homeostat.proto.ids import Key, TaskId

AnyLink = link.Link[Any, Any]


def word(number: int) -> m.Followed:
    """A message of a worker that can be told from all others."""
    return m.Followed("x", number)


def pair() -> tuple[AnyLink, AnyLink]:
    """A worker's and a gate's end that have met."""
    worker, gate = link.Link[Any, Any](7), link.Link[Any, Any](3)
    gate.meet(7, worker.first_seq)
    worker.meet(3, gate.first_seq)
    return worker, gate


def carry(sender: AnyLink, receiver: AnyLink, now_s: float) -> list[Any]:
    """Carry all that is to be sent now, as bytes; give what arrived."""
    frames = [link.encode(frame) for frame in sender.frames(now_s)]
    got: list[Any] = []
    for data in frames:
        frame = link.decode_from_worker(data)
        assert isinstance(frame, link.Data)
        got += receiver.receive(frame, now_s)
    return got


def test_link_gives_messages_in_order_when_nothing_is_lost() -> None:
    """A thousand messages cross several frames and stay in order."""
    worker, gate = pair()
    for number in range(1_000):
        worker.post(word(number))
    assert carry(worker, gate, 0.0) == [word(number) for number in range(1_000)]


def test_link_keeps_messages_until_acknowledge_was_called() -> None:
    """Receiving is not enough: the ack follows the caller's own sync."""
    worker, gate = pair()
    worker.post(word(1))
    assert carry(worker, gate, 0.0) == [word(1)]
    gate.post(m.Forget(Key("a")))
    for frame in gate.frames(0.0):
        worker.receive(frame, 0.0)
    assert worker.unacknowledged == 1
    gate.acknowledge(0.0)
    for frame in gate.frames(link.ACK_DELAY_S):
        worker.receive(frame, 0.0)
    assert worker.unacknowledged == 0


def test_link_resends_when_no_ack_came_in_time() -> None:
    """A lost frame is sent again after RESEND_S, not before."""
    worker, gate = pair()
    worker.post(word(1))
    assert len(list(worker.frames(0.0))) == 1
    assert worker.due() == link.RESEND_S
    assert list(worker.frames(link.RESEND_S * 0.9)) == []
    assert carry(worker, gate, link.RESEND_S) == [word(1)]


def test_link_answers_a_repetition_at_once_when_its_ack_was_lost() -> None:
    """The sender repeats because it missed the ack: it gets one immediately."""
    worker, gate = pair()
    worker.post(word(1))
    carry(worker, gate, 0.0)
    gate.acknowledge(0.0)
    assert len(list(gate.frames(link.ACK_DELAY_S))) == 1
    assert carry(worker, gate, link.RESEND_S) == []
    assert gate.due() == link.RESEND_S
    for frame in gate.frames(link.RESEND_S):
        worker.receive(frame, link.RESEND_S)
    assert worker.unacknowledged == 0


def test_link_has_nothing_to_do_when_idle() -> None:
    """No beats: with everything acknowledged there is no due time, on either side."""
    worker, gate = pair()
    assert (worker.due(), gate.due()) == (None, None)
    worker.post(word(1))
    carry(worker, gate, 0.0)
    gate.acknowledge(0.0)
    for frame in gate.frames(link.ACK_DELAY_S):
        worker.receive(frame, link.ACK_DELAY_S)
    assert (worker.due(), gate.due()) == (None, None)


def test_link_refuses_a_message_when_its_outbox_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is bounded: the caller learns that the peer acknowledges nothing."""
    monkeypatch.setattr(link, "OUTBOX_LIMIT", 10)
    worker, _ = pair()
    for number in range(10):
        worker.post(word(number))
    with pytest.raises(link.LinkFullError):
        worker.post(word(10))
    assert worker.unacknowledged == 10


def test_link_sends_no_frame_above_the_limit_when_messages_are_large() -> None:
    """Sixty-four turns of half a megabyte don't fit into one frame; they arrive in several."""
    worker, gate = pair()
    turn = m.Turn(0, "x" * (512 << 10), b"", (), ())
    for _ in range(64):
        gate.post(m.History(TaskId("t"), (turn,), False))
    frames = [link.encode(frame) for frame in gate.frames(0.0)]
    assert max(map(len, frames)) <= LINK_LIMIT_BYTES
    got = [one for data in frames for one in worker.receive(link.decode_to_worker(data), 0.0)]  # type: ignore[arg-type]  # all are Data
    assert len(got) == 64


def test_link_carries_the_largest_message_when_it_shares_a_frame() -> None:
    """MESSAGE_LIMIT_BYTES leaves room for what was put into the frame before it."""
    _, gate = pair()
    gate.post(m.Forget(Key("k" * (link.FRAME_BYTES - 20))))
    overhead = len(msgspec.msgpack.encode(m.Forget(Key("k" * (1 << 20))))) - (1 << 20)
    gate.post(m.Forget(Key("k" * (link.MESSAGE_LIMIT_BYTES - overhead))))
    (data,) = [link.encode(frame) for frame in gate.frames(0.0)]
    assert len(data) <= LINK_LIMIT_BYTES
    with pytest.raises(MessageTooLargeError):
        gate.post(m.Forget(Key("k" * link.MESSAGE_LIMIT_BYTES)))


def test_link_drops_words_of_other_incarnations() -> None:
    """A frame from or for another epoch gives nothing and acknowledges nothing."""
    worker, _ = pair()
    worker.post(word(1))
    list(worker.frames(0.0))
    for source, target in ((2, 7), (3, 8)):
        stray: link.Data[Any] = link.Data(source, target, 1, 1, (m.Forget(Key("a")),))
        assert worker.receive(stray, 0.0) == ()
    assert worker.unacknowledged == 1


def test_link_sends_everything_unacknowledged_again_when_it_meets_a_new_peer() -> None:
    """What the former incarnation received and didn't acknowledge is sent to its successor at once."""
    worker, gate = pair()
    for number in range(3):
        worker.post(word(number))
    assert len(carry(worker, gate, 0.0)) == 3
    successor = link.Link[Any, Any](4)
    successor.meet(7, worker.first_seq)
    worker.meet(4, successor.first_seq)
    assert worker.due() == 0.0
    assert carry(worker, successor, 0.0) == [word(number) for number in range(3)]


def test_link_ignores_an_ack_of_what_it_never_sent() -> None:
    """A peer that acknowledges ahead can't make it forget."""
    worker, _ = pair()
    worker.post(word(1))
    worker.receive(link.Data(3, 7, 1, 1, ()), 0.0)
    worker.receive(link.Data(3, 7, 1, 99, ()), 0.0)
    assert worker.unacknowledged == 1


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93", b"\x91\xa4nope", b"\xff" * 100, b"\x91" * 5_000])
def test_link_decoders_refuse_bytes_that_are_no_frame(data: bytes) -> None:
    """Garbage of any kind is a ProtocolError on both sides."""
    for decode in (link.decode_from_worker, link.decode_to_worker):
        with pytest.raises(ProtocolError):
            decode(data)


def test_link_decoder_refuses_a_frame_above_the_limit() -> None:
    """Size is checked before anything is parsed."""
    with pytest.raises(MessageTooLargeError):
        link.decode_from_worker(b"\x00" * (LINK_LIMIT_BYTES + 1))


class Direction:
    """One direction between two incarnations: what was promised, what arrived, what is safe."""

    def __init__(self) -> None:
        self.wire: list[bytes] = []
        self.promised: list[Any] = []
        self.arrived: list[Any] = []
        self.safe = 0

    def met(self, pending: list[Any]) -> None:
        """A new pair of incarnations: the numbering starts with what is still unacknowledged."""
        self.promised, self.arrived, self.safe = list(pending), [], 0

    def unacknowledged(self, sender: AnyLink) -> list[Any]:
        """What the sender must still hold."""
        return self.promised[len(self.promised) - sender.unacknowledged :]


class LossyChannel(RuleBasedStateMachine):
    """Two links over a channel that drops, repeats and reorders frames, while either side restarts."""

    @initialize()
    def begin(self) -> None:
        """Both sides have met."""
        self.now_s = 0.0
        self.epochs = {"worker": 1, "gate": 1}
        self.links: dict[str, AnyLink] = {"worker": link.Link(1), "gate": link.Link(1)}
        self.to = {"gate": Direction(), "worker": Direction()}
        self.count = 0
        self._meet([])

    def _meet(self, pending: list[Any]) -> None:
        worker, gate = self.links["worker"], self.links["gate"]
        gate.meet(worker.my_epoch, worker.first_seq)
        worker.meet(gate.my_epoch, gate.first_seq)
        self.to["gate"].met(pending)
        self.to["worker"].met([])

    def _sender(self, target: str) -> AnyLink:
        return self.links["worker" if target == "gate" else "gate"]

    @rule(target_side=st.sampled_from(["gate", "worker"]), count=st.integers(1, 3))
    def post(self, target_side: str, count: int) -> None:
        """A side has something to say."""
        for _ in range(count):
            self.count += 1
            said: Any = word(self.count) if target_side == "gate" else m.Forget(Key(str(self.count)))
            self._sender(target_side).post(said)
            self.to[target_side].promised.append(said)

    @rule(target_side=st.sampled_from(["gate", "worker"]))
    def flush(self, target_side: str) -> None:
        """A side sends what is due."""
        self.to[target_side].wire += [
            link.encode(frame) for frame in self._sender(target_side).frames(self.now_s)
        ]

    def _deliver(self, target_side: str, data: bytes) -> None:
        decode: Any = link.decode_from_worker if target_side == "gate" else link.decode_to_worker
        self.to[target_side].arrived += self.links[target_side].receive(decode(data), self.now_s)

    @precondition(lambda self: any(way.wire for way in self.to.values()))
    @rule(place=st.integers(0, 1_000), fate=st.sampled_from(["deliver", "deliver", "repeat", "drop"]))
    def transport(self, place: int, fate: str) -> None:
        """Any frame under way is delivered, delivered and kept, or lost; in any order."""
        under_way = [(side, at) for side, way in self.to.items() for at in range(len(way.wire))]
        target_side, at = under_way[place % len(under_way)]
        way = self.to[target_side]
        data = way.wire.pop(at)
        if fate != "drop":
            self._deliver(target_side, data)
        if fate == "repeat":
            way.wire.append(data)

    @rule(side=st.sampled_from(["gate", "worker"]))
    def acknowledge(self, side: str) -> None:
        """What arrived is safe now."""
        self.links[side].acknowledge(self.now_s)
        self.to[side].safe = len(self.to[side].arrived)

    @rule(seconds=st.sampled_from([0.01, link.ACK_DELAY_S, link.RESEND_S]))
    def wait(self, seconds: float) -> None:
        """Time goes on."""
        self.now_s += seconds

    @rule()
    def restart_gate(self) -> None:
        """A new gate knows nothing of the link; the worker keeps what was not acknowledged."""
        pending = self.to["gate"].unacknowledged(self.links["worker"])
        self.epochs["gate"] += 1
        self.links["gate"] = link.Link(self.epochs["gate"])
        self._meet(pending)

    @rule()
    def restart_worker(self) -> None:
        """A new worker gets its state afresh: the gate begins a new link for it."""
        self.epochs["worker"] += 1
        self.links["worker"] = link.Link(self.epochs["worker"])
        self.links["gate"] = link.Link(self.epochs["gate"])
        self._meet([])

    @invariant()
    def arrives_once_in_order(self) -> None:
        """What arrived is a prefix of what was promised to this pair of incarnations."""
        for way in self.to.values():
            assert way.arrived == way.promised[: len(way.arrived)]

    @invariant()
    def nothing_leaves_the_outbox_before_it_is_safe(self) -> None:
        """An ack never runs ahead of acknowledge()."""
        for side, way in self.to.items():
            assert len(way.promised) - self._sender(side).unacknowledged <= way.safe

    def teardown(self) -> None:
        """Once the channel behaves, everything arrives, is acknowledged, and both sides fall silent."""
        for _ in range(4):
            self.now_s += link.RESEND_S
            for side, way in self.to.items():
                self.flush(side)
                frames, way.wire = way.wire, []
                for data in frames:
                    self._deliver(side, data)
                self.acknowledge(side)
        for side, way in self.to.items():
            assert way.arrived == way.promised
            assert self.links[side].unacknowledged == 0
            assert self.links[side].due() is None


TestLossyChannel = LossyChannel.TestCase
TestLossyChannel.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
