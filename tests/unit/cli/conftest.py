"""A home with a fake gate on its client port and a real control port, and a command line to ask them."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from homeostat.supervisor import control
from homeostat.supervisor.cli.main import run
from tests.fakes.wire_gate import WireGate, local, serving


@dataclass
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Ran]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[WireGate]:
    """A gate on the client port of the home."""
    yield from serving(local(tmp_path))


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line on the home; no traceback may ever be seen."""

    def call(*arguments: str) -> Ran:
        capsys.readouterr()
        code = run(["--home", str(tmp_path), *arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Ran(code, out, err)

    return call


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[list[control.Request]]:
    """The supervisor's own server on the home's control port; gives the requests that it got."""
    (tmp_path / "run").mkdir(exist_ok=True)
    asked: list[control.Request] = []
    row = control.WorkerView(role="gate", index=0, pid=11, epoch=3, state="ready", restarts=1)

    def handle(request: control.Request) -> control.Reply:
        asked.append(request)
        if isinstance(request, control.Stop):
            stopping.set()
            return control.Stopping(pid=2**22)
        return control.StatusReply(
            ready=True,
            pid=2**22,  # beyond pid_max's default: no process has it
            metrics="http://127.0.0.1:1/metrics",
            client="ipc://c",
            client_tcp=None,
            server_key=None,
            workers=(row,),
        )

    stopping = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "run" / "control.sock"))
        listener.listen()
        listener.setblocking(False)
        thread = threading.Thread(target=_serve, args=(listener, handle, stopping), daemon=True)
        thread.start()
        yield asked
        stopping.set()
        thread.join()


def _serve(
    listener: socket.socket, handle: Callable[[control.Request], control.Reply], stopping: threading.Event
) -> None:
    with selectors.DefaultSelector() as selector:
        server = control.Server(listener, selector, handle)
        while not stopping.is_set():
            for key, _ in selector.select(0.02):
                key.data()
        server.close()
    listener.close()
