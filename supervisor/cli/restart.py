"""``homeostat restart``.

Owns: the options of a rolling restart.
Must not know: how workers are drained and restarted.
Invariant: 0 is only answered when everybody that was asked for has been restarted and serves.
Source: DESIGN §7, §13.
"""

from __future__ import annotations

import click

from ...proto.errors import UsageError
from .. import control
from . import rolls
from .settings import Settings, common
from .text import say

_LONGEST_S = 1_000_000.0


@click.command()
@click.argument("role", default=None, required=False)
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    default=None,
    help="Seconds that each worker may take to finish what it has begun. [default: supervision.drain_s]",
)
@click.option(
    "--force",
    is_flag=True,
    help="Then restart also an executor whose command still runs: the command is cut, perhaps in doubt.",
)
@common()
@click.pass_obj
def restart(settings: Settings, role: str | None, timeout_s: float | None, force: bool) -> None:
    """Restart workers one after the other, losing nothing: all, those of ROLE, or one such as executor.0.

    Tasks go on. The supervisor itself stays.
    """
    if role == "":  # An unset variable of a script must not restart everything.
        raise UsageError("ROLE is empty", field="role", expected="a role, a worker, or nothing for all")
    if timeout_s is not None and not 0 <= timeout_s <= _LONGEST_S:  # NaN too
        raise UsageError(f"--timeout {timeout_s}", field="timeout", expected=f"0 to {_LONGEST_S:g} seconds")
    progress = rolls.follow(settings, control.Restart(role=role or "", drain_s=timeout_s, force=force))
    rolls.check(progress)
    if not settings.as_json:
        say("restarted")
