"""The nursery: everything imported, nothing opened; forks workers that become the supervisor's own children.

Owns: the forks, and what a worker is before its entry runs: parent, identity, descriptors, signals.
Must not know: what a worker does; restarts.
Invariant: a worker runs its entry only if it is the supervisor's child and will die with it.
Source: prctl(2) PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER; pidfd_open(2); unix(7); DESIGN §3 (parentage).

One worker is always forked ahead and parked: it waits on the nursery's socket itself, so that a restart waits
for no fork. It has no role before it has read its start. When it dies before it has answered, a start may
have died with it: so the nursery ends too, and the supervisor makes a new one and asks again.

The order in a worker is fixed by the kernel: PDEATHSIG fires when the intermediate parent ends, so it is
armed after the reparenting; and a change of credentials clears it, so it is armed again after that.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import prctl

from ..proto import codec, config
from ..proto import messages as m
from .identity import COMMAND_OFFSET, become, become_executor, write_maps

FDS_LIMIT = 16
ENVIRONMENT_LIMIT_BYTES = 1 << 20
EXECUTOR_OFFSET = 3
"""Added to ``users.base``; the supervisor numbers all roles (supervisor/identities.py)."""
FORKED, STARTED, MAPPED = b"forked", b"started", b"mapped"
M_ARENA_MAX = -8
"""malloc.h."""
MADV_DONTNEED = 4
"""linux/mman.h."""
REPARENT_S = 5.0
"""Longest wait for the intermediate's end; it has nothing left to do."""
REST_MS = 20
"""How long the next fork waits for the worker that begins: it costs more than a millisecond of processor."""

Entry = Callable[[m.WorkerStart, dict[str, int]], NoReturn]


def main(argv: list[str] | None = None) -> None:
    """Serve until the supervisor hangs up."""
    options = _parser().parse_args(argv)
    prctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != options.supervisor:
        sys.exit(1)
    with open(options.config_fd, "rb") as file:
        settings = config.from_bytes(file.read())
    entry = _load(options.entry, settings)
    gc.collect()
    _give_back_memory()
    gc.freeze()  # What is imported is never looked at again, so its pages stay shared with all workers.
    supervisor = socket.socket(fileno=options.fd)
    supervisor.set_inheritable(False)
    nursery = Nursery(supervisor, options.supervisor, entry, settings.users)
    while nursery.park():
        nursery.rest()
    sys.exit(0 if nursery.hung_up() else 1)


