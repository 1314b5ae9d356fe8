"""The nursery: everything imported, nothing opened; forks workers that become the supervisor's own children.

Owns: the forks.
Must not know: what a worker does; which worker is restarted, and when.
Invariant: one thread; a worker goes on only as the supervisor's child, and dies with it (parking.py).
Source: prctl(2) PR_SET_CHILD_SUBREAPER; unix(7) SCM_RIGHTS; DESIGN §3 (parentage).

A worker is forked ahead and parked: it has given up its powers and waits on a socket of its own for its
start, so that a restart waits for no fork. The nursery may die at any moment: what it has parked lives on,
and the sockets end of what it was asked for and had not begun.
"""

from __future__ import annotations

import argparse
import errno
import gc
import importlib
import os
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

import prctl

from ..proto import codec, config, messages as m
from . import slack
from .identity import COMMAND_OFFSET, EXECUTOR_OFFSET, write_maps
from .parking import IDENTIFIED, MAPPED, Arm, House, parked

FDS_LIMIT = 4


def main(argv: list[str] | None = None) -> None:
    """Serve until the supervisor hangs up."""
    options = _parser().parse_args(argv)
    prctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != options.supervisor:
        sys.exit(1)
    with open(options.config_fd, "rb") as file:
        settings = config.from_bytes(file.read())
    arm = _load(options.entry, settings)
    gc.collect()
    slack.trim()
    slack.give_back()
    gc.freeze()  # What is imported is never looked at again, so its pages stay shared with all workers.
    supervisor = socket.socket(fileno=options.fd)
    supervisor.set_inheritable(False)
    nursery = Nursery(supervisor, House(settings, options.supervisor, arm))
    while nursery.serve():
        pass
    sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="homeostat.workers.nursery", description="Started by the supervisor."
    )
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--config-fd", type=int, required=True)
    parser.add_argument("--supervisor", type=int, required=True)
    parser.add_argument("--entry", default="homeostat.workers.entry:arm")
    return parser


def _load(name: str, settings: config.Config) -> Arm:
    """Import the entry and let it import what its workers need."""
    module_name, _, function = name.partition(":")
    module = importlib.import_module(module_name)
    preload = getattr(module, "preload", None)
    if preload is not None:
        preload(settings)
    arm: Arm = getattr(module, function)
    return arm


class Nursery:
    """Forks one worker at a time."""

    def __init__(self, supervisor: socket.socket, house: House) -> None:
        self._supervisor = supervisor
        self._house = house

    def serve(self) -> bool:
        """Fork what is asked for next; False when the supervisor has hung up."""
        data, fds, _, _ = _receive(self._supervisor)
        if not data:
            return False
        park: m.Park = codec.TO_NURSERY.decode(data)
        with socket.socket(fileno=fds[0]) as start:
            number = self._fork(park, start)
        if number != 0:
            # The end of its socket tells it too; this says why.
            self._supervisor.send(codec.encode(m.ForkFailed(park.number, os.strerror(number))))
        return True

    def _fork(self, park: m.Park, start: socket.socket) -> int:
        """Fork a worker by way of an intermediate, stay until it has its identity; give an errno or 0."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            try:
                intermediate = os.fork()
            except OSError as error:
                theirs.close()
                return error.errno or errno.EAGAIN
            if intermediate == 0:
                ours.close()
                self._intermediate(park, start, theirs)
            theirs.close()
            start.close()  # Only the worker may hold it: its end is how the supervisor hears of its end.
            _, status = os.waitpid(intermediate, 0)
            number = os.waitstatus_to_exitcode(status)
            if number == 0:
                self._attend(ours)
            return number

    def _attend(self, worker: socket.socket) -> None:
        """Do what the worker asks until it has its identity or has ended."""
        while (word := _word(worker)) not in (IDENTIFIED, b""):
            self._map(worker, int(word))

    def _map(self, worker: socket.socket, pid: int) -> None:
        """The executor has made its namespace, whose maps only we, outside of it, can write."""
        base = self._house.settings.users.base
        try:
            write_maps(pid, base + EXECUTOR_OFFSET, base + COMMAND_OFFSET)
            worker.send(MAPPED)
        except OSError as error:
            # It was killed, or it hears from the end of its socket that there are no maps, and ends itself.
            print(f"no maps for {pid}: {error}", file=sys.stderr, flush=True)
            worker.shutdown(socket.SHUT_WR)

    def _intermediate(self, park: m.Park, start: socket.socket, nursery: socket.socket) -> NoReturn:
        """Fork the worker and end, with an errno as exit code; never returns into the nursery's loop."""
        try:
            own = os.pidfd_open(os.getpid())
            if os.fork() == 0:
                parked(self._house, park, start, nursery, own)
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or errno.EAGAIN)
        except BaseException:  # noqa: BLE001 - a forked process must never unwind into its parent's stack
            traceback.print_exc()
        os._exit(errno.EFAULT)


def _receive(supervisor: socket.socket) -> tuple[bytes, list[int], int, Any]:
    """socket.recv_fds, with the descriptors closed on exec from their first moment."""
    return socket.recv_fds(supervisor, codec.CONTROL_LIMIT_BYTES, FDS_LIMIT, socket.MSG_CMSG_CLOEXEC)


def _word(peer: socket.socket) -> bytes:
    """Give the next packet; none at the end."""
    try:
        return peer.recv(32)
    except ConnectionResetError:
        return b""


if __name__ == "__main__":
    main()
