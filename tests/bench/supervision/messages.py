"""Messages between two processes over our own link, beside a bare pyzmq loop in the same run.

Owns: the near end (a gate's), and the bounds.
Must not know: what the link does to keep its promises.
Invariant: every message is counted and its place checked: what is measured is exactly once, in order. The
    ways take turns, so that a busy machine is busy for all of them.
Source: issue 3 "Speed and memory": one way, batched, at least 500k messages a second; request and response at
    most 60 us.
"""

from __future__ import annotations

import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import zmq

from homeostat.proto import link, messages as m
from homeostat.proto.codec import LINK_LIMIT_BYTES
from homeostat.proto.ids import Key
from homeostat.proto.transport import router, send_to
from tests.bench.stand import missed, row
from tests.bench.supervision.far_end import IDENTITY, End

ROOT = Path(__file__).resolve().parents[3]
LEAST_PER_S, MOST_US = 500_000, 60
TIMEOUT_S = 120.0
RATES = {
    "small one-way": "ours, 25 bytes each",
    "large one-way": "ours, proposals of 270 bytes",
    "bare one-way": "bare pyzmq, 25 bytes each, one a frame",
}
TRIPS = {"round trips": "ours", "bare round trips": "bare pyzmq, blocking"}
_pack = msgspec.msgpack.Encoder().encode
_unpack: msgspec.msgpack.Decoder[m.Followed] = msgspec.msgpack.Decoder(m.Followed)


def run(rounds: int, messages: int, trips: int) -> list[str]:
    """Print rates and times of ours and of the bare loop; give the bounds missed."""
    rates: dict[str, list[float]] = {way: [] for way in RATES}
    times: dict[str, list[float]] = {way: [] for way in TRIPS}
    for _ in range(rounds):
        for way in RATES:
            with _two_ends(way, messages) as (near, _):
                rates[way].append(_rate(near, way, messages))
        for way in TRIPS:
            with _two_ends(way, trips) as (near, far):
                _answer(near, way, trips)
                assert far.stdout is not None
                times[way].append(statistics.median(json.loads(far.stdout.readline())) / 1e3)
    print(f"messages between two processes, medians of {rounds} rounds that take turns")
    return _rates(rates) + _times(times)


def _rates(rates: dict[str, list[float]]) -> list[str]:
    middle = {way: statistics.median(values) for way, values in rates.items()}
    print(f"  one way, {link.FRAME_MESSAGES} a frame (bound: {LEAST_PER_S:,} a second)")
    for way, name in RATES.items():
        row(name, {"median": middle[way], "x bare": middle[way] / middle["bare one-way"]}, "(messages/s)")
    return missed("messages a second, one way", middle["small one-way"], least=LEAST_PER_S)


def _times(times: dict[str, list[float]]) -> list[str]:
    middle = {way: statistics.median(values) for way, values in times.items()}
    print(f"  request and response (bound: median {MOST_US} us)")
    for way, name in TRIPS.items():
        row(name, {"median": middle[way], "x bare": middle[way] / middle["bare round trips"]}, "(us)")
    return missed("us of a request and its response", middle["round trips"], most=MOST_US)


@contextmanager
def _two_ends(way: str, count: int) -> Iterator[tuple[zmq.Socket[bytes], subprocess.Popen[str]]]:
    """A gate's ROUTER on a listener of ours, and the far end's process."""
    folder = tempfile.mkdtemp(prefix="hs-link.")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.bind(f"{folder}/s")
    listener.listen()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    near = router(context, listener.fileno(), LINK_LIMIT_BYTES)
    command = [sys.executable, "-m", "tests.bench.supervision.far_end", f"ipc://{folder}/s", way, str(count)]
    far = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield near, far
        if far.wait(TIMEOUT_S) != 0:
            raise RuntimeError(f"the far end of {way} ended with {far.returncode}")
    finally:
        far.kill()
        far.wait()
        if far.stdout is not None:
            far.stdout.close()
        context.destroy(linger=0)
        listener.detach()  # Closed with the socket that was made on it (ZMQ_USE_FD).
        shutil.rmtree(folder)


def _begin(near: zmq.Socket[bytes]) -> End:
    """Wait for the far end, and tell it to go."""
    end = End(near, lambda data: send_to(near, IDENTITY, data), link.decode_from_worker)
    while not end.turn():
        pass
    end.link.post(m.Forget(Key("begin")))
    return end


def _rate(near: zmq.Socket[bytes], way: str, count: int) -> float:
    """Messages a second from the first that came to the last."""
    if way.startswith("bare"):
        return _bare_rate(near, count)
    end = _begin(near)
    place: Callable[[m.Followed | m.Propose], int] = (
        (lambda one: one.step) if way == "large one-way" else (lambda one: one.position)  # type: ignore[union-attr]  # by the way
    )
    had, began = 0, 0.0
    while had < count:
        for message in end.turn():
            if had == 0:
                began = time.perf_counter()
            if place(message) != had:
                raise RuntimeError(f"message {place(message)} came where {had} was due")
            had += 1
    rate = count / (time.perf_counter() - began)
    _last_acks(end)
    return rate


def _bare_rate(near: zmq.Socket[bytes], count: int) -> float:
    _greet(near)
    began = 0.0
    for number in range(count):
        data = near.recv_multipart()[-1]
        if number == 0:
            began = time.perf_counter()
        if _unpack.decode(data).position != number:
            raise RuntimeError(f"message {number} was lost")
    rate = count / (time.perf_counter() - began)
    near.send_multipart((IDENTITY, b""))
    return rate


def _greet(near: zmq.Socket[bytes]) -> None:
    near.setsockopt(zmq.RCVTIMEO, int(TIMEOUT_S * 1e3))
    near.recv_multipart()
    near.send_multipart((IDENTITY, b""))


def _answer(near: zmq.Socket[bytes], way: str, count: int) -> None:
    """Answer so many requests."""
    if way.startswith("bare"):
        _greet(near)
        for _ in range(count):
            sender, data = near.recv_multipart()
            near.send_multipart((sender, _pack(_unpack.decode(data))))
        return
    end, had = _begin(near), 0
    while had < count:
        for _ in end.turn():
            had += 1
            end.link.post(m.Forget(Key("k")))
    _last_acks(end)


def _last_acks(end: End) -> None:
    """Let the far end hear that all is safe: it ends when nothing is unacknowledged."""
    until_s = time.monotonic() + 2 * link.ACK_DELAY_S
    while time.monotonic() < until_s:
        end.turn(10)
