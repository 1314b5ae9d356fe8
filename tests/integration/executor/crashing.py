"""A program: an executor that plays one call and kills itself at a named point of it.

Owns: nothing that survives it.
Must not know: what the test expects.
Invariant: the death is a SIGKILL of its own process, at the point; without a point it ends in order.
Source: DESIGN §2, law 3.

Arguments: home, descriptor of the zygote's socket, crash point, the encoded Execute as hexadecimal digits.
Prints each posted message as a line: its type, then its text or digest. Merges what is staged.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from homeostat.proto import messages as m
from homeostat.workers.executor import calls as c, ledger, merge, sandboxes, shell
from tests.fakes.clocked_loop import ClockedLoop
from tests.integration.executor.bench import Handed


def die(*_: object, **__: object) -> None:
    """Now."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, is_it: Callable[..., bool] = lambda *_: True) -> None:
    """Die when this is called with such arguments."""
    real = getattr(owner, name)

    @functools.wraps(real)
    def dying(*args: Any, **kwargs: Any) -> Any:
        if is_it(*args):
            die()
        return real(*args, **kwargs)

    setattr(owner, name, dying)


def arm(point: str) -> None:
    """Put the death where it is wanted."""
    if point.startswith("merge:"):
        at = functools.partial(die_at, wanted=int(point.removeprefix("merge:")), seen=[])
        merge.commit = functools.partial(merge.commit, at=at)
        return
    {
        "none": lambda: None,
        "before_started": lambda: before(ledger.Ledger, "put"),
        "before_launch": lambda: before(sandboxes.Sandboxes, "start"),
        "after_launch": lambda: before(shell.ExecutorShell, "launched"),
        "after_exit": lambda: before(shell.ExecutorShell, "exited"),
        "before_staged": lambda: before(ClockedLoop, "post", lambda _, said: isinstance(said, m.StagedDiff)),
        "after_staged": lambda: before(
            shell.ExecutorShell, "on_message", lambda _, said: isinstance(said, m.Merge)
        ),
        "after_merge": lambda: before(
            shell.ExecutorShell, "_happened", lambda _, e: isinstance(e, c.MergeEnded)
        ),
        "before_ended": lambda: before(ClockedLoop, "post", lambda _, said: isinstance(said, m.Ended)),
    }[point]()


def die_at(step: str, *, wanted: int, seen: list[str]) -> None:
    """The hook of a merge: die at its so-manieth step."""
    if len(seen) == wanted:
        die()
    seen.append(step)


def play(handed: shell.Context, execute: m.Execute) -> None:
    """The call, from its asking to its end."""
    loop = ClockedLoop()
    worker = shell.make(handed, loop)
    worker.on_welcome()
    worker.on_message(execute)
    said = 0
    while True:
        loop.run_until(lambda: len(loop.posted) > said)  # noqa: B023
        message = loop.posted[said]
        said += 1
        if isinstance(message, m.Keeping) or message.key != execute.key:
            continue  # What an earlier life left is told again; that is not this call's story.
        if isinstance(message, m.Ended):
            print("ended", message.status, message.text.replace("\n", "|"), flush=True)
            break
        print("staged", message.diff.digest, flush=True)
        worker.on_message(m.Merge(message.key, message.diff.digest))
    worker.on_stop(5.0)
    loop.run_until(lambda: loop.finished)


if __name__ == "__main__":
    arm(sys.argv[3])
    play(
        Handed(Path(sys.argv[1]), sys.argv[1], {"zygote": int(sys.argv[2])}),
        msgspec.msgpack.decode(bytes.fromhex(sys.argv[4]), type=m.Execute),
    )
