"""Executors that connect while there is no descriptor left."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from homeostat.workers.courier.offers import Offers
from homeostat.workers.courier.readiness import Readiness


class Full:
    """A listener that can't accept."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.tried = 0
        self.full = True

    def __getattr__(self, name: str) -> object:
        return getattr(self._listener, name)

    def accept(self) -> tuple[socket.socket, object]:
        """Fails as long as it is full."""
        self.tried += 1
        if self.full:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self._listener.accept()


def test_offers_wait_when_no_descriptor_is_left(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is tried once a while and told once, not in a busy loop; then the executor is heard."""
    later: list[Callable[[], None]] = []
    readiness = Readiness()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        full = Full(listener)
        offers = Offers(
            full,  # type: ignore[arg-type]
            os.geteuid(), readiness, lambda *_: None, lambda _: None, later=later.append,
        )  # fmt: skip
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as executor:
            executor.connect(str(tmp_path / "s"))
            for tries in (1, 2):
                for _ in range(50):
                    readiness.turn()
                assert (full.tried, len(later)) == (tries, 1)
                later.pop()()
            full.full = False
            readiness.turn()
            assert full.tried == 3
            assert not later
            assert capfd.readouterr().err.count("can't be heard") == 1
            offers.close()
            assert executor.recv(1) == b""
    readiness.close()
