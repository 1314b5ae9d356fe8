"""``homeostat submit``.

Owns: turning arguments and a plan into a submit, and waiting for its end.
Must not know: which tools, agents and workspaces are allowed: the gate refuses those.
Invariant: stdout has the task's id (or one JSON value) and nothing else; progress goes to stderr.
Source: docs/PROTOCOL.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from ...proto.client import Client, WireRefusedError
from ...proto.errors import UsageError
from ...proto.wire import Event, Refused, Submitted, TaskView
from ..plan import load, place
from .ending import exit_code, follow
from .lines import Lines
from .settings import Settings, common
from .text import brief, say, say_json


@click.command()
@click.argument("objective")
@click.option("--agent", default="default", show_default=True, help="The agent that does it.")
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path, readable=False),
    help="A TOML file of steps to carry out.",
)
@click.option(
    "--workspace",
    type=click.Path(path_type=Path, readable=False),
    help="The folder to work in. Default: a fresh one.",
)
@click.option("--key", default="", help="Submitting the same key again gives the same task.")
@click.option("--wait", is_flag=True, help="Show progress, and exit as the task ended.")
@common()
@click.pass_obj
def submit(
    settings: Settings,
    *,
    objective: str,
    agent: str,
    plan_file: Path | None,
    workspace: Path | None,
    key: str,
    wait: bool,
) -> int:
    """Have a task taken in; print its id.

    With --wait the exit code is 0 done, 1 failed, 5 cancelled, 6 in doubt or waiting for a person.
    """
    plan = None
    if plan_file is not None:
        plan = load(plan_file)
    folder = "" if workspace is None else _checked(workspace)
    with settings.client() as client:
        try:
            taken = client.submit(objective, agent=agent, plan=plan, workspace=folder, key=key)
        except WireRefusedError as error:
            if plan_file is None or not error.refusal.field.startswith("plan"):
                raise
            raise _of_file(error.refusal, plan_file) from error
        if not wait:
            _print_taken(taken, settings)
            return 0
        if not settings.as_json:
            say(taken.task)
        row = _wait(client, taken)
    if settings.as_json:
        say_json(_ending(taken, row))
    return exit_code(row.status)


def _of_file(refusal: Refused, plan_file: Path) -> WireRefusedError:
    """The gate knows steps; a person has a file with lines."""
    message = f"{place(plan_file, refusal.field)}: {refusal.message}"
    return WireRefusedError(msgspec.structs.replace(refusal, message=message))


def _checked(workspace: Path) -> str:
    """The folder's own absolute path: a link could point elsewhere by the time the task runs."""
    try:
        folder = workspace.expanduser().resolve(strict=True)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "a loop of symbolic links"
        raise UsageError(f"--workspace {workspace}: {reason}", field="workspace") from error
    if not folder.is_dir():
        raise UsageError(f"--workspace {workspace}: not a directory", field="workspace")
    return str(folder)


def _wait(client: Client, taken: Submitted) -> TaskView:
    try:
        with _progress(taken.task) as show:
            row = follow(client, taken.task, taken.cursor, show)
    except KeyboardInterrupt:
        print(f"the task goes on: homeostat watch {taken.task}", file=sys.stderr)
        raise
    return row


@contextmanager
def _progress(task: str) -> Iterator[Callable[[Event], None]]:
    """Lines on stderr; on a terminal a live line beneath them says what the task is at."""
    line = Lines()
    if not sys.stderr.isatty():
        yield lambda event: print(line(event), file=sys.stderr, flush=True)
        return
    from rich.console import Console  # noqa: PLC0415  rich is for terminals, and slow to import
    from rich.text import Text  # noqa: PLC0415  same

    console = Console(stderr=True)
    with console.status(Text(f"{task} …")) as status:

        def show(event: Event) -> None:
            console.print(Text(line(event)))
            if event.kind == "proposed":
                status.update(Text(brief(f"{task} at step {event.data.get('step')} …")))

        yield show


def _print_taken(taken: Submitted, settings: Settings) -> None:
    if settings.as_json:
        say_json(
            {"task": taken.task, "created": taken.created, "status": taken.status, "cursor": taken.cursor}
        )
    else:
        say(taken.task)


def _ending(taken: Submitted, row: TaskView) -> dict[str, object]:
    return {
        "task": taken.task,
        "created": taken.created,
        "status": row.status,
        "reason": row.reason,
        "result": row.result,
        "steps": row.steps,
        "in_doubt": row.in_doubt,
    }