def _give_back_memory() -> None:
    """What only importing needed goes back to the kernel; threads of workers share one arena.

    glibc keeps what is free: mallopt(3), malloc_trim(3); another C library has neither and loses nothing.
    Of the libraries' code (mappings that can be executed and not written, so never changed) some 15 MB were
    touched once; a page that is needed again comes from the page cache.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.mallopt(M_ARENA_MAX, 1)
        libc.malloc_trim(0)
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, access, _, _, inode, *_ = line.split()
        if access == "r-xp" and inode != "0":
            start, end = (int(part, 16) for part in span.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="homeostat.workers.nursery", description="Started by the supervisor."
    )
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--config-fd", type=int, required=True)
    parser.add_argument("--supervisor", type=int, required=True)
    parser.add_argument("--entry", default="homeostat.workers.entry:main")
    return parser


def _load(name: str, settings: config.Config) -> Entry:
    """Import the entry and let it import what its workers need."""
    module_name, _, function = name.partition(":")
    module = importlib.import_module(module_name)
    preload = getattr(module, "preload", None)
    if preload is not None:
        preload(settings)
    entry: Entry = getattr(module, function)
    return entry


def _receive(supervisor: socket.socket) -> tuple[bytes, list[int], int, Any]:
    """socket.recv_fds, with the descriptors closed on exec from their first moment."""
    return socket.recv_fds(supervisor, codec.CONTROL_LIMIT_BYTES, FDS_LIMIT, socket.MSG_CMSG_CLOEXEC)


class Nursery:
    """Keeps one worker parked."""

    def __init__(
        self, supervisor: socket.socket, supervisor_pid: int, entry: Entry, users: config.Users
    ) -> None:
        self._executor_uid = users.base + EXECUTOR_OFFSET
        self._command_uid = users.base + COMMAND_OFFSET
        self._supervisor = supervisor
        self._supervisor_pid = supervisor_pid
        self._entry = entry

    def park(self) -> bool:
        """Fork a worker, wait until it has a start; False when it died before or the supervisor hung up."""
        nursery_end, worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            intermediate = os.fork()
        except OSError as error:
            number = error.errno or errno.EAGAIN
        else:
            if intermediate == 0:
                self._intermediate(worker_end)
            _, status = os.waitpid(intermediate, 0)
            number = os.waitstatus_to_exitcode(status)
        worker_end.close()
        with nursery_end:
            return self._attend(nursery_end) if number == 0 else self._refuse(number)

    def _attend(self, worker: socket.socket) -> bool:
        """Wait until the worker has a start and an identity; False when it ended without a start."""
        has_start = False
        while (word := _word(worker)) not in (STARTED, b""):
            if word == FORKED:
                has_start = True
            else:
                self._map(worker, int(word))
        return has_start

    def _map(self, worker: socket.socket, pid: int) -> None:
        """The executor has made its namespace, whose maps only we, outside of it, can write."""
        try:
            write_maps(pid, self._executor_uid, self._command_uid)
            worker.send(MAPPED)
        except OSError as error:
            # It was killed, or it hears from the end of its socket that there are no maps, and ends itself.
            print(f"no maps for {pid}: {error}", file=sys.stderr, flush=True)
            worker.shutdown(socket.SHUT_WR)

    def rest(self) -> None:
        """Leave the processor to the worker that begins, unless the next start is there already."""
        poll = select.poll()
        poll.register(self._supervisor, select.POLLIN)
        poll.poll(REST_MS)

    def hung_up(self) -> bool:
        """Whether the supervisor has closed its end."""
        poll = select.poll()
        poll.register(self._supervisor, select.POLLRDHUP)
        return bool(poll.poll(0))

    def _intermediate(self, nursery: socket.socket) -> NoReturn:
        """Fork the worker and end, with an errno as exit code; never returns into the nursery's loop."""
        try:
            own = os.pidfd_open(os.getpid())
            if os.fork() == 0:
                self._parked(own, nursery)
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or errno.EAGAIN)
        except BaseException:  # noqa: BLE001 - a forked process must never unwind into its parent's stack
            traceback.print_exc()
        os._exit(errno.EFAULT)

    def _parked(self, intermediate: int, nursery: socket.socket) -> NoReturn:
        """Be the supervisor's child, wait for a start, be the worker."""
        try:
            os.setsid()
            _await_reparenting(intermediate)
            _bind_to(self._supervisor_pid)
            data, received, _, _ = _receive(self._supervisor)
            if not data:
                os._exit(0)
            start: m.WorkerStart = codec.TO_NURSERY.decode(data)
            fds = dict(zip(start.fds, received, strict=True))
            pidfd = os.pidfd_open(os.getpid())
            forked = m.Forked(start.role, start.index, start.epoch, os.getpid())
            # In this order: once the supervisor knows us we may be killed, and that is no loss of a start.
            _tell(nursery, FORKED)
            socket.send_fds(self._supervisor, [codec.encode(forked)], [pidfd])
        except BaseException:  # noqa: BLE001 - the trace goes to the nursery's log, and the nursery ends with it
            traceback.print_exc()
            os._exit(1)
        _worker(start, fds, self._entry, nursery)

    def _refuse(self, number: int) -> bool:
        """The kernel lets us fork no more: answer the next start with that; False at the supervisor's end."""
        data, fds, _, _ = _receive(self._supervisor)
        for fd in fds:
            os.close(fd)
        if not data:
            return False
        start: m.WorkerStart = codec.TO_NURSERY.decode(data)
        failed = m.ForkFailed(start.role, start.index, start.epoch, os.strerror(number))
        self._supervisor.send(codec.encode(failed))
        return True


