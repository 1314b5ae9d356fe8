"""Live terminals on the executor's bench, asked for as a gate would.

Owns: the words of terminal calls, and what a test wants to read of their answers.
Must not know: what a test is about.
Invariant: a wait ends when what is waited for is there, never after a time.
Source: proto/tools/terminals.py.
"""

from __future__ import annotations

import msgspec

from homeostat.proto import messages as m
from homeostat.proto.ids import EffectClass, Key, TaskId
from tests.integration.executor.bench import TASK, Bench


def ask(bench: Bench, act: str, *, key: Key | None = None, stage: bool = True, task: TaskId = TASK,
        resumed: bool = False, deadline_s: float = 60.0, **arguments: object) -> Key:  # fmt: skip
    """Ask for one terminal call."""
    key = key or bench.new_key()
    args, where = msgspec.json.encode(arguments), str(bench.workspace)
    staged = stage and act != "screen"
    klass: EffectClass = "read" if act == "screen" else "once"
    bench.worker.on_message(
        m.Execute(
            key, task, f"terminal.{act}", args, klass, where, deadline_s, 1 << 20, resumed, stage=staged
        )
    )
    return key


def run(bench: Bench, act: str, **arguments: object) -> m.Ended:
    """One terminal call to its end; what a close did is admitted."""
    return bench.ended(ask(bench, act, **arguments))  # type: ignore[arg-type]


def open_terminal(bench: Bench, command: str = "", **arguments: object) -> str:
    """Open one; its name."""
    if command:
        arguments["command"] = command
    ended = run(bench, "open", **arguments)
    assert ended.status == "ok", ended
    line = next(line for line in ended.text.splitlines() if line.startswith("[terminal "))
    return line.split()[1]


def send(bench: Bench, name: str, text: str = "", *keys: str, **arguments: object) -> m.Ended:
    """Type."""
    return run(bench, "send", terminal=name, text=text, keys=list(keys), **arguments)


def shows(bench: Bench, name: str, wanted: str, limit: int = 100) -> str:
    """Look until it shows this."""
    text = ""
    for _ in range(limit):
        text = run(bench, "screen", terminal=name).text
        if wanted in text:
            return text
    raise AssertionError(f"{wanted!r} is not shown:\n{text}")
