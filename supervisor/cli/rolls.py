"""Waiting for a rolling restart or a reload, and showing how far it is.

Owns: the lines of progress, and what a roll's end means for the exit code.
Must not know: how it is done.
Invariant: it returns only when everybody serves again; whatever else happened is an error that says what.
Source: supervisor/control.py (`Progress`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from ...proto.config import start_remedy
from ...proto.errors import ConfigError, HomeostatError, ProtocolError, UnreachableError
from .. import control
from .settings import Settings
from .text import say, say_json

LOOK_AGAIN_S = 0.1
OVER = frozenset({"done", "failed", "stopped"})
SHOWN = frozenset({"draining", "restarting", "done", "put_off", "failed"})
REMEDY = (
    "Nothing was lost. Run it again when the command has ended, with a longer --timeout, or with --force."
)


def follow(settings: Settings, request: control.Restart | control.Reload) -> control.ProgressReply:
    """Ask for it, show its progress, give its end. Raises HomeostatError where it did not succeed."""
    begun = control.ask(settings.home, request)
    if not isinstance(begun, control.Begun):
        raise ProtocolError(f"the supervisor answered {type(begun).__name__}", expected="Begun")
    shown: dict[str, str] = {}
    while (progress := _progress(settings.home, begun.number)).state not in OVER:
        _show(settings, progress, shown)
        time.sleep(LOOK_AGAIN_S)
    _show(settings, progress, shown)
    if settings.as_json:
        say_json(picture(progress))
    return progress


def picture(progress: control.ProgressReply) -> dict[str, Any]:
    """The contract's form."""
    return {
        "state": progress.state,
        "workers": msgspec.to_builtins(progress.workers),
        "applied": list(progress.applied),
        "needs_a_restart": list(progress.kept),
        "error": progress.error,
    }


def check(progress: control.ProgressReply, remedy: str = REMEDY) -> None:
    """Raise what it failed with; ``remedy`` is for executors that were put off."""
    if progress.state == "done":
        return
    if progress.code == ConfigError.code:
        raise ConfigError(progress.error, remedy="The configuration in force is kept.")
    if progress.state == "stopped":
        raise HomeostatError(f"it did not come to its end: {progress.error}")
    put_off = any(row.state == "put_off" for row in progress.workers)
    otherwise = "homeostat status and the worker's log say why."
    raise HomeostatError(progress.error, remedy=remedy if put_off else otherwise)


def _progress(home: Path, number: int) -> control.ProgressReply:
    try:
        answer = control.ask(home, control.Progress(number=number))
    except UnreachableError as error:
        raise UnreachableError(
            "the supervisor ended before everybody was restarted", remedy=start_remedy(home)
        ) from error
    if not isinstance(answer, control.ProgressReply):
        raise ProtocolError(f"the supervisor answered {type(answer).__name__}", expected="ProgressReply")
    return answer


def _show(settings: Settings, progress: control.ProgressReply, shown: dict[str, str]) -> None:
    """Say what has changed since the last look."""
    if settings.as_json:
        return
    for row in progress.workers:
        text = f"{row.state.replace('_', ' ')}{': ' + row.note if row.note else ''}"
        if row.state in SHOWN and shown.get(row.worker) != text:
            shown[row.worker] = text
            say(f"{row.worker:<22} {text}")
