"""``homeostat letters``: what was dropped, for whoever asks where a message went.

Owns: how dead letters are printed.
Must not know: how they are kept.
Invariant: what a letter holds is printed as the gate escaped it, and escaped again: anyone wrote it.
Source: docs/PROTOCOL.md `dead_letters`.
"""

from __future__ import annotations

import click
import msgspec

from ...proto import wire
from .settings import Settings, common
from .tasks import when
from .text import brief, say, say_json, table

_PAGE = 64
_SHOWN_CHARS = 60


@click.command()
@click.option(
    "--limit", type=click.IntRange(1, 512), default=20, show_default=True, help="At most so many, the newest."
)
@common()
@click.pass_obj
def letters(settings: Settings, limit: int) -> None:
    """List dead letters: messages that were dropped, newest first."""
    found: list[wire.LetterView] = []
    before = 0
    with settings.client() as client:
        while len(found) < limit:
            page = client.letters(limit=min(_PAGE, limit - len(found)), before=before)
            found += page.letters
            before = page.next
            if not before:
                break
    if settings.as_json:
        say_json({"letters": msgspec.to_builtins(found)})
        return
    if not found:
        say("no dead letters")
        return
    table(
        ("NUMBER", "WHEN", "REASON", "FROM", "BYTES", "ABOUT", "DATA"),
        [
            (
                str(letter.number),
                when(letter.at_ns),
                brief(letter.reason, 30) + (f", {letter.times} times" if letter.times > 1 else ""),
                brief(letter.sender, 40),
                str(letter.size_bytes),
                brief("; ".join(part for part in (letter.subject, letter.detail) if part), _SHOWN_CHARS),
                brief(letter.data, _SHOWN_CHARS),
            )
            for letter in found
        ],
    )
    if unkept := sum(letter.unkept for letter in found):
        say(f"{unkept} more came too fast to be kept; homeostat_dead_letters_total counts all")
