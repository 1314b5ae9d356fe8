"""Why a tree comes down.

Owns: exit code and last words of a run.
Must not know: how the tree is stopped.
Invariant: a person reads one message and its remedy, never a traceback.
Source: proto/errors.py (exit codes).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..proto import messages as m
from ..proto.errors import EscalationError, HomeError, HomeostatError
from .log import tail


@dataclass(frozen=True)
class Ending:
    """Exit code, and what to tell (nothing after a plain stop)."""

    exit_code: int
    text: str = ""

    @classmethod
    def of(cls, error: HomeostatError) -> Ending:
        """The end by an error of our own."""
        return cls(error.exit_code, error.diagnostics())

    @classmethod
    def fatal(cls, message: m.Fatal) -> Ending:
        """The end by a worker's error that no restart can mend: in its own words, with its exit code."""
        return cls(message.exit_code, HomeostatError(message.message, remedy=message.remedy).diagnostics())

    @classmethod
    def escalation(cls, what: str, log: Path) -> Ending:
        """The end after too many crashes, with the last line of who crashed."""
        last = tail(log)  # More of it would be a traceback.
        return cls.of(EscalationError(what, remedy=f"See {log}" + (f":\n  {last}" if last else ".")))


def home_error(error: OSError, home: Path) -> HomeError:
    """Put the system's refusal of something that every start needs in words."""
    return HomeError(
        f"{error.filename or home}: {(error.strerror or str(error)).lower()}",
        remedy="Check that the home folder can be written and that no limit of processes, "
        "descriptors or disk is reached.",
    )
