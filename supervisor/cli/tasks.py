"""``homeostat tasks|show|cancel|resolve``: tasks as rows and in full, and a person's words on them.

Owns: how tasks are printed.
Must not know: how they are stored.
Invariant: the JSON of ``show`` is a contract: fields are added, never renamed.
Source: docs/PROTOCOL.md "JSON of the command line".
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, get_args

import click
import msgspec

from ...proto import wire
from ...proto.errors import UsageError
from ...proto.ids import TaskStatus
from .settings import Settings, common
from .text import brief, duration, printable, say, say_json, table

_PAGE = 500


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
                _when(row.accepted_at_ns),
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
            _print_call(call)
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
    _print_status(settings, answer.task, answer.status)


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
    say(f"  agent      {row.agent}, accepted {_when(row.accepted_at_ns)}")
    say(f"  workspace  {printable(row.workspace)}")
    for key in row.in_doubt:
        say(f"  in doubt   {key}")
    if row.result:
        say(_indent(row.result))


def _print_call(call: wire.CallView) -> None:
    args = call.args if isinstance(call.args, str) else msgspec.json.encode(call.args).decode()
    say(f"  {printable(call.tool)} {brief(args, 160)}")
    say(f"    {call.verdict} ({call.klass or 'no effect'}): {brief(call.reason, 160)}")
    if (outcome := call.outcome) is None:
        return
    code = "" if outcome.exit_code is None else f", exit {outcome.exit_code}"
    say(
        f"    {outcome.status}{code}, {duration(outcome.duration_s)}"
        + (f"; {brief(outcome.note)}" if outcome.note else "")
    )
    if outcome.diff:
        say(f"    {outcome.diff.get('total', 0)} changes")
    if outcome.text:
        say(_indent(outcome.text.rstrip(), "      "))
    if outcome.artifact:
        say(f"    artifact {outcome.artifact} ({outcome.output_bytes} bytes)")


def _indent(text: str, by: str = "    ") -> str:
    return "\n".join(by + printable(line) for line in text.splitlines())


def _when(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M:%S")
