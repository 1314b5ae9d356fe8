"""The program that is the supervisor: started by the command line, which it takes the place of.

Owns: what becomes of an error that nobody foresaw.
Must not know: options (the command line has read them), how the supervisor runs.
Invariant: no traceback reaches a person.
Source: execve(2): a parser of command lines and its help texts, 3 MB, are gone once they have been read.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

from ..proto.config import load
from ..proto.errors import HomeostatError
from .nursery import ENTRY

if TYPE_CHECKING:
    from .guarded import Guard

MODULE = "homeostat.supervisor.program"


def become(home: Path, config: Path | None) -> NoReturn:
    """Be this program from now on, with the same pid, terminal and environment."""
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = [sys.executable, "-P", "-m", MODULE, str(home), str(config.absolute()) if config else ""]
    os.execv(sys.executable, arguments)


def supervise(
    home: Path, config: Path | None, out: TextIO, *, entry: str = ENTRY, guard: Guard | None = None
) -> int:
    """Run the supervisor; give its exit code. Whatever goes wrong is told on standard error."""
    try:
        from .main import run  # noqa: PLC0415  what its import finds wrong is told like the rest

        return run(home, load(config), config_path=config, out=out, entry=entry, guard=guard)
    except HomeostatError as error:
        print(f"homeostat: {error.diagnostics()}", file=sys.stderr)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  the last resort: it ends in a log file and a message
        from .cli.failure import EX_SOFTWARE, report_crash  # noqa: PLC0415  the command line's own
        from .cli.settings import Settings  # noqa: PLC0415  same

        report_crash(error, Settings(given_home=str(home)))
        return EX_SOFTWARE


def main(arguments: list[str]) -> int:
    """Run the supervisor in front: home, configuration (empty: none)."""
    return supervise(Path(arguments[0]), Path(arguments[1]) if arguments[1] else None, sys.stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
