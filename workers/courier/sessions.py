"""One connection of a command, from its accept to its end.

Owns: both sockets, the order of the steps (head, name, dial, relay, last words), their times.
Must not know: which agent asks, permits; how bytes are pumped.
Invariants: nothing is dialled before host and port were granted and the address was chosen among those that
    may be; each session ends in exactly one Connection.
Source: RFC 9110 §9.3.6 (CONNECT), RFC 9112 §3.2; DESIGN §9 "Network".
"""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal, ParamSpec

from ...proto.ids import Key
from ...proto.messages import Connection
from .allowlist import Denied, Granted
from .bodies import Answer, body_of
from .dialling import Dial
from .heads import END, REQUEST_LIMIT_BYTES, HeadError, Request, parse_request
from .names import Asked, Found
from .readiness import IN, OUT, Readiness
from .relays import Buffer, Flow, Relay, buffer
from .replies import ESTABLISHED, refusal

HEAD_S: Final = 5.0
LINGER_S: Final = 1.0
_LINGER_BYTES: Final = 256 << 10
_LITTLE: Final = 0.05

Judge = Callable[[str, int], Granted | Denied]
Verdict = Literal["open", "refused", "failed"]
P = ParamSpec("P")


@dataclass
class Means:
    """What all sessions share."""

    readiness: Readiness
    resolve: Callable[[Key, str, Found], Asked | None]
    """Names to addresses, for a call; a literal is its own, at once."""
    drop: Callable[[Asked], None]
    """They are not wanted any more."""
    dial_s: float
    idle_s: float
    scratch: Buffer = field(default_factory=buffer)


