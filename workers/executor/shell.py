"""Does what core.py decides: ledger, sandboxes, stages, artifacts, words to the gate.

Owns: the composition of the executor and the order in which effects are done.
Must not know: when anything is to be done.
Invariants: the ledger is touched by the loop's thread alone; an effect is begun only when all before it are
            done or queued behind each other in their call's lane; when the zygote ends, so does this process.
Source: DESIGN §6, §9; workers/runtime.py.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn, Protocol, assert_never

from ...proto import messages as m
from ...proto.config import Config
from ...proto.errors import COMPANION_HANGS_EXIT, HomeostatError
from ...proto.ids import Key, TaskId
from ...sandbox.client import ZygoteClient, ZygoteGoneError, ZygoteSilentError
from . import calls as c
from . import core
from .artifacts import Artifacts
from .jobs import Jobs
from .ledger import Ledger
from .sandboxes import Sandboxes, Watches
from .stages import Found, Stages
from .streams import Capture
from .tools.orders import limit_s, order
from .workspaces import WorkspaceError, Workspaces, command_owner, place_of

_ZYGOTE_GONE_EXIT = 70  # EX_SOFTWARE of sysexits.h; the supervisor restarts the pair whatever the number


class Context(Protocol):
    """What this worker is handed (workers/runtime.py)."""

    @property
    def index(self) -> int:
        """Its number among the executors."""

    @property
    def home(self) -> Path:
        """The home folder as this process reaches it."""

    @property
    def home_name(self) -> str:
        """Its absolute path."""

    @property
    def config(self) -> Config:
        """All settings."""

    @property
    def fds(self) -> dict[str, int]:
        """``zygote`` is ours."""


class Timer(Protocol):
    """A pending call."""

    def cancel(self) -> None:
        """Never call it."""


class Loop(Watches, Protocol):
    """The services of the loop that this worker uses."""

    def post(self, message: m.FromWorker) -> None:
        """Tell the gate, reliably and in order."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call once."""

    def ready(self) -> None:
        """Tell the supervisor."""

    def finish(self) -> None:
        """Leave."""


