"""Sans-I/O link between a worker and the gate: hello, welcome, sequence, cumulative ack, resend.

Owns: numbering of messages in both directions and what is still unacknowledged.
Must not know: sockets, clocks (the time is an argument), what messages mean.
Invariant: within one pair of incarnations every posted message is given to the other side once, in order,
    whatever the transport drops or repeats. Towards a new incarnation the owner of the link decides what is
    resent.
Source: DESIGN §4 ("resent until acknowledged, and acknowledgements follow the sync"); RFC 9293's cumulative
    ack.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import msgspec

from .codec import LINK_LIMIT_BYTES, encode as encode_message
from .errors import MessageTooLargeError, ProtocolError
from .messages import FromWorker, Hello, ToWorker, Welcome

VERSION = 1
"""Grows with every change of Hello, Welcome or Data, or of the rules for their numbers: a Hello of another
version is not welcomed. Messages inside of frames may gain fields with defaults at their end without it, for
gate and workers are forked from one nursery: both ends are of one build. How many messages a frame takes is
its sender's own business, and changes no version.
"""
FRAME_MESSAGES = 64
"""Most messages in one frame; 32 a frame carried 660-987k messages/s in a trial, more gains little."""
FRAME_BYTES = 1 << 20
"""A frame that has this many bytes takes no further message, so that no frame exceeds LINK_LIMIT_BYTES."""
MESSAGE_LIMIT_BYTES = LINK_LIMIT_BYTES - FRAME_BYTES - 1_024
"""Largest message: what is left beside a frame's other messages and its numbers."""
RESEND_S = 0.25
ACK_DELAY_S = 0.05
OUTBOX_LIMIT = 65_536

Out = TypeVar("Out")
In = TypeVar("In")


class Data(msgspec.Struct, Generic[In], frozen=True, array_like=True, tag="data", forbid_unknown_fields=True):
    """One frame: messages numbered from ``first_seq``, and the cumulative ack of the other direction."""

    src_epoch: int
    dst_epoch: int
    first_seq: int
    ack: int
    messages: tuple[In, ...]


_encode = msgspec.msgpack.Encoder().encode
_from_worker: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Hello | Data[FromWorker])
_to_worker: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Welcome | Data[ToWorker])


def decode_from_worker(frame: bytes) -> Hello | Data[FromWorker]:
    """Bytes of a worker. Raises ProtocolError."""
    return _decode(_from_worker, frame)  # type: ignore[no-any-return]  # the decoder's union, which mypy can't see


def decode_to_worker(frame: bytes) -> Welcome | Data[ToWorker]:
    """Bytes of a gate. Raises ProtocolError."""
    return _decode(_to_worker, frame)  # type: ignore[no-any-return]  # as above


def _decode(decoder: msgspec.msgpack.Decoder[Any], frame: bytes) -> Any:
    if len(frame) > LINK_LIMIT_BYTES:
        raise MessageTooLargeError(f"frame of {len(frame)} bytes", expected=f"at most {LINK_LIMIT_BYTES}")
    try:
        return decoder.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a frame of this link: {error}") from error


def encode(frame: Hello | Welcome | Data[Any]) -> bytes:
    """Bytes for the socket."""
    return _encode(frame)


class LinkFullError(ProtocolError):
    """The other side has not acknowledged for so long that the outbox is full."""

    code = "link_full"


