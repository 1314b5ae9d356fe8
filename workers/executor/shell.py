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
from . import calls as c, core
from .artifacts import Artifacts
from .egress import Egress
from .jobs import Jobs
from .ledger import Ledger
from .quotas import Watch
from .sandboxes import Keeper, Sandboxes, Watches
from .stages import Found, Stages
from .staging import Staging
from .streams import Capture
from .terminals.desk import Desk, Told
from .tools import terminals
from .tools.orders import limit_s, order
from .unstageable import Unstageables
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
        """``zygote`` is ours; ``attach``, if it is there, is where people come to a terminal."""


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
        self._core = core.Executor(terminals=context.config.terminals)
        self._ledger = Ledger(context.home / "ledger" / str(context.index))
        self._artifacts = Artifacts(context.home / "artifacts", context.index)
        self._workspaces = Workspaces(context.home, context.home_name, owner)
        quotas = context.config.quotas
        self._stages = Stages(context.home / "stages" / str(context.index), self._workspaces, owner, quotas)
        self._jobs = Jobs()
        watch = partial(Watch, quotas, loop, self._jobs)
        self._staging = Staging(self._stages, self._ledger, self._jobs, self._happened, watch)
        zygote = ZygoteClient(socket.socket(fileno=context.fds["zygote"]))
        try:
            zygote.wait_served()  # Else we might call an effect in doubt that is still about to happen.
        except ZygoteGoneError:
            self.zygote_gone()
        except ZygoteSilentError as error:
            print(error.message, file=sys.stderr, flush=True)
            sys.exit(COMPANION_HANGS_EXIT)
        self._sandboxes = Sandboxes(zygote, loop, self, Egress(context.home, loop))
        listener = context.fds.get("attach")
        self._desk = Desk(
            loop, self._sandboxes, Told(self._happened, loop.post, self._stages.rename), listener
        )
        self._unstageables = Unstageables(allowed="overlay" in self._config.sandbox.may_be_missing)
        self._todo: deque[c.Effect] = deque()
        self._timer: Timer | None = None
        self._due: float | None = None
        self._stopping = self._welcomed = self._finished = False

    def start(self) -> None:
        """Settle what an earlier life left, then serve."""
        wanted = self._ledger.all_stages()
        self._stages.settle(self._workspace_of, lambda key: self._ledger.blind or key in wanted)
        self._loop.watch(self._jobs.fd, self._jobs_done)
        for key, entry in self._ledger.entries():
            if entry.state == "live":
                self._core.terminals.remember(entry, key)
            self._do(self._core.found(entry))
        self._loop.ready()

    def _workspace_of(self, key: Key) -> str:
        entry = self._ledger.get(key)
        return entry.workspace if entry else ""

    # -- the loop's calls -----------------------------------------------------------------------------
    def on_welcome(self) -> None:
        """A gate knows us; what it wants it will ask for. What ended unheard by us it says when it knows."""
        self._welcomed = True
        lost = self._core.terminals.lost_tasks()
        if tasks := (*self._ledger.kept_tasks(), *self._stages.undoing_tasks(), *lost):
            self._loop.post(m.Keeping(tuple(dict.fromkeys(tasks))))
        for told in self._unstageables.told_again():
            self._loop.post(told)

    def on_message(self, message: m.ToExecutor) -> None:
        """One message of the gate."""
        now = time.monotonic()
        match message:
            case m.Execute():
                effects = self._core.asked(self._asked(message), now)
            case m.Merge():
                effects = self._core.merge(message) or self._stuck(message, None, now)
            case m.Discard():
                effects = self._core.discard(message, now) or self._stuck(message, message, now)
            case m.Abort():
                known = self._core.knows(message.key)
                effects = self._core.abort(message, None if known else self._ledger.get(message.key), now)
            case m.Forget():
                effects = self._core.forget(message)
            case m.EndTask():
                effects = self._complete_all(message.task, now) + self._core.end_task(message, now)
            case m.Undo():
                effects = self._core.undo(message, self._place(message.workspace), now)
            case m.ReadDiff():
                self._jobs.submit(message.key, partial(self._stages.show, message), self._loop.post)
                effects = []
            case m.HoldTask():
                effects = self._core.hold_task(message, now)
            case m.Lend():
                effects = self._core.terminals.lend(message, self._desk.why_not_lent)
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
            if c.works_on_stage(execute) and (entry is not None or execute.resumed):
                stage = self._stages.find(key)
        place = self._place(execute.workspace)
        return c.Asked(
            execute, limit_s(execute), entry, stage, self._ledger.blind, place, terminals.meant(execute)
        )

    def _stuck(self, message: m.Merge | m.Discard, refusal: m.Discard | None, now: float) -> list[c.Effect]:
        """The gate's word on a call that is not open any more: a merge that stopped midway still hears it."""
        key = message.key
        if self._core.knows(key) or self._stages.find(key) != "committed":
            return []
        workspace, task = self._stages.origin(key)
        if not workspace:
            return []
        execute = m.Execute(key, TaskId(task), "", b"", "staged", workspace, 0.0, 0)
        return self._core.stuck(execute, self._place(workspace), self._ledger.get(key), refusal, now)

    def _complete_all(self, task: TaskId, now: float) -> list[c.Effect]:
        """What is half merged of an ended task gets its turn in its workspace before it is swept."""
        effects: list[c.Effect] = []
        for key in self._stages.half_merged(self._ledger.stages_of(task)):
            effects += self._stuck(m.Merge(key, ""), None, now)
        return effects

    def _place(self, path: str) -> str:
        with suppress(WorkspaceError):  # the launch will meet it again, and tell
            return self._workspaces.place(path)
        return ""

    # -- what the sandboxes say -----------------------------------------------------------------------
    def launched(self, key: Key, protection: str) -> None:
        """A command runs."""
        self._happened(c.Launched(key, protection))

    def not_launched(self, key: Key, text: str, no_overlay: str = "") -> None:
        """A command could not be run; perhaps because its changes can't be staged."""
        if no_overlay and (workspace := self._core.workspace_of(key)):
            text, told = self._unstageables.met(workspace, no_overlay)
            if told is not None:
                self._loop.post(told)
        self._happened(c.NotLaunched(key, text))

    def stopped(self, key: Key) -> None:
        """A sandbox stands still, and with it every call that is at it."""
        for one in self._desk.still(key):
            self._happened(c.Stopped(one))

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
                self._launch(effect)
            case c.Kill() | c.Freeze() | c.Thaw():
                self._desk.treat(effect)
            case c.UseTerminal() | c.CloseTerminal() | c.HoldTerminal() | c.LendTerminal() | c.DropTerminal():
                self._desk.do(effect)
            case c.TakeDiff() | c.MergeStage() | c.RollForward() | c.PutAside() | c.DiscardStage():
                self._staging.treat(effect)
            case c.TakeBack() | c.SweepTask():
                self._staging.treat(effect)
            case _:
                assert_never(effect)

    def _launch(self, launch: c.Launch) -> None:
        """Everything up to the zygote's answer. Nothing was run when any of it fails."""
        execute, place = launch.execute, launch.place
        key = execute.key
        workspace_fd = stage_fd = None
        try:
            self._ledger.check_holds(key)  # if we were killed now, nobody would know that it was begun
            lives_on = execute.tool == "terminal.open"
            made = terminals.order(execute, self._config) if lives_on else order(execute, self._config)
            workspace_fd = self._workspaces.open(execute.workspace)
            if place_of(workspace_fd) != place:
                raise WorkspaceError(f"the workspace {execute.workspace} was exchanged while the call waited")
            if c.works_on_stage(execute):
                work = self._stages.create(key, os.dup(workspace_fd), execute.workspace, execute.task)
                stage_fd = work.stage.fd
            elif execute.klass != "read":
                self._stages.counts.forget(place)  # what it writes, it writes unseen
            output: Capture | Keeper = (
                self._desk.open(execute, launch.terminal)
                if lives_on
                else Capture(self._artifacts.writer(execute.output_limit_bytes), made.text_limit_bytes)
            )
            self._sandboxes.start(key, made, workspace_fd, stage_fd, output)
        except (HomeostatError, OSError) as error:
            text = error.message if isinstance(error, HomeostatError) else str(error)
            self._happened(c.NotLaunched(key, text))
        finally:
            if workspace_fd is not None:
                os.close(workspace_fd)

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
            self._desk.close()
            self._sandboxes.close()
            self._loop.unwatch(self._jobs.fd)
            self._staging.close()
            self._jobs.close()
            self._stages.close()
            self._ledger.close(settled=self._welcomed)
            self._loop.finish()


def make(context: Context, loop: Loop) -> ExecutorShell:
    """The worker, ready to be run."""
    worker = ExecutorShell(context, loop)
    worker.start()
    return worker