def _worker(start: m.WorkerStart, fds: dict[str, int], entry: Entry, nursery: socket.socket) -> NoReturn:
    """Be the worker; never returns."""
    status = 1
    try:
        _settle_descriptors(fds, nursery.fileno())
        os.chdir(start.home)
        _take_identity(start, nursery)
        _tell(nursery, STARTED)
        nursery.close()
        _bind_to(start.supervisor_pid)
        _reset_signals()
        _name_process(start)
        gc.enable()
        _take_environment(fds)
        entry(start, fds)
    except SystemExit as error:
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
        status = error.code if isinstance(error.code, int) else 1 if error.code else 0
    except BaseException:  # noqa: BLE001 - the trace goes to the worker's log, the exit status is the crash
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _name_process(start: m.WorkerStart) -> None:
    """Let ps and top tell the workers apart."""
    name = f"{start.role}.{start.index}"
    prctl.set_name(name)
    prctl.set_proctitle(f"homeostat: {name}")


def _settle_descriptors(fds: dict[str, int], nursery: int) -> None:
    """Keep what the worker was given; its output goes to its log."""
    log = fds.pop("log", None)
    if log is not None:
        os.dup2(log, 1)
        os.dup2(log, 2)
    low = 3
    for fd in sorted({*fds.values(), nursery}):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 1 << 20)


def _take_identity(start: m.WorkerStart, nursery: socket.socket) -> None:
    """As root: be the role's own user. The zygote has no uid given and stays root."""
    if start.uid is None or start.gid is None or os.geteuid() != 0:
        return
    base = config.from_bytes(start.config).users.base
    # The base's group may connect to the gate's socket; the gate itself has no need to.
    groups = [] if start.role == "gate" else [base]
    if start.role == "executor":
        become_executor(start.uid, base + COMMAND_OFFSET, groups, lambda: _ask_for_maps(nursery))
    else:
        become(start.uid, start.gid, groups)


def _tell(nursery: socket.socket, word: bytes) -> None:
    """Say how far we are; a nursery that has died meanwhile need not know."""
    with contextlib.suppress(OSError):
        nursery.send(word)


def _word(peer: socket.socket) -> bytes:
    """Give the next packet; none at the end."""
    try:
        return peer.recv(32)
    except ConnectionResetError:
        return b""


def _ask_for_maps(nursery: socket.socket) -> None:
    nursery.send(b"%d" % os.getpid())
    if nursery.recv(len(MAPPED)) != MAPPED:
        raise OSError(errno.EPIPE, "the nursery ended before it had written the maps")


def _await_reparenting(intermediate: int) -> None:
    """Wait until the intermediate has ended: from then on the supervisor is the parent."""
    poll = select.poll()
    poll.register(intermediate, select.POLLIN)
    poll.poll(REPARENT_S * 1000)
    os.close(intermediate)


def _bind_to(supervisor: int) -> None:
    """Arm PDEATHSIG, and only then look who the parent is: one that died before would never be noticed."""
    prctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != supervisor:
        print(
            f"the parent is {os.getppid()} and not the supervisor {supervisor}", file=sys.stderr, flush=True
        )
        os._exit(1)


def _take_environment(fds: dict[str, int]) -> None:
    """Take the variables that are for this worker alone; the nursery itself never had them."""
    fd = fds.pop("env", None)
    if fd is not None:
        data = os.pread(fd, ENVIRONMENT_LIMIT_BYTES, 0)
        os.environ.update(msgspec.msgpack.decode(data, type=dict[str, str]))
        os.close(fd)


def _reset_signals() -> None:
    """Take nothing from the nursery; Python itself needs SIGPIPE ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


if __name__ == "__main__":
    main()
