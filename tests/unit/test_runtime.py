import os
import socket
from pathlib import Path
from typing import Any

import pytest

from homeostat.proto.config import Config
from homeostat.supervisor import liveness
from homeostat.workers.runtime import Context, Loop


class Nobody:
    """A worker that is called by its timer alone."""

    def on_welcome(self) -> None:
        """No gate is there."""

    def on_message(self, message: Any) -> None:
        """Nor does one say anything."""

    def on_stop(self, deadline_s: float) -> None:
        """Nor is it stopped."""


def test_timer_is_not_blamed_on_a_message_when_it_runs_after_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash in a timer would else put aside whatever message came before it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fds = {"control": theirs.detach(), "phase": liveness.create()}
    loop = Loop(Context("brain", 0, 1, b"", tmp_path, str(tmp_path), Config(), fds))
    monkeypatch.setattr(loop, "_read_gate", lambda: loop.phase.subject("observe t-1 5"))
    found: list[str] = []

    def timer() -> None:
        word = liveness.read(fds["phase"])
        assert word is not None
        found.append(word.subject)
        loop.finish()

    loop.call_later(0.0, timer)
    loop.run(Nobody())
    assert found == [""]
    for one in (ours, loop._supervised.socket):
        one.close()
    for fd in fds.values():
        os.close(fd)
