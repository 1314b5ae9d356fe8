"""The supervisor: composition and event loop.

Owns: the order of starting and stopping everything, signals, the loop.
Must not know: tasks, tools, models; how a worker works.
Invariant: idle, it wakes less than once a second; whatever ends it, no worker outlives it (PDEATHSIG).
Source: DESIGN §3, §7; prctl(2) PR_SET_CHILD_SUBREAPER; signal(7).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

import msgspec
import prctl

from .. import __version__
from ..proto import config as settings
from ..proto.errors import HomeostatError, ProtectionError
from . import control, daemon, listeners, metrics
from .ending import Ending, home_error
from .epochs import Epochs
from .identities import Identities
from .launch import Launcher
from .lifecycle import State
from .liveness import Watch
from .log import Log, open_log
from .notify import notify
from .nursery import ENTRY, Nursery
from .process import children, kill_strays, reap_strays
from .secrets import Secrets, troubles
from .specs import groups
from .tree import Tree

LEAVE_S = 1.0
"""Longest wait at the end for processes that have been killed already."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def run(
    home: Path, config: settings.Config, *, config_path: Path | None, out: TextIO, entry: str = ENTRY
) -> int:
    """Run a home until it is told to stop; give the exit code. Prints one line ``ready …`` to ``out``."""
    try:
        home = _absolute(home)
        listeners.check_paths(home)
        _check_kernel()
        with contextlib.ExitStack() as stack:
            try:
                supervisor = _Supervisor(
                    home, config, out=out, entry=entry, stack=stack, config_path=config_path
                )
            except OSError as error:
                raise home_error(error, home) from error
            ending = supervisor.serve()
    except HomeostatError as error:
        ending = Ending.of(error)
    if ending.text:
        print(f"homeostat: {ending.text}", file=sys.stderr, flush=True)
    return ending.exit_code


def _check_kernel() -> None:
    """Refuse a kernel without the one thing that all confinement rests on. Raises ProtectionError.

    Workers would find it out too, but in any order and after the home was made. Tried in a fork, whose
    modules (2 MB) this process then need not keep; a trial that breaks leaves it to the workers.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            from ..sandbox.probe import user_namespaces  # noqa: PLC0415  see above

            found = user_namespaces()
            if not found.available:
                os.write(write, msgspec.json.encode((found.detail, found.remedy)))
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    if told:
        detail, remedy = msgspec.json.decode(told, type=tuple[str, str])
        raise ProtectionError(f"this kernel gives no user namespaces: {detail}", remedy=remedy)


def _absolute(home: Path) -> Path:
    """Workers have other working folders than we may get: one absolute name for all."""
    return Path(os.path.abspath(home.expanduser()))  # Not resolve(): it lengthens a short symbolic link.


@dataclass
class _Signals:
    """Signals as readable bytes."""

    read: socket.socket
    write: socket.socket

    @classmethod
    @contextlib.contextmanager
    def taken(cls) -> Iterator[_Signals]:
        """Take the signals of this process for the time of the context."""
        read, write = socket.socketpair()
        for one in (read, write):
            one.setblocking(False)
        former = {number: signal.signal(number, _noted) for number in SIGNALS}
        former_fd = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        try:
            yield cls(read, write)
        finally:
            signal.set_wakeup_fd(former_fd)
            for number, handler in former.items():
                signal.signal(number, handler)
            read.close()
            write.close()


def _leave_nobody() -> None:
    """End and reap who came to us as an orphan, as the parked worker does: init may be slow to, or never."""
    kill_strays(set())
    until_s = time.monotonic() + LEAVE_S
    while children() and time.monotonic() < until_s:
        reap_strays(set())
        time.sleep(0.002)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Python needs a handler so that the wakeup descriptor gets the byte; the loop does the rest."""


