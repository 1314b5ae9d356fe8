"""``homeostat start``.

Owns: preparing a home for a daemon, the command that its guardian runs, and what the caller's shell is told.
Must not know: how a process becomes a daemon; how the supervisor runs.
Invariant: 0 means that it serves; every other code comes with the words of whoever failed.
Source: DESIGN §3 (guardian), §7; daemon(7).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ...proto.config import load
from ...proto.errors import UsageError
from .. import daemon, daemonize, listeners
from ..ending import home_error
from ..guarded import MODULE
from ..identities import Identities
from .settings import Settings, common
from .text import printable, say, say_json

_LONGEST_S = 1_000_000
"""poll(2) counts milliseconds in an int."""


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, readable=False),
    help="A TOML file of settings.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    default=60.0,
    show_default=True,
    help="Seconds to wait until it serves; after that it is stopped again.",
)
@common()
@click.pass_obj
def start(settings: Settings, config_path: Path | None, timeout_s: float) -> int:
    """Start the supervisor as a daemon, beneath a guardian that starts it again when it dies.

    Returns when all workers serve, with the line that `run` prints; a start that fails is told here.
    """
    if not 0 <= timeout_s <= _LONGEST_S:  # NaN too
        raise UsageError(f"--timeout {timeout_s}", field="timeout", expected=f"0 to {_LONGEST_S} seconds")
    home, config = settings.home, load(config_path)
    listeners.check_paths(home)
    daemon.prepare(home, Identities.of(config))
    done = daemonize.launch(home, config, _command(home, config_path), timeout_s)
    if isinstance(done, daemonize.NotStarted):
        print(printable(done.text), file=sys.stderr)
        return done.exit_code
    if settings.as_json:
        fields = dict(word.partition("=")[::2] for word in done.line.split()[1:])
        say_json({**fields, "ready": True, "pid": int(fields["pid"])})
    else:
        say(done.line)
    return 0


def _command(home: Path, config_path: Path | None) -> list[str]:
    """What the guardian runs, again and again; from the home, so every path is absolute."""
    config = str(_absolute(config_path)) if config_path is not None else ""
    return [sys.executable, "-P", "-m", MODULE, str(home), config]


def _absolute(path: Path) -> Path:
    try:
        return Path(os.path.abspath(path))
    except OSError as error:  # The folder that we are in is gone.
        raise home_error(error, path) from error
