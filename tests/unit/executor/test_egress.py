"""The executor's side of a way out: offered, offered again, withdrawn."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from homeostat.proto import egress
from homeostat.proto.config import Config
from homeostat.proto.errors import ProtocolError
from homeostat.proto.ids import Key, TaskId
from homeostat.proto.messages import Execute
from homeostat.workers.executor.egress import Egress
from homeostat.workers.executor.tools.orders import order
from tests.fakes.clocked_loop import ClockedLoop

KEY, TASK = Key("k" * 32), TaskId("t1")


class World:
    """A courier's socket, and an executor's loop."""

    def __init__(self, home: Path) -> None:
        (home / "run").mkdir()
        self.path = str(home / egress.SOCKET)
        self.loop = ClockedLoop()
        self.egress = Egress(home, self.loop)
        self.listener: socket.socket | None = None

    def listen(self) -> None:
        """The courier's socket is there."""
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.path)
        self.listener.listen()
        self.listener.settimeout(0.0)

    def heard(self) -> tuple[socket.socket, egress.Offer, int]:
        """The next offer, with the port that its listener has."""
        found: list[socket.socket] = []

        def come() -> bool:
            assert self.listener is not None
            try:
                found.append(self.listener.accept()[0])
            except BlockingIOError:
                return False
            return True

        self.loop.run_until(come)
        found[0].setblocking(True)
        packet, fds, _, _ = socket.recv_fds(found[0], 4_096, 4)
        with socket.socket(fileno=fds[0]) as inside:
            return found[0], egress.decode(packet), int(inside.getsockname()[1])

    def close(self) -> None:
        """End all."""
        self.egress.close()
        if self.listener is not None:
            self.listener.close()
        self.loop.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One that ends."""
    made = World(tmp_path)
    yield made
    made.close()


def offered(world: World) -> int:
    """Offer a listener; its port."""
    with socket.create_server(("127.0.0.1", 0)) as inside:
        world.egress.offer(KEY, TASK, os.dup(inside.fileno()))
        return int(inside.getsockname()[1])


def test_listener_is_offered_with_its_key_and_ends_with_its_sandbox(world: World) -> None:
    """The connection stands for the sandbox; the listener is closed with it."""
    world.listen()
    port = offered(world)
    connection, offer, told = world.heard()
    assert (offer, told) == (egress.Offer(KEY, TASK), port)
    world.egress.withdraw(KEY)
    assert connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    world.egress.withdraw(KEY)
    connection.close()


def test_listener_is_offered_again_when_the_courier_is_another(world: World) -> None:
    """And for the first time as soon as there is one at all."""
    port = offered(world)
    world.listen()
    for _ in range(2):
        connection, offer, told = world.heard()
        assert (offer, told) == (egress.Offer(KEY, TASK), port)
        connection.close()


def test_offer_is_refused_when_its_bytes_are_none() -> None:
    """Too long, cut, of another kind, with more in it."""
    packet = egress.encode(egress.Offer(KEY, TASK))
    assert egress.decode(packet) == egress.Offer(KEY, TASK)
    more = msgspec.msgpack.encode({"type": "offer", "key": KEY, "task": TASK, "more": 1})
    for wrong in (b"", packet[:-1], packet + b"\0" * 2_000, msgspec.msgpack.encode({"type": "x"}), more):
        with pytest.raises(ProtocolError):
            egress.decode(wrong)


@pytest.mark.parametrize("way_out", [False, True])
def test_order_has_a_way_out_only_when_the_gate_gives_one(way_out: bool) -> None:
    """What the model asks for does not count, what Execute says does: profile and environment follow it."""
    args = msgspec.json.encode({"command": "true", "network": True})
    made = order(
        Execute(KEY, TASK, "shell.run", args, "once", "/ws", 60.0, 1 << 20, egress=way_out), Config()
    )
    assert made.egress == (TASK if way_out else None)
    assert made.profile.network == ("courier" if way_out else "none")
    proxies = {name for name in made.env if name.lower().endswith("_proxy")}
    assert proxies == (
        {"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "no_proxy"}
        if way_out
        else set()
    )
    if way_out:
        assert made.env["https_proxy"] == "http://127.0.0.1:3128"
