"""``homeostat rewind``: a task goes back to where it was after a step, files and all.

Owns: the words for what was taken back and what can't be.
Must not know: how files are restored.
Invariant: all or nothing; a refusal names the paths that stand in the way.
Source: docs/PROTOCOL.md "JSON of the command line".
"""

from __future__ import annotations

import click

from .settings import Settings, common
from .text import printable, say, say_json

_WAIT_S = 150.0


@click.command()
@click.argument("task")
@click.option(
    "--to", "to_step", type=click.IntRange(min=-1), required=True, metavar="STEP",
    help="The last step that stays; -1: none of them.",
)  # fmt: skip
@common()
@click.pass_obj
def rewind(settings: Settings, task: str, to_step: int) -> None:
    """Take TASK back to where it was after STEP: its workspace and what it remembers of itself.

    Files that something else has changed since are never overwritten: then nothing is taken back.
    """
    with settings.client(timeout_s=_WAIT_S) as client:
        answer = client.rewind(task, to_step)
    if settings.as_json:
        say_json({
            "task": answer.task, "status": answer.status, "to_step": answer.to_step,
            "branch": answer.branch, "kept": answer.kept,
        })  # fmt: skip
        return
    where = "before its first step" if answer.to_step < 0 else f"after step {answer.to_step}"
    say(f"{answer.task} is again where it was {where}; it is {answer.status}")
    if answer.kept:
        say("can't be taken back:")
    for effect in answer.kept:
        say(f"  {printable(effect)}")
