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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TextIO

import prctl

from .. import __version__
from ..proto import config as settings
from ..proto.errors import HomeostatError
from . import control, daemon, listeners, metrics, protections, trace
from .child import Child
from .ending import Ending, home_error
from .epochs import Epochs
from .guarded import Guard
from .hangs import Hangs
from .identities import Identities
from .launch import Launcher
from .lifecycle import State
from .log import Log
from .notify import Notifier, fresh, summary
from .nursery import ENTRY, Nursery
from .process import Exit, children, kill_strays, reap_strays
from .reports import Crash, Reports
from .secrets import Secrets, troubles
from .specs import groups
from .tree import Tree
from .upkeep import Upkeep
from .views import Views

LEAVE_S = 1.0
"""Longest wait at the end for processes that have been killed already."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def run(
    home: Path,
    config: settings.Config,
    *,
    config_path: Path | None,
    out: TextIO,
    entry: str = ENTRY,
    guard: Guard | None = None,
) -> int:
    """Run a home until it is told to stop; give the exit code. Prints one line ``ready …`` to ``out``."""
    try:
        home = _absolute(home)
        listeners.check_paths(home)
        protections.check_kernel(config)
        with contextlib.ExitStack() as stack:
            try:
                supervisor = _Supervisor(
                    home,
                    config,
                    out=out,
                    entry=entry,
                    stack=stack,
                    config_path=config_path,
                    guard=guard or Guard(),
                )
            except OSError as error:
                raise home_error(error, home) from error
            ending = supervisor.serve()
    except HomeostatError as error:
        ending = Ending.of(error)
    if ending.text:
        print(f"homeostat: {ending.text}", file=sys.stderr, flush=True)
    return ending.exit_code


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
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # A guardian held SIGHUP back until now.
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
        guard: Guard,
    ) -> None:
        self._home, self._config, self._out = home, config, out
        self._signals = stack.enter_context(_Signals.taken())  # First: a stop must find nothing half made.
        os.umask(0o077)
        self._guard = guard
        self._notifier = Notifier.taken(os.environ)
        stack.callback(self._notifier.close)
        identities = Identities.of(config)
        daemon.prepare(home, identities)
        self._lock = daemon.lock(home)
        stack.callback(os.close, self._lock)
        daemon.write_pid(self._lock)
        self._log = stack.enter_context(contextlib.closing(Log(config.log, home / "log")))
        self._log("info", "start", pid=os.getpid(), home=home, config=config_path, version=__version__)
        for agent, reason in troubles(config):
            self._log("warning", "model_key", agent=agent, reason=reason)
        self._listeners = listeners.listen(home, config, identities)
        stack.callback(self._listeners.close)
        scrapes = listeners.listen_tcp(config.metrics.listen, "metrics.listen")
        stack.callback(scrapes.close)
        self._metrics_url = f"http://{listeners.address_of(scrapes)}/metrics"
        protections.check_home(home, config)
        self._group = protections.control_group(home, config, identities, self._log)
        stack.callback(self._group.close)
        prctl.set_child_subreaper(True)
        stack.callback(prctl.set_child_subreaper, False)
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._hangs = Hangs(config.supervision, self._selector)
        stack.callback(self._hangs.close)
        self._epochs = Epochs(home / "run" / "epochs", used_before=_has_journal(home))
        self._tree = self._make_tree(identities, entry)
        self._upkeep = Upkeep(
            config,
            config_path,
            tree=self._tree,
            renew=self._take_over,
            selector=self._selector,
            manager=self._notifier,
            log=self._log,
        )
        self._tree.telling.drained = self._upkeep.on_drained
        self._reports = Reports(home / "log" / "crashes", self._log, self._secrets)
        stack.callback(self._reports.close)
        self._tree.report = self._report
        self._server = control.Server(self._listeners.control, self._selector, self._answer)
        self._selector.register(self._signals.read, selectors.EVENT_READ, self._on_signals)
        guard.watch(self._selector, self._log)
        self._serve_metrics(stack, scrapes)
        self._views = Views(home, self._tree, self._listeners, self._metrics_url)
        self._announced = False

    def _make_tree(self, identities: Identities, entry: str) -> Tree:
        data = settings.to_bytes(self._config)
        kin = groups(self._config)
        self._epochs.reserve([str(spec.id) for group in kin for spec in group.members])
        secrets = Secrets.taken(self._config)
        launcher = self._launcher = Launcher(
            self._home,
            data,
            identities,
            self._epochs,
            self._listeners,
            secrets,
            self._hangs.kick,
            self._group,
        )
        return Tree(
            kin,
            self._config.supervision,
            launcher=launcher,
            make_nursery=lambda: Nursery(self._home, launcher.config, launcher.secrets.public, entry),
            selector=self._selector,
            log=self._log,
        )

    def _take_over(self, config: settings.Config, whole: bool) -> None:
        """Start workers with this configuration from now on; ``whole``: also nursery and spares are of it."""
        self._config = config
        self._launcher.config = settings.to_bytes(config)
        self._launcher.secrets = Secrets.taken(config)
        for agent, reason in troubles(config):
            self._log("warning", "model_key", agent=agent, reason=reason)
        if whole:
            try:
                self._tree.renew()
            except OSError as error:
                self._tree.stop(Ending.of(home_error(error, self._home)))

    def _serve_metrics(self, stack: contextlib.ExitStack, listener: socket.socket) -> None:
        server = metrics.Server(
            listener,
            self._home / "run" / "metrics",
            self._snapshot,
            lambda trace: self._log("error", "scrape_failed", trace=trace),
        )
        server.start()
        stack.callback(server.close)

    def _secrets(self) -> list[str]:
        return list(self._launcher.secrets.kept.values())

    def _report(self, child: Child, exit_: Exit) -> Callable[[], str]:
        """Take the facts of a crash before the child's descriptors are given back."""
        now_s, word = time.monotonic(), child.phase()
        crash = Crash(
            worker=child.name,
            pid=child.pid,
            epoch=child.epoch,
            exit=exit_,
            reason=child.blame,
            state=child.state.value,
            phase=word.name if word is not None else "",
            subject=word.subject if word is not None else "",
            lifetime_s=now_s - child.started_at_s,
            served_s=None if child.ready_at_s is None else now_s - child.ready_at_s,
            stacks="" if child.trace_fd is None else trace.read(child.trace_fd),
            log=self._home / "log" / f"{child.name}.log",
        )
        return cache(lambda: self._reports.crashed(crash))

    # -- the loop --------------------------------------------------------------------------------------------
    def serve(self) -> Ending:
        """Start everything, serve until the stop is done."""
        self._tree.start()
        while self._due_done():
            due_s = self._tree.due_s()
            beat_s = self._notifier.due_s
            dues = (self._hangs.due_s, due_s, beat_s, self._upkeep.due_s())
            wait_s = min(one for one in dues if one is not None) - time.monotonic()
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
        beat_s = self._notifier.due_s
        if now_s >= self._hangs.due_s or (beat_s is not None and now_s >= beat_s):
            self._look(now_s)
        self._tree.tick(now_s)
        self._upkeep.tick(now_s)
        self._say_ready()
        self._say_status()
        self._reports.settle()
        return not self._tree.done

    def _look(self, now_s: float) -> None:
        """Look after workers, nursery and callers."""
        found = self._hangs.look(self._tree, now_s)
        self._tree.look(now_s)
        stopping = self._tree.ending is not None
        self._notifier.beat(
            fresh(ready=self._tree.ready, stopping=stopping, hung=found.hung, stopped=[*found.stopped])
        )
        self._server.drop_idle(now_s)
        self._log.look()

    def _say_status(self) -> None:
        if self._notifier.active:
            ready = (child.state is State.READY for child in self._tree.children.values())
            self._notifier.status(summary(ready, stopping=self._tree.ending is not None))

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
        self._guard.serving()
        self._notifier.ready()
        self._log("info", "serving", metrics=self._metrics_url)

    def _on_signals(self) -> None:
        numbers = set(self._signals.read.recv(4096))
        if signal.SIGHUP in numbers:
            self._upkeep.hangup()
        if numbers & {signal.SIGTERM, signal.SIGINT}:
            if self._tree.ending is not None:
                self._log("warning", "stop_hurried")
                self._tree.kill_all()
            else:
                self._stop()
        self._tree.reap()
        self._hangs.soon()  # SIGCHLD tells of stops too.

    def _stop(self) -> None:
        self._guard.stopping()
        self._notifier.stopping()
        self._tree.stop(Ending(0))

    # -- what is shown ---------------------------------------------------------------------------------------
    def _answer(self, request: control.Request) -> control.Reply:
        if isinstance(request, control.Stop):
            self._stop()
            return control.Stopping(pid=os.getpid())
        if isinstance(request, control.Restart):
            return self._upkeep.restart(request)
        if isinstance(request, control.Reload):
            return self._upkeep.reload()
        if isinstance(request, control.Progress):
            return self._upkeep.progress(request)
        return self._views.status(self._guard.pid, resources=request.resources)

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


def _has_journal(home: Path) -> bool:
    return any((home / "journal").iterdir())
