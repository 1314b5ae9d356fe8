"""An executor over a real zygote and real files, driven as a gate would.

Owns: a home, a zygote process, a workspace; everything it starts it ends.
Must not know: what a test is about.
Invariant: the workspace belongs to the uid that commands get, as root and as an ordinary user.
Source: DESIGN §4, §9.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from homeostat.proto import messages as m
from homeostat.proto.config import Config
from homeostat.proto.ids import EffectClass, Key, TaskId
from homeostat.workers.executor.shell import ExecutorShell, make
from homeostat.workers.executor.stage import remove_tree
from homeostat.workers.executor.workspaces import command_owner
from tests.fakes.clocked_loop import ClockedLoop
from tests.fakes.zygote import ZygoteProcess

TASK = TaskId("t1")


@dataclass(frozen=True)
class Handed:
    """What the runtime would hand to the worker."""

    home: Path
    home_name: str
    fds: dict[str, int]
    index: int = 0
    config: Config = field(default_factory=Config)


def remove(home: Path) -> None:
    """Remove a home; an overlay leaves folders (work/work) that rmtree can't enter as an ordinary user."""
    fd = os.open(home.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        remove_tree(fd, home.name)
    finally:
        os.close(fd)


class Bench:
    """One executor."""

    def __init__(self, config: Config | None = None, folder: str = "/var/tmp") -> None:
        self.config = config or Config()
        self.home = Path(tempfile.mkdtemp(prefix="homeostat-test-", dir=folder))
        self.home.chmod(0o711)
        (self.home / "workspaces").mkdir(mode=0o711)
        self.workspace = self.home / "workspaces" / TASK
        self.zygote = ZygoteProcess()
        self._keys = itertools.count(1)
        self.fds: dict[str, int] = {}
        """What else the executor is handed at its next start."""
        self.start()

    def start(self) -> None:
        """The executor begins, perhaps again."""
        self.loop = ClockedLoop()
        self.worker: ExecutorShell = make(
            Handed(
                self.home,
                str(self.home),
                {"zygote": os.dup(self.zygote.owner.fileno()), **self.fds},
                config=self.config,
            ),
            self.loop,
        )
        self.worker.on_welcome()

    def close(self) -> None:
        """End all, remove all."""
        self.stop()
        self.loop.close()
        self.zygote.close()
        remove(self.home)

    def stop(self) -> None:
        """The executor drains and leaves."""
        if not self.loop.finished:
            self.worker.on_stop(5.0)
            self.loop.run_until(lambda: self.loop.finished)

    def file(self, name: str, content: str | bytes) -> Path:
        """A file in the workspace, of the commands' uid."""
        self.own_workspace()
        path = self.workspace / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self._own(path)
        return path

    def own_workspace(self) -> None:
        """Make the workspace as a user would have it, if it is not there yet."""
        if not self.workspace.exists():
            self.workspace.mkdir()
            self._own(self.workspace)

    def _own(self, path: Path) -> None:
        if owner := command_owner(Config().users.base):
            os.chown(path, *owner)

    # -- as a gate -----------------------------------------------------------------------------------------
    def new_key(self) -> Key:
        """A key that was not used yet."""
        return Key(f"{next(self._keys):032x}")

    def send(
        self,
        tool: str,
        klass: EffectClass,
        *,
        key: Key | None = None,
        deadline_s: float = 30.0,
        output_limit_bytes: int = 64 << 20,
        resumed: bool = False,
        workspace: str = "",
        **arguments: object,
    ) -> Key:
        """Ask for a call."""
        key = key or self.new_key()
        args, where = msgspec.json.encode(arguments), workspace or str(self.workspace)
        self.worker.on_message(
            m.Execute(key, TASK, tool, args, klass, where, deadline_s, output_limit_bytes, resumed)
        )
        return key

    def answers(self, key: Key) -> list[m.FromExecutor]:
        """What was said of this call so far."""
        return [message for message in self.loop.posted if getattr(message, "key", None) == key]

    def wait(self, is_true: Callable[[], object], limit_s: float = 30.0) -> None:
        """Serve until it holds."""
        self.loop.run_until(is_true, limit_s)

    def staged(self, key: Key) -> m.StagedDiff:
        """Wait for the diff of a staged call."""
        self.wait(lambda: self.answers(key))
        answer = self.answers(key)[-1]
        assert isinstance(answer, m.StagedDiff), answer
        return answer

    def ended(self, key: Key) -> m.Ended:
        """Wait for the end, admitting whatever was done."""
        self.wait(lambda: self.answers(key))
        answer = self.answers(key)[-1]
        if isinstance(answer, m.StagedDiff):
            self.worker.on_message(m.Merge(key, answer.diff.digest))
            self.wait(lambda: isinstance(self.answers(key)[-1], m.Ended))
            answer = self.answers(key)[-1]
        assert isinstance(answer, m.Ended)
        return answer

    def run(self, tool: str, klass: EffectClass, **arguments: object) -> m.Ended:
        """One call from its asking to its end."""
        return self.ended(self.send(tool, klass, **arguments))  # type: ignore[arg-type]

    def shell(self, command: str, klass: EffectClass = "staged", **arguments: object) -> m.Ended:
        """One shell command."""
        return self.run("shell.run", klass, command=command, **arguments)
