"""``homeostat tasks|show|cancel|resolve``: tasks as rows and in full, and a person's words on them.

Owns: how tasks are printed.
Must not know: how they are stored.
Invariant: the JSON of ``show`` is a contract: fields are added, never renamed.
Source: docs/PROTOCOL.md "JSON of the command line".
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from ...proto import wire
from ...proto.errors import UsageError
from ...proto.ids import ENDED, TaskStatus
from .lines import changes_words, exit_words, resolve_command, took_words
from .settings import Settings, common
from .text import brief, printable, say, say_json, table

_PAGE = 500
_CHANGES = 10
"""So many changed paths `show` lists for a call; `--json` has all that the gate keeps."""


@click.command()
@click.option("--status", default="", help="Only tasks of this status.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@common()
@click.pass_obj
def tasks(settings: Settings, status: str, limit: int) -> None:
    """List tasks, newest first."""
    if status and status not in get_args(TaskStatus):
        raise UsageError(
            f"--status {status[:40]}: no task has it",
            field="status",
            expected=", ".join(get_args(TaskStatus)),
        )
    rows: list[wire.TaskView] = []
    before = 0
    with settings.client() as client:
        while len(rows) < limit:
            page = client.list(status=status, limit=min(_PAGE, limit - len(rows)), before=before)
            rows += page.tasks
            before = page.next
            if not before:
                break
    if settings.as_json:
        say_json({"tasks": msgspec.to_builtins(rows)})
        return
    table(
        ("TASK", "STATUS", "STEPS", "AGENT", "ACCEPTED", "OBJECTIVE"),
        [
            (
                row.task,
                row.status,
                str(row.steps),
                row.agent,
                when(row.accepted_at_ns),
                brief(row.objective, 60),
            )
            for row in rows
        ],
    )


@click.command()
@click.argument("task")
@common()
@click.pass_obj
def show(settings: Settings, task: str) -> None:
    """Show TASK with every step, call, verdict and outcome."""
    with settings.client() as client:
        answer = client.show(task)
    if settings.as_json:
        say_json(show_json(answer))
        return
    _print_task(answer.task)
    for step in answer.steps:
        say(f"\nstep {step.step}  {brief(step.thought)}")
        for call in step.calls:
            _print_call(call, settings.home)
        if step.event:
            say(_indent(step.event))


def show_json(answer: wire.Task) -> dict[str, Any]:
    """The contract's form: the row's fields with the steps beside them."""
    return {**msgspec.to_builtins(answer.task), "steps": msgspec.to_builtins(answer.steps)}


@click.command()
@click.argument("task")
@click.option("--reason", default="", help="Why, for the record.")
@common()
@click.pass_obj
def cancel(settings: Settings, task: str, reason: str) -> None:
    """End TASK; what it is doing is killed or awaited."""
    with settings.client() as client:
        answer = client.cancel(task, reason)
    if settings.as_json or answer.status in ENDED:
        _print_status(settings, answer.task, answer.status)
    else:
        say(f"cancellation of {answer.task} requested; its open call is being ended")


@click.command()
@click.argument("task")
@click.argument("answer", type=click.Choice(["happened", "did_not", "fail"]))
@click.option("--key", default="", help="Which effect, where several are in doubt.")
@common()
@click.pass_obj
def resolve(settings: Settings, task: str, answer: str, key: str) -> None:
    """Say whether an effect in doubt of TASK happened, did_not, or that the task is to fail."""
    with settings.client() as client:
        resolved = client.resolve(task, key or _only_doubt(client.get(task, limit=1).task), answer)
    _print_status(settings, resolved.task, resolved.status)


def _only_doubt(row: wire.TaskView) -> str:
    if not row.in_doubt:
        raise UsageError(f"{row.task} has no effect in doubt; it is {row.status}", field="task")
    if len(row.in_doubt) > 1:
        raise UsageError(
            f"{row.task} has several effects in doubt",
            field="key",
            expected="--key with one of " + ", ".join(row.in_doubt),
        )
    return row.in_doubt[0]


def _print_status(settings: Settings, task: str, status: str) -> None:
    if settings.as_json:
        say_json({"task": task, "status": status})
    else:
        say(f"{task} is {status}")


def _print_task(row: wire.TaskView) -> None:
    say(f"{row.task}  {row.status}" + (f": {brief(row.reason)}" if row.reason else ""))
    say(f"  objective  {brief(row.objective, 200)}")
    say(f"  agent      {row.agent}, accepted {when(row.accepted_at_ns)}")
    say(f"  workspace  {printable(row.workspace)}")
    for key in row.in_doubt:
        which = f" --key {key}" if len(row.in_doubt) > 1 else ""
        say(f"  in doubt   {key}; say what is true: {resolve_command(row.task)}{which}")
    if row.result:
        say(_indent(row.result))


def _print_call(call: wire.CallView, home: Path) -> None:
    args = call.args if isinstance(call.args, str) else msgspec.json.encode(call.args).decode()
    say(f"  {printable(call.tool)} {brief(args, 160)}")
    if call.verdict:
        why = brief(call.reason, 160) or (f"rule {brief(call.rule, 80)}" if call.rule else "")
        say(f"    {call.verdict} ({call.klass or 'no effect'})" + (f": {why}" if why else ""))
    if (outcome := call.outcome) is None:
        return
    said = outcome.status + exit_words(call.tool, outcome.exit_code) + took_words(outcome.duration_s)
    say(f"    {said}" + (f"; {brief(outcome.note)}" if outcome.note else ""))
    if outcome.diff:
        _print_diff(outcome.diff)
    if outcome.text:
        say(_indent(outcome.text.rstrip(), "      "))
    if outcome.artifact:
        place = home / "artifacts" / outcome.artifact[:2] / outcome.artifact
        say(f"    whole output ({outcome.output_bytes} bytes): {printable(str(place))}")


def _print_diff(diff: dict[str, Any]) -> None:
    """The first changed paths; only the first ones are kept by the gate, so the total counts."""
    total, listed = diff.get("total", 0), diff.get("changes") or []
    say(f"    {changes_words(total)}")
    for change in listed[:_CHANGES]:
        size = f", {_bytes(change.get('size', 0))}" if change.get("type") == "file" else ""
        what = brief(f"{change.get('kind')} {change.get('type')}", 40)
        say(f"      {what}  {brief(str(change.get('path')), 200)}{size}")
    if (more := total - len(listed[:_CHANGES])) > 0:
        say(f"      … {more} more")


def _bytes(size: object) -> str:
    return "1 byte" if size == 1 else f"{size} bytes"


def _indent(text: str, by: str = "    ") -> str:
    return "\n".join(by + printable(line) for line in text.splitlines())


def when(at_ns: int) -> str:
    """A time of the journal, here and to the second."""
    return datetime.fromtimestamp(at_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M:%S")
