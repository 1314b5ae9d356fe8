"""``homeostat trace``.

Owns: spans as a tree with durations.
Must not know: how spans are derived: supervisor/spans.py.
Invariant: built from the journal's events alone.
Source: DESIGN §12.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from ...proto.errors import HomeostatError
from ..spans import Span, spans, stage_totals
from .settings import Settings, common
from .text import brief, duration, say, say_json


@click.command()
@click.argument("task")
@common()
@click.pass_obj
def trace(settings: Settings, task: str) -> None:
    """Show where the time of TASK went: thinking, deciding, executing, merging."""
    with settings.client() as client:
        root = spans(client.history(task))
    if root is None:
        raise HomeostatError(f"{task} has no events")
    if settings.as_json:
        say_json({"task": task, "stages_s": stage_totals(root), "span": root.as_dict()})
        return
    for line in _tree(root, "", ""):
        say(line)
    totals = {name: took for name, took in stage_totals(root).items() if took or name != "decide"}
    say("in all: " + ", ".join(f"{name} {duration(seconds)}" for name, seconds in totals.items()))


def _tree(span: Span, lead: str, below: str) -> Iterator[str]:
    verdict = [str(span.attributes[key]) for key in ("status", "verdict") if span.attributes.get(key)]
    state = " …" if span.open else ""
    label = f"{lead}{brief(span.name, 60)}"
    yield f"{label:<50} {duration(span.duration_s):>10}{state}" + (
        f"  {brief(verdict[0], 40)}" if verdict else ""
    )
    for place, child in enumerate(span.children):
        last = place == len(span.children) - 1
        yield from _tree(child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "))
