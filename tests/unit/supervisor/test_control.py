"""The supervisor's port: a caller that is dropped for a newer one harms nobody."""

import contextlib
import resource
import selectors
import socket
from pathlib import Path

import msgspec
import pytest

from homeostat.supervisor import control


def _called(path: Path, stack: contextlib.ExitStack) -> socket.socket:
    caller = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    caller.settimeout(5.0)
    caller.connect(str(path))
    return caller


def _turn(selector: selectors.BaseSelector) -> None:
    for key, _ in selector.select(0):
        key.data()


def test_newer_caller_is_served_when_the_one_dropped_for_it_spoke_in_the_same_round(tmp_path: Path) -> None:
    """Both are in the same answer of the selector; the first of them closes the second."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(str(tmp_path / "c"))
        listener.listen(64)
        listener.setblocking(False)
        selector = stack.enter_context(selectors.DefaultSelector())
        server = control.Server(listener, selector, lambda _request: control.Stopping(pid=1))
        stack.callback(server.close)
        callers = []
        for _ in range(control.CALLERS_LIMIT):
            callers.append(_called(tmp_path / "c", stack))
            _turn(selector)
        newest = _called(tmp_path / "c", stack)
        callers[0].send(msgspec.msgpack.encode(control.Stop()))
        newest.send(msgspec.msgpack.encode(control.Stop()))
        _turn(selector)
        _turn(selector)
        assert b"stopping" in newest.recv(4096)
        with pytest.raises(ConnectionResetError):
            callers[0].recv(4096)


def test_caller_is_let_in_by_the_next_look_when_there_was_no_descriptor_for_it(
    tmp_path: Path,
) -> None:
    """Until then its knocking keeps nobody awake."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(str(tmp_path / "c"))
        listener.listen(64)
        selector = stack.enter_context(selectors.DefaultSelector())
        server = control.Server(listener, selector, lambda _request: control.Stopping(pid=1))
        stack.callback(server.close)
        caller = _called(tmp_path / "c", stack)
        caller.send(msgspec.msgpack.encode(control.Stop()))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            _turn(selector)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert selector.select(0) == []
        server.drop_idle(0.0)
        _turn(selector)
        _turn(selector)
        assert b"stopping" in caller.recv(4096)
