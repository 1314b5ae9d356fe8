"""``homeostat reload``.

Owns: the words about what a reload has changed.
Must not know: which setting needs what.
Invariant: a setting that is not in force is named; a configuration that can't be used is an error.
Source: DESIGN §7, §13; SIGHUP does the same.
"""

from __future__ import annotations

import click

from .. import control
from . import rolls
from .settings import Settings, common
from .text import say

AGAIN = "It is tried again after supervision.cool_down_s; until then it works with the old settings."


@click.command()
@common()
@click.pass_obj
def reload(settings: Settings) -> None:
    """Read the configuration file again, and bring into force what can be without a restart.

    Workers that a changed setting concerns are restarted one after the other. What needs a restart of the
    supervisor is named, and stays as it was.
    """
    progress = rolls.follow(settings, control.Reload())
    if not settings.as_json:
        for key in progress.applied:
            say(f"in force   {key}")
        for key in progress.kept:
            say(f"unchanged  {key}: needs a restart (homeostat stop, then start)")
        if progress.state == "done" and not progress.applied and not progress.kept:
            say("nothing has changed")
    rolls.check(progress, AGAIN)