class Session:
    """Ends by itself, by ``tick`` or by ``close``; ``over`` is called once, at the very end."""

    def __init__(
        self,
        command: socket.socket,
        key: Key,
        judge: Judge,
        means: Means,
        over: Callable[[Session, Connection], None],
    ) -> None:
        self._command = command
        self._key = key
        self._judge = judge
        self._means = means
        self._over = over
        self._began_s = time.monotonic()
        self._deadline_s = self._began_s + HEAD_S
        self._head = b""
        self._request: Request | None = None
        self._granted: Granted | None = None
        self._asked: Asked | None = None
        self._dial: Dial | None = None
        self._host: socket.socket | None = None
        self._address = ""
        self._relay: Relay | None = None
        self._answer: Answer | None = None
        self._verdict: Verdict = "failed"
        self._reason = ""
        self._last_words = memoryview(b"")
        self._lingers = 0
        self._closed = False
        self._heed_command = self._guarded(self._on_command)
        self._heed_host = self._guarded(self._on_host)
        command.setblocking(False)
        means.readiness.want(command.fileno(), IN, self._guarded(self._on_head))

    def _guarded(self, callback: Callable[P, None]) -> Callable[P, None]:
        """What a command or a host sends must never end more than its own connection."""

        def call(*arguments: P.args, **more: P.kwargs) -> None:
            try:
                callback(*arguments, **more)
            except Exception:  # noqa: BLE001 - shown in the log, and an end of this connection in the journal
                traceback.print_exc()
                self.close("an error of the courier's own, which is in its log")

        return call

    # -- time ------------------------------------------------------------------------------------------
    def tick(self, now_s: float) -> None:
        """Look at the clock."""
        if self._dial is not None:
            self._dial.tick(now_s)
        if self._closed or now_s < self._deadline_s:
            return
        if self._relay is not None or self._lingers:
            self._end("idle for too long" if self._relay is not None else self._reason)
        elif self._request is None:
            self._refuse(408, "the head of the request did not come in time")
        else:
            self._fail(504, "the host's name or address did not answer in time")

    def close(self, reason: str) -> None:
        """End it now."""
        if not self._closed:
            self._end(self._reason or reason)

    # -- the head --------------------------------------------------------------------------------------
    def _on_head(self, _events: int) -> None:
        try:
            data = self._command.recv(REQUEST_LIMIT_BYTES + len(END) - len(self._head))
        except BlockingIOError:
            return
        except OSError as error:
            self._end(_words(error))
            return
        if not data:
            self._end("closed before it asked for anything")
            return
        searched = max(0, len(self._head) - len(END))
        self._head += data
        at = self._head.find(END, searched)
        if at < 0 and len(self._head) < REQUEST_LIMIT_BYTES:
            return
        if at < 0:
            self._refuse(431, f"the head of the request has more than {REQUEST_LIMIT_BYTES} bytes")
            return
        self._take(self._head[: at + len(END)], self._head[at + len(END) :])

    def _take(self, head: bytes, rest: bytes) -> None:
        # Until it is dialled nothing is read: what the command sends waits in the kernel, in its own time.
        self._means.readiness.forget(self._command.fileno())
        self._head = rest
        try:
            self._request = parse_request(head)
        except HeadError as error:
            self._refuse(error.status, error.reason)
            return
        judged = self._judge(self._request.host, self._request.port)
        if isinstance(judged, Denied):
            self._refuse(403, judged.reason, judged.text)
            return
        self._granted = judged
        self._deadline_s = time.monotonic() + self._means.dial_s
        self._asked = self._means.resolve(self._key, judged.host, self._guarded(self._resolved))

    # -- the host --------------------------------------------------------------------------------------
    def _resolved(self, addresses: Sequence[str], trouble: str) -> None:
        if self._closed or self._granted is None or self._lingers:
            return
        if trouble:
            self._fail(502, f"{self._granted.host} can't be resolved: {trouble}")
            return
        chosen = self._granted.choose(addresses)
        if isinstance(chosen, Denied):
            self._refuse(403, chosen.reason, chosen.text)
            return
        within_s = self._deadline_s - time.monotonic()
        self._dial = Dial(
            chosen, self._granted.port, within_s, self._means.readiness, self._guarded(self._dialled)
        )
        self._deadline_s += _LITTLE * self._means.dial_s  # The dial tells more of its time than we would.
        self._dial.begin()

    def _dialled(self, host: socket.socket | None, address: str, trouble: str) -> None:
        self._dial, self._address, request = None, address, self._request
        if host is None or request is None:
            self._fail(502, f"no connection to the host: {trouble}")
            return
        self._host = host
        if request.method == "CONNECT":
            up = Flow(self._command, host, None, self._head)
            down = Flow(host, self._command, None, ESTABLISHED)
        else:
            body, self._answer = body_of(request.framing), Answer()
            try:
                first = request.to_origin() + body.feed(self._head)
            except HeadError as error:
                self._refuse(error.status, error.reason)
                return
            up = Flow(self._command, host, body, first)
            down = Flow(host, self._command, self._answer, b"")
        self._head = b""
        self._verdict = "open"
        self._relay = Relay(up, down)
        self._command.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._on_command(OUT)
        self._on_host(OUT)

    # -- the relay -------------------------------------------------------------------------------------
    def _on_command(self, events: int) -> None:
        self._turn(lambda relay: relay.on_command(events, self._means.scratch))

    def _on_host(self, events: int) -> None:
        self._turn(lambda relay: relay.on_host(events, self._means.scratch))

    def _turn(self, serve: Callable[[Relay], None]) -> None:
        if (relay := self._relay) is None:
            return
        try:
            serve(relay)
        except HeadError as error:
            self._broken(relay, error)
            return
        except OSError as error:
            self._end(_words(error))
            return
        if relay.over:
            self._end("")
            return
        self._deadline_s = time.monotonic() + self._means.idle_s
        self._wait(relay)

    def _wait(self, relay: Relay) -> None:
        command, host = relay.masks()
        if self._host is not None:
            self._means.readiness.want(self._command.fileno(), command, self._heed_command)
            self._means.readiness.want(self._host.fileno(), host, self._heed_host)

    def _broken(self, relay: Relay, error: HeadError) -> None:
        """What passes is no HTTP: said, as long as nothing else was."""
        if relay.down.moved or relay.down.writes:
            self._end(error.reason)
            return
        if error.status == 502:
            self._fail(502, error.reason)
        else:
            self._refuse(error.status, error.reason)

    # -- the end ---------------------------------------------------------------------------------------
    def _refuse(self, status: int, reason: str, text: str = "") -> None:
        self._verdict = "refused"
        self._say(status, reason, text)

    def _fail(self, status: int, reason: str) -> None:
        self._verdict = "failed"
        self._say(status, reason, "")

    def _say(self, status: int, reason: str, text: str) -> None:
        """Last words; then what still comes is thrown away a moment, lest a reset overtake them."""
        self._reason = reason
        self._hang_up()
        self._lingers = 1
        self._deadline_s = time.monotonic() + LINGER_S
        self._last_words = memoryview(refusal(status, reason, text))
        self._means.readiness.want(self._command.fileno(), IN | OUT, self._guarded(self._on_lingering))
        self._on_lingering(OUT)

    def _on_lingering(self, events: int) -> None:
        try:
            if self._last_words:
                self._last_words = self._last_words[self._command.send(self._last_words) :]
                if self._last_words:
                    return
                self._command.shutdown(socket.SHUT_WR)
                self._means.readiness.want(self._command.fileno(), IN, self._guarded(self._on_lingering))
            if events & IN:
                count = self._command.recv_into(self._means.scratch)
                self._lingers += count
                if not count or self._lingers > _LINGER_BYTES:
                    self._end(self._reason)
        except BlockingIOError:
            return
        except OSError:  # It hung up without listening: the refusal stands all the same.
            self._end(self._reason)

    def _end(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        self._reason = reason
        sent, received = self._moved()
        self._hang_up()
        self._means.readiness.forget(self._command.fileno())
        self._command.close()
        request = self._request
        self._over(
            self,
            Connection(
                request.host if request is not None else "",
                request.port if request is not None else 0,
                self._address,
                request.method[:16] if request is not None else "",
                self._verdict,
                self._reason[:500],
                sent,
                received,
                round(time.monotonic() - self._began_s, 6),
            ),
        )

    def _moved(self) -> tuple[int, int]:
        """Bytes to the host and from it."""
        if self._relay is None:
            return 0, 0
        own = len(ESTABLISHED) if self._answer is None else 0
        return self._relay.up.moved, max(0, self._relay.down.moved - own)

    def _hang_up(self) -> None:
        """The side of the host goes."""
        if self._asked is not None:
            self._means.drop(self._asked)
            self._asked = None
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        if self._host is not None:
            self._means.readiness.forget(self._host.fileno())
            with suppress(OSError):
                self._host.close()
            self._host = None
        self._relay = None


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
