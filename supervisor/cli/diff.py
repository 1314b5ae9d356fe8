"""``homeostat diff``: what the calls of a step changed.

Owns: how recorded changes and the text of a diff are printed.
Must not know: where the text comes from.
Invariant: the summary is always there; why there is no text, or not all of it, is said.
Source: docs/PROTOCOL.md "JSON of the command line".
"""

from __future__ import annotations

from typing import Any

import click
import msgspec

from ...proto import wire
from .lines import changes_words
from .settings import Settings, common
from .text import brief, printable, say, say_json, table

_WAIT_S = 60.0


@click.command()
@click.argument("task")
@click.argument("step", type=click.IntRange(min=0))
@common()
@click.pass_obj
def diff(settings: Settings, task: str, step: int) -> None:
    """Show what the calls of STEP of TASK changed in the workspace.

    The list of changes is kept for good; the text as long as the task has not ended.
    """
    with settings.client(timeout_s=_WAIT_S) as client:
        answer = client.diff(task, step)
    if settings.as_json:
        calls = msgspec.to_builtins(answer.calls)
        say_json({"task": answer.task, "step": answer.step, "calls": calls})
        return
    if not answer.calls:
        say(f"step {step} of {answer.task} changed no files")
    for call in answer.calls:
        _print_call(call)


def _print_call(call: wire.CallDiff) -> None:
    total = call.diff.get("total", 0)
    say(f"call {call.index}  {printable(call.tool)}  {printable(call.status)}  {changes_words(total)}")
    listed = [change for change in call.diff.get("changes") or [] if isinstance(change, dict)]
    if listed:
        table(("KIND", "TYPE", "MODE", "BYTES", "PATH"), [_row(change) for change in listed])
    if (more := total - len(listed)) > 0:
        say(f"… {more} more")
    for line in call.text.split("\n")[:-1]:
        say(printable(line))
    if call.trouble:
        say(f"[{'not all of the text' if call.text else 'no text'}: {printable(call.trouble)}]")


def _row(change: dict[str, Any]) -> tuple[str, str, str, str, str]:
    path = brief(str(change.get("path")), 200)
    if source := change.get("source"):
        path = f"{brief(str(source), 200)} -> {path}"
    size = str(change.get("size", 0)) if change.get("type") == "file" else ""
    mode = f"{change.get('mode', 0):04o}"
    return str(change.get("kind")), str(change.get("type")), mode, size, path
