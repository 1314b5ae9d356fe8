"""The courier in its process: descriptors, threads and timers around what core.py decides.

Owns: the composition, and the order in which effects are done.
Must not know: who may reach what.
Invariants: the loop's thread never waits for a host, a resolver or a certificate; where an executor's word
    has come but not the gate's, nothing is served.
Source: DESIGN §3, §9 "Network"; workers/runtime.py.
"""

from __future__ import annotations

import os
import resource
import socket
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, assert_never

from ...proto import egress, messages as m
from ...proto.config import Config
from ...proto.hosts import literal
from ...proto.ids import Key, TaskId
from . import effects as e
from .calls import AT_ONCE
from .core import Core
from .errands import Errands
from .exchange import Errand
from .names import Asked, Found, Names, Resolve, system
from .offers import Offers
from .readiness import Readiness
from .sessions import Means
from .trust import Trust
from .ways import Ways

if TYPE_CHECKING:
    from collections.abc import Callable

TICK_S = 0.5
_COURIER_OFFSET, _EXECUTOR_OFFSET = 5, 3
"""Added to ``users.base`` as root (supervisor/identities.py)."""
_LAST_S = 0.5
"""Of the time to stop, what is left to leave in."""
_OTHER_FDS = 128
"""What this process has open beside the connections."""


class Context(Protocol):
    """What this worker is handed (workers/runtime.py)."""

    @property
    def home(self) -> Path:
        """The home folder."""

    @property
    def config(self) -> Config:
        """All settings."""

    @property
    def fds(self) -> dict[str, int]:
        """``egress`` is ours."""


class Loop(Protocol):
    """The services of the loop that this worker uses."""

    def post(self, message: m.FromWorker) -> None:
        """Tell the gate, reliably and in order."""

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call when readable."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Any:
        """Call once."""

    def ready(self) -> None:
        """Tell the supervisor."""

    def finish(self) -> None:
        """Leave."""


