"""A program: an executor that plays a rewind or a terminal's close, and kills itself at a named point of it.

Owns: nothing that survives it.
Must not know: what the test expects.
Invariant: the death is a SIGKILL of its own process, at the point; without a point it ends in order.
Source: DESIGN §2, law 3; crashing.py beside it plays single calls.

Arguments: home, descriptor of the zygote's socket, crash point, the act: ``call``, ``undo``, ``type`` or
``close``, the last also ``close again``. Prints what became of it as a line.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from homeostat.proto import messages as m
from homeostat.proto.ids import EffectClass, Key, TaskId
from homeostat.workers.executor import calls as c, merge, shell, undo
from tests.fakes.clocked_loop import ClockedLoop
from tests.integration.executor.bench import Handed
from tests.integration.executor.crashing import before, die_at

TASK = TaskId("t1")
CALLS, OPEN, SEND, CLOSE = (Key("1" * 32), Key("2" * 32)), Key("3" * 32), Key("4" * 32), Key("5" * 32)
COMMANDS = ("echo one >> edited; rm gone; mkdir d; echo x > d/x", "echo two >> edited; mv d/x moved; rmdir d")


def arm(point: str) -> None:
    """Put the death where it is wanted."""
    name, _, number = point.partition(":")
    if name == "undo":
        at = functools.partial(die_at, wanted=int(number), seen=[])
        undo.run = functools.partial(undo.run, at=at)
    elif name == "merge":
        at = functools.partial(die_at, wanted=int(number), seen=[])
        merge.commit = functools.partial(merge.commit, at=at)
    elif name == "renamed":
        before(shell.ExecutorShell, "_happened", lambda _, event: isinstance(event, c.TerminalClosed))
    elif name == "staged":
        before(ClockedLoop, "post", lambda _, said: isinstance(said, m.StagedDiff))
    elif name == "admitted":
        before(shell.ExecutorShell, "on_message", lambda _, said: isinstance(said, m.Merge))
    else:
        assert name == "none", point


class Life:
    """One executor, asked as a gate would."""

    def __init__(self, home: Path, zygote: int) -> None:
        self.loop = ClockedLoop()
        self.workspace = str(home / "workspaces" / TASK)
        self.worker = shell.make(Handed(home, str(home), {"zygote": zygote}), self.loop)
        self.worker.on_welcome()

    def execute(
        self, key: Key, tool: str, klass: EffectClass, *, resumed: bool = False, **args: object
    ) -> m.Ended:
        """One call to its end; what it did is admitted."""
        said = len(self.loop.posted)
        data, stage = msgspec.json.encode(args), tool.startswith("terminal.")
        execute = m.Execute(key, TASK, tool, data, klass, self.workspace, 60.0, 1 << 20, resumed, stage=stage)
        self.worker.on_message(execute)
        while True:
            self.loop.run_until(lambda: len(self.loop.posted) > said)  # noqa: B023
            message = self.loop.posted[said]
            said += 1
            if isinstance(message, m.StagedDiff) and message.key == key:
                self.worker.on_message(m.Merge(key, message.diff.digest))
            elif isinstance(message, m.Ended) and message.key == key:
                return message

    # -- the acts ------------------------------------------------------------------------------------------
    def call(self) -> str:
        """Two calls over each other."""
        for key, command in zip(CALLS, COMMANDS, strict=True):
            ended = self.execute(key, "shell.run", "staged", command=command)
            assert ended.status == "ok", ended
        return "called"

    def undo(self) -> str:
        """Take both back."""
        self.worker.on_message(m.Undo("u", TASK, self.workspace, CALLS[::-1]))
        self.loop.run_until(lambda: any(isinstance(one, m.Undone) for one in self.loop.posted))
        (answer,) = [one for one in self.loop.posted if isinstance(one, m.Undone)]
        return f"undone {answer.trouble or 'whole'}" + (" midway" if answer.midway else "")

    def close(self) -> str:
        """Type into a terminal what it does, and close it with what it did."""
        self.execute(OPEN, "terminal.open", "once", command="echo line >> counter; echo rea''dy; cat")
        screen = ""
        while "ready" not in screen:
            screen = self.execute(SEND, "terminal.screen", "read", terminal="t1").text
        return self._closed(resumed=False)

    def close_again(self) -> str:
        """A new gate, or a new life, is asked for the same close."""
        return self._closed(resumed=True)

    def _closed(self, *, resumed: bool) -> str:
        ended = self.execute(CLOSE, "terminal.close", "once", resumed=resumed, terminal="t1", keep=True)
        return f"closed {ended.status} {ended.text.splitlines()[-1]}"


def play(home: str, zygote: str, point: str, act: str) -> None:
    """One life."""
    arm(point)
    life = Life(Path(home), int(zygote))
    acts: dict[str, Callable[[], str]] = {
        "call": life.call, "undo": life.undo, "close": life.close, "close again": life.close_again,
    }  # fmt: skip
    print(acts[act](), flush=True)
    life.worker.on_stop(5.0)
    life.loop.run_until(lambda: life.loop.finished)


if __name__ == "__main__":
    play(*sys.argv[1:])
