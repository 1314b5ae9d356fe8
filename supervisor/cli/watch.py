"""``homeostat watch``.

Owns: live events on stdout.
Must not know: how a watch outlives the gate: the client does.
Invariant: with ``--json`` each line is one event with its position, from which ``--from`` goes on.
Source: docs/PROTOCOL.md "Watching".
"""

from __future__ import annotations

import click
import msgspec

from .lines import Lines
from .settings import Settings, common
from .text import say, say_json


@click.command()
@click.argument("task", default="")
@click.option(
    "--from",
    "cursor",
    type=click.IntRange(min=0, max=(1 << 63) - 1),
    default=None,
    metavar="CURSOR",
    help="Begin after this position; 0: from the beginning. Default: 0 with TASK, now without.",
)
@common()
@click.pass_obj
def watch(settings: Settings, task: str, cursor: int | None) -> None:
    """Show what happens, until TASK has ended; without TASK, what happens to all of them from now on."""
    line = Lines(with_task=not task)
    with settings.client() as client:
        if cursor is None:
            cursor = 0 if task else client.status().position
        for event in client.watch(task, cursor=cursor):
            if settings.as_json:
                say_json(msgspec.to_builtins(event), compact=True)
            else:
                say(line(event))