class Courier:
    """What the loop calls."""

    def __init__(self, context: Context, loop: Loop, resolve: Resolve = system) -> None:
        config = context.config
        self._loop = loop
        self._config = config
        self._core = Core(config)
        self._credentials = {credential.name: credential for credential in config.credential}
        _make_room(2 * config.courier.connections + _OTHER_FDS)
        self._readiness = Readiness()
        self._names = Names(resolve)
        self._asked: dict[Key, Asked] = {}
        """Names that requests wait for."""
        courier = config.courier
        means = Means(self._readiness, self._resolve, self._names.drop, courier.dial_s, courier.idle_s)
        most, most_a_call = courier.connections, courier.connections_per_call
        self._ways = Ways(means, most, most_a_call, self._connection_over)
        self._errands = Errands(AT_ONCE, Trust().context)
        self._waiting: dict[int, socket.socket] = {}
        """Listeners that were offered and are not served yet."""
        self._ticks = self._stopping = False
        self._due_s = float("inf")
        listener = socket.socket(fileno=os.dup(context.fds["egress"]))
        later = partial(loop.call_later, TICK_S)
        self._offers = Offers(
            listener, executors_uid(config), self._readiness, self._offered, self._gone, later=later
        )
        loop.watch(self._readiness.fd, self._readiness.turn)
        loop.watch(self._names.fd, self._names.deliver)
        loop.watch(self._errands.fd, self._collect)

    # -- the loop's calls ------------------------------------------------------------------------------
    def on_welcome(self) -> None:
        """The gate says again what is permitted and open; nothing to ask for."""

    def on_message(self, message: m.ToCourier) -> None:
        """Decide and do."""
        self._tell(message)

    def on_stop(self, deadline_s: float) -> None:
        """Let requests come to their end, so that none is in doubt; connections of commands can't be waited
        for.
        """
        if self._stopping:
            return
        self._stopping = True
        self._offers.close()
        self._ways.close("the courier stops")
        self._loop.call_later(max(0.0, deadline_s - _LAST_S), self._leave)
        self._tell(e.Due())

    def _leave(self) -> None:
        self._errands.cut_all()
        self._loop.finish()

    # -- reports ---------------------------------------------------------------------------------------
    def _offered(self, number: int, offer: egress.Offer, listener: socket.socket) -> None:
        self._waiting[number] = listener
        self._tell(e.Offered(number, offer.key, offer.task))

    def _gone(self, number: int) -> None:
        self._tell(e.Gone(number))
        self._drop_waiting(number)

    def _connection_over(self, key: Key, task: TaskId, connection: m.Connection) -> None:
        self._tell(e.Over(key, task, connection))

    def _collect(self) -> None:
        for report in self._errands.reports():
            self._tell(report)

    def _resolve(self, key: Key, host: str, found: Found) -> Asked | None:
        if literal(host) is None:
            return self._names.ask(key, host, found)
        found([host], "")
        return None

    # -- decisions -------------------------------------------------------------------------------------
    def _tell(self, message: m.ToCourier | e.Report) -> None:
        for effect in self._core.handle(message, time.monotonic()):
            self._do(effect)
        self._set_clock()
        if self._stopping and not self._core.busy:
            self._loop.finish()

    def _do(self, effect: e.Effect) -> None:
        match effect:
            case e.Post():
                if isinstance(effect.message, m.Ended):
                    self._drop_asked(effect.message.key)
                self._loop.post(effect.message)
            case e.Serve():
                self._serve(effect)
            case e.Shut():
                self._ways.shut(effect.number, effect.reason)
                self._drop_waiting(effect.number)
                self._offers.drop(effect.number)
            case e.Resolve():
                found = partial(self._request_resolved, effect.key)
                self._asked[effect.key] = self._names.ask(effect.key, effect.host, found)
            case e.Exchange():
                self._exchange(effect)
            case e.Cut():
                self._errands.cut(effect.key)
            case _:
                assert_never(effect)

    def _serve(self, serve: e.Serve) -> None:
        listener = self._waiting.pop(serve.number)
        self._ways.open(serve.number, serve.key, serve.task, listener, partial(self._core.judge, serve.agent))
        if not self._ticks:
            self._ticks = True
            self._loop.call_later(TICK_S, self._tick)

    def _drop_waiting(self, number: int) -> None:
        if (listener := self._waiting.pop(number, None)) is not None:
            listener.close()

    def _drop_asked(self, key: Key) -> None:
        if (asked := self._asked.pop(key, None)) is not None:
            self._names.drop(asked)

    def _request_resolved(self, key: Key, addresses: list[str], trouble: str) -> None:
        self._asked.pop(key, None)
        self._tell(e.Resolved(key, tuple(addresses), trouble))

    def _exchange(self, effect: e.Exchange) -> None:
        courier = self._config.courier
        credential = self._credentials[effect.hop.credential] if effect.hop.credential else None
        self._errands.start(
            Errand(
                effect.key, effect.hop, effect.addresses, credential, courier.dial_s, effect.within_s,
                effect.limit_bytes, courier.max_response_bytes,
            )
        )  # fmt: skip

    # -- time ------------------------------------------------------------------------------------------
    def _tick(self) -> None:
        self._ways.tick(time.monotonic())
        self._ticks = bool(len(self._ways))
        if self._ticks:
            self._loop.call_later(TICK_S, self._tick)

    def _set_clock(self) -> None:
        """Have Due reported when it is time; a timer that comes too early asks again."""
        due_s = self._core.due()
        if due_s < self._due_s:
            self._due_s = due_s
            self._loop.call_later(max(0.0, due_s - time.monotonic()), partial(self._look, due_s))

    def _look(self, due_s: float) -> None:
        if due_s == self._due_s:
            self._due_s = float("inf")
            self._tell(e.Due())


def executors_uid(config: Config) -> int:
    """Whom the kernel must name as the sender of an offer: as root executors have a user of their own."""
    own, base = os.geteuid(), config.users.base
    return base + _EXECUTOR_OFFSET if own == base + _COURIER_OFFSET else own


def _make_room(files: int) -> None:
    """Raise our own limit of open files as far as need be and as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files if hard == resource.RLIM_INFINITY else min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def make(context: Context, loop: Loop) -> Courier:
    """Begin to serve."""
    courier = Courier(context, loop)
    loop.ready()
    return courier
