"""``homeostat run``.

Owns: handing the settings to the supervisor.
Must not know: how the supervisor runs.
Invariant: a configuration that can't be used stops the start before anything is touched.
Source: DESIGN §7, §13.
"""

from __future__ import annotations

from pathlib import Path

import click

from ...proto.config import load
from ...proto.errors import HomeError, HomeLockedError
from ..daemonize import holder
from ..program import become
from .settings import Settings, common


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, readable=False),
    help="A TOML file of settings.",
)
@common(json=False)
@click.pass_obj
def run(settings: Settings, config_path: Path | None) -> None:
    """Run the supervisor in front.

    A line that begins with `ready` is printed when all workers serve. SIGTERM drains and exits 0.
    """
    load(config_path)  # What is wrong with it is told here, by the one who was asked.
    _refuse_guarded(settings.home)
    become(settings.home, config_path)


def _refuse_guarded(home: Path) -> None:
    """Between two supervisors of a daemon the home is taken too. Raises HomeLockedError."""
    try:
        with holder(home) as guardian:
            pid = None if guardian is None else guardian.pid
    except HomeError:
        return  # The supervisor says it in its own words: what is wrong with a home, and what to do.
    if guardian is not None:
        raise HomeLockedError(
            f"{home}: a daemon keeps this home (guardian {pid})",
            remedy="Stop it with `homeostat stop`, or use another --home.",
        )