class _Supervisor:
    """One run of a home."""

    def __init__(
        self,
        home: Path,
        config: settings.Config,
        *,
        out: TextIO,
        entry: str,
        stack: contextlib.ExitStack,
        config_path: Path | None,
    ) -> None:
        self._home, self._config, self._out = home, config, out
        self._signals = stack.enter_context(_Signals.taken())  # First: a stop must find nothing half made.
        os.umask(0o077)
        identities = Identities.of(config)
        daemon.prepare(home, identities)
        self._lock = daemon.lock(home)
        stack.callback(os.close, self._lock)
        daemon.write_pid(self._lock)
        self._log = Log(_opened(stack, home / "log" / "supervisor.log"))
        self._log("info", "start", pid=os.getpid(), home=home, config=config_path, version=__version__)
        for agent, reason in troubles(config):
            self._log("warning", "model_key", agent=agent, reason=reason)
        self._listeners = listeners.listen(home, config, identities)
        stack.callback(self._listeners.close)
        scrapes = listeners.listen_tcp(config.metrics.listen, "metrics.listen")
        stack.callback(scrapes.close)
        self._metrics_url = f"http://{listeners.address_of(scrapes)}/metrics"
        prctl.set_child_subreaper(True)
        stack.callback(prctl.set_child_subreaper, False)
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._watch = Watch(config.supervision.hung_s)
        self._epochs = Epochs(home / "run" / "epochs", used_before=_has_journal(home))
        self._tree = self._make_tree(identities, entry)
        self._server = control.Server(self._listeners.control, self._selector, self._answer)
        self._selector.register(self._signals.read, selectors.EVENT_READ, self._on_signals)
        self._serve_metrics(stack, scrapes)
        self._announced = False
        self._look_s = 0.0

    def _make_tree(self, identities: Identities, entry: str) -> Tree:
        data = settings.to_bytes(self._config)
        kin = groups(self._config)
        self._epochs.reserve([str(spec.id) for group in kin for spec in group.members])
        secrets = Secrets.taken(self._config)
        launcher = Launcher(self._home, data, identities, self._epochs, self._listeners, secrets)
        return Tree(
            kin,
            self._config.supervision,
            launcher=launcher,
            make_nursery=lambda: Nursery(self._home, data, secrets.public, entry),
            selector=self._selector,
            log=self._log,
        )

    def _serve_metrics(self, stack: contextlib.ExitStack, listener: socket.socket) -> None:
        server = metrics.Server(
            listener,
            self._home / "run" / "metrics",
            self._snapshot,
            lambda trace: self._log("error", "scrape_failed", trace=trace),
        )
        server.start()
        stack.callback(server.close)

    # -- the loop --------------------------------------------------------------------------------------------
    def serve(self) -> Ending:
        """Start everything, serve until the stop is done."""
        self._tree.start()
        self._look_s = time.monotonic() + self._watch.every_s
        while self._due_done():
            due_s = self._tree.due_s()
            wait_s = min(self._look_s, due_s if due_s is not None else self._look_s) - time.monotonic()
            for key, _ in self._selector.select(max(0.0, wait_s)):
                key.data()
        self._tree.close()
        _leave_nobody()
        self._server.close()
        try:
            self._epochs.close()
        except OSError as error:  # A full disk: numbers are skipped by it, nothing else is lost.
            self._log("warning", "epochs_not_saved", reason=error.strerror)
        ending = self._tree.ending or Ending(0)
        self._log("info", "stopped", exit_code=ending.exit_code)
        return ending

    def _due_done(self) -> bool:
        """Do what is due; False when the stop is done."""
        now_s = time.monotonic()
        if now_s >= self._look_s:
            self._look(now_s)
            self._look_s = now_s + self._watch.every_s
        self._tree.tick(now_s)
        self._say_ready()
        return not self._tree.done

    def _look(self, now_s: float) -> None:
        """Look for hangs, and for workers that a signal has stopped."""
        alive = [child for child in self._tree.children.values() if child.process is not None]
        hung = self._watch.look(now_s, {child.name: child.phase() for child in alive})
        for child in alive:
            stopped_s = child.process.stopped_since_s if child.process else None
            if child.name in hung:
                self._tree.kill(child.name, f"no progress for {hung[child.name]:.1f} s")
            elif stopped_s is not None and now_s - stopped_s >= self._watch.hung_s:
                self._tree.kill(child.name, f"stopped by a signal for {now_s - stopped_s:.1f} s")
        self._server.drop_idle(now_s)

    def _say_ready(self) -> None:
        """Say once that everyone serves."""
        if self._announced or not self._tree.ready:
            return
        self._announced = True
        client = self._listeners.client.getsockname()
        print(
            f"ready client=ipc://{client} metrics={self._metrics_url} pid={os.getpid()}",
            file=self._out,
            flush=True,
        )
        notify(f"READY=1\nMAINPID={os.getpid()}")
        self._log("info", "serving", metrics=self._metrics_url)

    def _on_signals(self) -> None:
        numbers = set(self._signals.read.recv(4096))
        if signal.SIGHUP in numbers:
            self._log("info", "sighup_ignored", reason="settings are read at the start only")
        if numbers & {signal.SIGTERM, signal.SIGINT}:
            if self._tree.ending is not None:
                self._log("warning", "stop_hurried")
                self._tree.kill_all()
            else:
                self._stop()
        self._tree.reap()

    def _stop(self) -> None:
        notify("STOPPING=1")
        self._tree.stop(Ending(0))

    # -- what is shown ---------------------------------------------------------------------------------------
    def _answer(self, request: control.Request) -> control.Reply:
        if isinstance(request, control.Stop):
            self._stop()
            return control.Stopping(pid=os.getpid())
        tcp = self._listeners.client_tcp
        return control.StatusReply(
            ready=self._tree.ready,
            pid=os.getpid(),
            metrics=self._metrics_url,
            client=f"ipc://{self._listeners.client.getsockname()}",
            client_tcp=f"tcp://{listeners.address_of(tcp)}" if tcp is not None else None,
            server_key=_public_key(self._home) if tcp is not None else None,
            workers=tuple(
                control.WorkerView(
                    child.spec.id.role,
                    child.spec.id.index,
                    child.pid,
                    child.epoch,
                    child.state.value,
                    child.restarts,
                )
                for child in self._tree.children.values()
            ),
        )

    def _snapshot(self) -> metrics.Snapshot:
        """For the thread of the endpoint: only reads fields that the loop replaces whole."""
        rows = tuple(
            metrics.Row(
                child.spec.id.role, child.spec.id.index, child.pid, child.state is State.READY, child.restarts
            )
            for child in self._tree.children.values()
        )
        others = [("supervisor", os.getpid())]
        if (nursery := self._tree.nursery_pid) is not None:
            others.append(("nursery", nursery))
        return metrics.Snapshot(self._tree.ready, __version__, rows, tuple(others))


def _opened(stack: contextlib.ExitStack, path: Path) -> int:
    fd = open_log(path)
    stack.callback(os.close, fd)
    return fd


def _has_journal(home: Path) -> bool:
    return any((home / "journal").iterdir())


def _public_key(home: Path) -> str | None:
    """The gate's public CURVE key, once the gate has made it."""
    try:
        return (home / "keys" / "server.pub").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