class ExecutorShell:
    """The worker as the loop drives it."""

    def __init__(self, context: Context, loop: Loop) -> None:
        self._loop = loop
        self._config = context.config
        owner = command_owner(context.config.users.base)
        self._core = core.Executor()
        self._ledger = Ledger(context.home / "ledger" / str(context.index))
        self._artifacts = Artifacts(context.home / "artifacts", context.index)
        self._workspaces = Workspaces(context.home, context.home_name, owner)
        self._stages = Stages(context.home / "stages" / str(context.index), self._workspaces, owner)
        self._jobs = Jobs()
        zygote = ZygoteClient(socket.socket(fileno=context.fds["zygote"]))
        try:
            zygote.wait_served()  # Else we might call an effect in doubt that is still about to happen.
        except ZygoteGoneError:
            self.zygote_gone()
        except ZygoteSilentError as error:
            print(error.message, file=sys.stderr, flush=True)
            sys.exit(COMPANION_HANGS_EXIT)
        self._sandboxes = Sandboxes(zygote, loop, self)
        self._todo: deque[c.Effect] = deque()
        self._timer: Timer | None = None
        self._due: float | None = None
        self._stopping = self._welcomed = self._finished = False

    def start(self) -> None:
        """Settle what an earlier life left, then serve."""
        wanted = self._ledger.all_stages()
        self._stages.settle(self._workspace_of, lambda key: self._ledger.blind or key in wanted)
        self._loop.watch(self._jobs.fd, self._jobs_done)
        for _, entry in self._ledger.entries():
            self._do(self._core.found(entry))
        self._loop.ready()

    def _workspace_of(self, key: Key) -> str:
        entry = self._ledger.get(key)
        return entry.workspace if entry else ""

    # -- the loop's calls -----------------------------------------------------------------------------
    def on_welcome(self) -> None:
        """A gate knows us; what it wants it will ask for. What ended unheard by us it says when it knows."""
        self._welcomed = True
        if tasks := self._ledger.kept_tasks():
            self._loop.post(m.Keeping(tasks))

    def on_message(self, message: m.ToExecutor) -> None:
        """One message of the gate."""
        now = time.monotonic()
        match message:
            case m.Execute():
                effects = self._core.asked(self._asked(message), now)
            case m.Merge():
                effects = self._core.merge(message)
            case m.Discard():
                effects = self._core.discard(message, now)
            case m.Abort():
                known = self._core.knows(message.key)
                effects = self._core.abort(message, None if known else self._ledger.get(message.key), now)
            case m.Forget():
                effects = self._core.forget(message)
            case m.EndTask():
                effects = self._core.end_task(message, now)
            case _:
                assert_never(message)
        self._do(effects)

    def on_stop(self, deadline_s: float) -> None:
        """Begin nothing; leave when what is under way has ended, or most of the time is over."""
        self._core.stop()
        self._stopping = True
        self._loop.call_later(0.8 * deadline_s, self._finish)
        self._settle()

    def _asked(self, execute: m.Execute) -> c.Asked:
        key, entry = execute.key, None
        stage: Found = "none"
        if not self._core.knows(key) and execute.klass != "read":
            entry = self._ledger.get(key)
            if execute.klass == "staged" and (entry is not None or execute.resumed):
                stage = self._stages.find(key)
        return c.Asked(
            execute, limit_s(execute), entry, stage, self._ledger.blind, self._place(execute.workspace)
        )

    def _place(self, path: str) -> str:
        with suppress(WorkspaceError):  # the launch will meet it again, and tell
            return self._workspaces.place(path)
        return ""

    # -- what the sandboxes say -----------------------------------------------------------------------
    def launched(self, key: Key, protection: str) -> None:
        """A command runs."""
        self._happened(c.Launched(key, protection))

    def not_launched(self, key: Key, text: str) -> None:
        """A command could not be run."""
        self._happened(c.NotLaunched(key, text))

    def stopped(self, key: Key) -> None:
        """A sandbox stands still."""
        self._happened(c.Stopped(key))

    def exited(self, event: c.Exited, capture: Capture) -> None:
        """A command ended; put its output away, beside the loop if that takes the disk."""
        self._happened(event)
        if capture.is_short():
            self._happened(c.Closed(event.key, capture.finish()))
        else:
            self._jobs.submit(
                event.key, capture.finish, lambda output: self._happened(c.Closed(event.key, output))
            )

    def zygote_gone(self) -> NoReturn:
        """Nothing can be done any more: the supervisor restarts the pair."""
        print("the zygote is gone, and every sandbox with it", file=sys.stderr, flush=True)
        sys.exit(_ZYGOTE_GONE_EXIT)

    def _jobs_done(self) -> None:
        self._jobs.deliver()
        self._settle()

    def _happened(self, event: c.Event) -> None:
        self._do(self._core.happened(event, time.monotonic()))

    # -- doing ----------------------------------------------------------------------------------------
    def _do(self, effects: list[c.Effect]) -> None:
        """Do them in order; what follows from doing one comes after all that was decided before it."""
        nested = bool(self._todo)
        self._todo.extend(effects)
        while self._todo and not nested:
            self._perform(self._todo[0])
            self._todo.popleft()
        if not nested:
            self._settle()

    def _perform(self, effect: c.Effect) -> None:
        match effect:
            case c.Post():
                self._loop.post(effect.message)
            case c.Record():
                self._ledger.put(effect.key, effect.entry)
            case c.Erase():
                self._ledger.erase(effect.key)
            case c.Launch():
                self._launch(effect.execute, effect.place)
            case c.Kill() | c.Freeze() | c.Thaw():
                self._sandboxes.treat(effect)
            case c.TakeDiff():
                self._jobs.submit(effect.key, partial(self._stages.read, effect.key), self._happened)
            case c.MergeStage():
                self._ledger.keep_stage(effect.task, effect.key)
                self._jobs.submit(effect.key, partial(self._stages.merge, effect.key), self._happened)
            case c.RollForward():
                self._ledger.keep_stage(effect.task, effect.key)
                roll = partial(self._stages.roll_forward, effect.key, effect.workspace)
                self._jobs.submit(effect.key, roll, self._happened)
            case c.DiscardStage():
                self._jobs.submit(effect.key, partial(self._stages.discard, effect.key), lambda _: None)
            case c.SweepTask():
                self._sweep(effect.task)
            case _:
                assert_never(effect)

    def _launch(self, execute: m.Execute, place: str) -> None:
        """Everything up to the zygote's answer. Nothing was run when any of it fails."""
        key = execute.key
        workspace_fd = stage_fd = None
        capture = None
        try:
            self._ledger.check_holds(key)  # if we were killed now, nobody would know that it was begun
            made = order(execute, self._config)
            workspace_fd = self._workspaces.open(execute.workspace)
            if place_of(workspace_fd) != place:
                raise WorkspaceError(f"the workspace {execute.workspace} was exchanged while the call waited")
            if execute.klass == "staged":
                stage_fd = self._stages.create(key, os.dup(workspace_fd)).stage.fd
            capture = Capture(self._artifacts.writer(execute.output_limit_bytes), made.text_limit_bytes)
            self._sandboxes.start(key, made, workspace_fd, stage_fd, capture)
        except (HomeostatError, OSError) as error:
            text = error.message if isinstance(error, HomeostatError) else str(error)
            self._happened(c.NotLaunched(key, text))
        finally:
            if workspace_fd is not None:
                os.close(workspace_fd)

    def _sweep(self, task: TaskId) -> None:
        for key in self._ledger.stages_of(task):
            self._jobs.submit(key, partial(self._stages.discard, key), partial(self._swept, task, key))

    def _swept(self, task: TaskId, key: Key, _: None) -> None:
        self._ledger.drop_stage(task, key)

    # -- time and end ---------------------------------------------------------------------------------
    def _settle(self) -> None:
        """After anything happened: set the clock for the next deadline, or leave if that is awaited."""
        due = self._core.next_deadline()
        if due != self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = due
            self._timer = (
                None if due is None else self._loop.call_later(max(0.0, due - time.monotonic()), self._expire)
            )
        if self._stopping and self._core.idle() and self._jobs.idle():
            self._finish()

    def _expire(self) -> None:
        self._due = self._timer = None
        self._do(self._core.expire(time.monotonic()))

    def _finish(self) -> None:
        if not self._finished:
            self._finished = True
            self._sandboxes.close()
            self._loop.unwatch(self._jobs.fd)
            self._jobs.close()
            self._stages.close()
            self._ledger.close(settled=self._welcomed)
            self._loop.finish()


def make(context: Context, loop: Loop) -> ExecutorShell:
    """The worker, ready to be run."""
    worker = ExecutorShell(context, loop)
    worker.start()
    return worker
