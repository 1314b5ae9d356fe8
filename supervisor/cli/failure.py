"""What a person is told when a command fails.

Owns: the words on stderr, and the log of what nobody foresaw.
Must not know: which command it was.
Invariant: nothing that a model or a tool wrote reaches the terminal with its control characters.
Source: STYLE "Errors"; sysexits.h for 70; bash's 128 + signal for 130 and 141.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

from ...proto.errors import HomeostatError
from .settings import Settings
from .text import printable

EX_SOFTWARE = 70
INTERRUPTED = 130
PIPE_CLOSED = 141


def report(error: HomeostatError) -> None:
    """One message: what is wrong, what was expected, what to do."""
    print(f"homeostat: {printable(error.diagnostics())}", file=sys.stderr)


def report_crash(error: Exception, settings: Settings) -> None:
    """Say that this is our fault and where the details are."""
    where = _write_log("".join(traceback.format_exception(error)), settings)
    place = f"details are in {where}" if where else "and its details could be written nowhere"
    print(
        f"homeostat: internal error: {printable(str(error) or type(error).__name__)}; {place}",
        file=sys.stderr,
    )


def _write_log(text: str, settings: Settings) -> Path | None:
    """Under the home where that exists, else in the folder for temporary files."""
    name = f"cli-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.log"
    for in_home in (True, False):
        try:
            path = (settings.home / "log" if in_home else Path(tempfile.gettempdir())) / name
            with path.open("x", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except (OSError, HomeostatError):
            continue  # the next folder is the answer to this one's trouble
        return path
    return None
