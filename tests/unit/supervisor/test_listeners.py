"""The listeners of a home: which there are, who may connect, what each role inherits."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from homeostat.proto.config import SUN_PATH_BYTES, Agent, Config, Egress, Workers
from homeostat.proto.errors import HomeError
from homeostat.supervisor import listeners
from homeostat.supervisor.identities import Identities

BASE = Config().users.base
WAY_OUT = (Agent("web", egress=(Egress("a.test"),)),)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with its folder for sockets."""
    (tmp_path / "run").mkdir()
    return tmp_path


def made(home: Path, config: Config, identities: Identities) -> dict[str, int]:
    """Make them, look at the modes of their files, close them."""
    found = listeners.listen(home, config, identities)
    try:
        assert [*found.of_executor(0)] == ["attach"]
        assert found.of_executor(config.workers.executors) == {}
        assert [*found.of_courier()] == (["egress"] if config.has_courier else [])
        for fd in (*found.of_executor(0).values(), *found.of_courier().values()):
            with socket.socket(fileno=os.dup(fd)) as one:
                assert one.type == socket.SOCK_SEQPACKET
        return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (home / "run").iterdir()}
    finally:
        found.close()
        assert not [*(home / "run").iterdir()]


def test_listeners_are_one_a_terminal_and_one_for_the_way_out_where_there_is_one(home: Path) -> None:
    """All for their owner alone, as an ordinary user."""
    names = {"gate.sock", "client.sock", "control.sock", "terminal.0.sock"}
    assert made(home, Config(), Identities(None)) == dict.fromkeys(names, 0o600)
    two = Config(agent=WAY_OUT, workers=Workers(executors=2))
    names |= {"terminal.1.sock", "courier.sock"}
    assert made(home, two, Identities(None)) == dict.fromkeys(names, 0o600)


@pytest.mark.root
def test_listeners_of_workers_are_open_to_their_group_as_root(home: Path) -> None:
    """The gate's and the courier's; a terminal is for root's own clients."""
    modes = made(home, Config(agent=WAY_OUT), Identities(BASE))
    assert (modes["gate.sock"], modes["courier.sock"]) == (0o660, 0o660)
    assert (modes["terminal.0.sock"], modes["client.sock"]) == (0o600, 0o600)


def test_home_is_refused_when_its_longest_socket_has_no_room() -> None:
    """Before anything is made; one byte less fits."""
    room = SUN_PATH_BYTES - len(f"/run/{listeners.LONGEST_NAME}")
    listeners.check_paths(Path("/" + "x" * (room - 1)))
    with pytest.raises(HomeError):
        listeners.check_paths(Path("/" + "x" * room))