class Link(Generic[Out, In]):
    """One end of one link. All times are monotonic seconds given by the caller.

    The outbox holds encoded messages: a resend costs no second encoding, and frames are bounded in bytes.
    """

    def __init__(self, my_epoch: int) -> None:
        self.my_epoch = my_epoch
        self.peer_epoch = 0
        self._sent: deque[msgspec.Raw] = deque()
        """The first part of the outbox: sent to this peer, not yet acknowledged."""
        self._unsent: deque[msgspec.Raw] = deque()
        """The rest of it. Two queues, since a place in the middle of a deque is found by walking to it."""
        self._first = 1
        """Sequence number of the first message in the outbox: the lowest unacknowledged one."""
        self._expected = 1
        self._ack = 0
        self._ack_sent = 0
        self._ack_due: float | None = None
        self._resend_due: float | None = None
        self.resends = 0
        """How often something was sent again since the peer last acknowledged anything."""

    @property
    def first_seq(self) -> int:
        """Where this side's numbering begins for a peer that greets now."""
        return self._first

    @property
    def unacknowledged(self) -> int:
        """How many posted messages the peer has not acknowledged."""
        return len(self._sent) + len(self._unsent)

    def meet(self, peer_epoch: int, first_seq: int) -> None:
        """A new incarnation of the peer: expect its numbering, send everything unacknowledged again."""
        self.peer_epoch = peer_epoch
        self._expected = first_seq
        self._ack = self._ack_sent = first_seq - 1
        self._ack_due = None
        self._send_again()
        self._resend_due = None
        self.resends = 0

    def forget_outbox(self) -> None:
        """Drop what was meant for a former incarnation; its successor gets its state afresh."""
        self._first += self.unacknowledged
        self._sent.clear()
        self._unsent.clear()

    def post(self, message: Out) -> None:
        """Queue a message. Raises LinkFullError, MessageTooLargeError, UnsayableError."""
        if len(self._sent) + len(self._unsent) >= OUTBOX_LIMIT:
            raise LinkFullError
        data = encode_message(message)
        if len(data) > MESSAGE_LIMIT_BYTES:
            raise MessageTooLargeError(
                f"message of {len(data)} bytes", expected=f"at most {MESSAGE_LIMIT_BYTES}"
            )
        self._unsent.append(msgspec.Raw(data))

    def frames(self, now_s: float) -> Iterable[Data[msgspec.Raw]]:
        """Give what is to be sent now: new messages, a due resend, or a due ack on its own."""
        if self._resend_due is not None and now_s >= self._resend_due:
            self.resends += 1
            self._send_again()
        while self._unsent:
            first_seq = self._first + len(self._sent)
            messages = self._next_messages()
            self._resend_due = now_s + RESEND_S
            yield self._frame(first_seq, messages)
        if self._ack_due is not None and now_s >= self._ack_due:
            yield self._frame(self._first + len(self._sent), ())

    def _send_again(self) -> None:
        """Everything unacknowledged counts as unsent."""
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()

    def _next_messages(self) -> tuple[msgspec.Raw, ...]:
        """As many messages as one frame takes; from now on they count as sent."""
        messages: list[msgspec.Raw] = []
        size = 0
        while self._unsent and len(messages) < FRAME_MESSAGES and size < FRAME_BYTES:
            message = self._unsent.popleft()
            messages.append(message)
            size += len(message)
        self._sent.extend(messages)
        return tuple(messages)

    def _frame(self, first_seq: int, messages: tuple[msgspec.Raw, ...]) -> Data[msgspec.Raw]:
        self._ack_sent = self._ack
        self._ack_due = None
        return Data(self.my_epoch, self.peer_epoch, first_seq, self._ack, messages)

    def receive(self, frame: Data[In], now_s: float) -> tuple[In, ...]:
        """Give the messages of a frame that are new; take its ack. Words of other incarnations give
        nothing.
        """
        if frame.src_epoch != self.peer_epoch or frame.dst_epoch != self.my_epoch:
            return ()
        self._take_ack(frame.ack, now_s)
        count = len(frame.messages)
        if not count:
            return ()
        skip = self._expected - frame.first_seq
        if skip == 0:
            self._expected += count
            return frame.messages
        self._ack_due = now_s
        if skip < 0 or skip >= count:
            return ()
        self._expected += count - skip
        return frame.messages[skip:]

    def _take_ack(self, ack: int, now_s: float) -> None:
        done = ack - self._first + 1
        sent = self._sent
        if done <= 0 or done > len(sent):
            return
        for _ in range(done):
            sent.popleft()
        self._first += done
        self.resends = 0
        self._resend_due = now_s + RESEND_S if sent else None

    def acknowledge(self, now_s: float) -> None:
        """Everything received so far is safe: the next frame may say so, or one of its own in a while."""
        self._ack = self._expected - 1
        if self._ack > self._ack_sent and self._ack_due is None:
            self._ack_due = now_s + ACK_DELAY_S

    def due(self) -> float | None:
        """When frames() has something to do although nothing is posted or received: an ack, a resend."""
        if self._unsent:
            return 0.0
        if self._ack_due is None:
            return self._resend_due
        return self._ack_due if self._resend_due is None else min(self._ack_due, self._resend_due)
