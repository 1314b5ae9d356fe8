"""Crash reports: what is known of a worker that died unasked, made into a file and a few lines.

Owns: the form of a report, the folder ``log/crashes``, and that a crash loop can't fill it.
Must not know: who is restarted; what a subject means beyond its words.
Invariant: a report holds no environment and nothing that `hidden` names; every text in it is bounded and free
    of control characters, whatever the worker printed. The folder has at most KEPT files.
Source: DESIGN §7; core(5) for what others keep; getrusage(2).

Reports are not synced: a restart must not wait for the disk. After a loss of power the last may be empty, and
is shown as one that can't be read.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from .log import Log, ids_of, tail
from .process import Exit, Usage
from .rates import Rates

FOLDER = "crashes"
KEPT = 200
LINES = 20
"""So many last lines of the worker's log."""
LINE_LIMIT_CHARS = 400
TEXT_LIMIT_CHARS = 1_000
STACKS_LIMIT_CHARS = 32_000
FRAMES = 3
"""So many innermost frames are in a summary."""
AT_ONCE, A_MINUTE = 20, 6
"""Reports of one worker: a burst, then one every ten seconds. What is left out is counted in the next."""
SECRET_LEAST_CHARS = 6
"""A shorter one would take ordinary words out of a report."""
READ_LIMIT_BYTES = 1 << 20
_NAME = re.compile(r"(\d{6,})-([\w.-]+)\.json")


@dataclass(frozen=True)
class Crash:
    """What the supervisor knows. Times are in seconds; None where there was no such thing."""

    worker: str
    pid: int | None
    epoch: int
    exit: Exit | None
    """None: it could not be forked."""
    reason: str = ""
    """Why the supervisor killed it, if it did: the hang with its phase, a limit, the gate's order."""
    state: str = ""
    phase: str = ""
    subject: str = ""
    """What it had at hand, as the phase word said at its death."""
    lifetime_s: float | None = None
    served_s: float | None = None
    stacks: str = ""
    log: Path | None = None


class Report(msgspec.Struct, frozen=True):
    """One file. Fields are added, never renamed; ``message`` is the kind of the last message."""

    number: int
    at: str
    worker: str
    pid: int | None
    epoch: int
    how: str
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    state: str = ""
    phase: str = ""
    message: str = ""
    subject: str = ""
    ids: dict[str, str] = {}
    lifetime_s: float | None = None
    served_s: float | None = None
    usage: Usage | None = None
    stacks: str = ""
    log: tuple[str, ...] = ()
    left_out: int = 0
    """So many crashes of this worker before this one have no report: they came too fast."""


def build(crash: Crash, number: int, at_s: float, *, left_out: int = 0, hidden: Iterable[str] = ()) -> Report:
    """Make the report; ``at_s`` is the time of day. Reads the worker's log, nothing else."""
    lines = tail(crash.log, LINES).splitlines() if crash.log is not None else []
    secrets = [secret for secret in hidden if len(secret) >= SECRET_LEAST_CHARS]

    def clean(text: str, limit_chars: int = TEXT_LIMIT_CHARS) -> str:
        return _shortened(_escaped(_without(text, secrets)), limit_chars)

    exit_ = crash.exit
    subject = clean(crash.subject)
    return Report(
        number=number,
        at=datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        worker=crash.worker,
        pid=crash.pid,
        epoch=crash.epoch,
        how="could not be forked" if exit_ is None else str(exit_),
        exit_code=exit_.code if exit_ else None,
        signal=exit_.signal if exit_ else None,
        reason=clean(crash.reason),
        state=crash.state,
        phase=crash.phase,
        message=_kind(subject),
        subject=subject,
        ids=ids_of(subject),
        lifetime_s=_rounded(crash.lifetime_s),
        served_s=_rounded(crash.served_s),
        usage=exit_.usage if exit_ else None,
        stacks=clean(crash.stacks, STACKS_LIMIT_CHARS),
        log=tuple(clean(line, LINE_LIMIT_CHARS) for line in lines),
        left_out=left_out,
    )


def summary(report: Report, *, kept: bool) -> str:
    """A few lines for who must know why: what happened, what was at hand, the innermost frames."""
    text = f"{report.worker} (pid {report.pid}, epoch {report.epoch}) {report.how} at {report.at}"
    text += f": {report.reason}" if report.reason else ""
    if report.subject:
        text += f"; at hand: {report.subject}" + (f" (phase {report.phase})" if report.phase else "")
    text += "".join(f"\n  {line}" for line in _innermost(report.stacks) or report.log[-1:])
    return text + (f"\n  `homeostat crashes {report.number}` shows the whole report." if kept else "")


class Reports:
    """The folder. A report is made at once and written by `settle`: a restart need not wait for the file."""

    def __init__(self, folder: Path, log: Log, hidden: Callable[[], Iterable[str]] = tuple) -> None:
        """Take over what is there. Raises OSError.

        ``hidden`` gives the secrets that no report may show; those that it gave before are hidden too.
        """
        self._folder, self._log, self._secrets = folder, log, hidden
        self._hidden: set[str] = set()
        folder.mkdir(mode=0o700, exist_ok=True)
        self._rates = Rates(AT_ONCE, A_MINUTE)
        self._kept = [path.name for _, path in found(folder)]
        self._last = max((number for number, _ in found(folder)), default=0)
        self._unwritten: list[Report] = []

    def crashed(self, crash: Crash) -> str:
        """Make the report of a crash, unless there are too many; give its summary in any case."""
        left_out = self._rates.take(crash.worker, time.monotonic())
        self._hidden.update(self._secrets())
        report = build(crash, self._last + 1, time.time(), left_out=left_out or 0, hidden=self._hidden)
        if left_out is None:
            self._log("warning", "crash_report_left_out", worker=crash.worker, how=report.how)
            return summary(report, kept=False)
        self._last += 1
        self._unwritten.append(report)
        return summary(report, kept=True)

    def settle(self) -> None:
        """Write what was made. What can't be written is told by the log and not tried again."""
        unwritten, self._unwritten = self._unwritten, []
        for report in unwritten:
            try:
                self._keep(report)
            except OSError as error:
                reason = error.strerror or str(error)
                self._log("warning", "crash_report_not_kept", worker=report.worker, reason=reason)
            else:
                self._log("info", "crash_report", worker=report.worker, number=report.number)

    def close(self) -> None:
        """Write what is left."""
        self.settle()

    def _keep(self, report: Report) -> None:
        name = f"{report.number:06d}-{report.worker}.json"
        _write(self._folder / name, msgspec.json.format(msgspec.json.encode(report)))
        self._kept.append(name)
        while len(self._kept) > KEPT:
            (self._folder / self._kept[0]).unlink(missing_ok=True)
            del self._kept[0]


# -- the folder ------------------------------------------------------------------------------------------
def found(folder: Path) -> list[tuple[int, Path]]:
    """Give the files with their numbers, oldest first. Raises OSError where there is no folder."""
    names = ((_NAME.fullmatch(name), name) for name in os.listdir(folder))
    return sorted((int(match[1]), folder / name) for match, name in names if match)


def load(path: Path) -> Report | None:
    """Read a report; None for a file that is none. Raises OSError."""
    with path.open("rb") as file:
        data = file.read(READ_LIMIT_BYTES)
    try:
        return msgspec.json.decode(data, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _write(path: Path, data: bytes) -> None:
    """Write beside it and rename, so that no reader sees half of it. Raises OSError."""
    new = path.with_name(".new")  # One name: what an interrupted write leaves behind is used again.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(new, flags, 0o600)
    try:
        if os.write(fd, data) != len(data):
            raise OSError(28, "no space left on device", str(new))
        new.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    finally:
        os.close(fd)


# -- text ------------------------------------------------------------------------------------------------
def _without(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "[hidden]")
    return text


def _escaped(text: str) -> str:
    """Write out every character that is not to be seen, line breaks apart."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else f"\\x{ord(char):02x}" for char in text)


def _shortened(text: str, limit_chars: int) -> str:
    """Leave out the middle: of stacks the first lines name the thread, the last its origin."""
    half = limit_chars // 2
    return text if len(text) <= limit_chars else f"{text[:half]} … {text[-half:]}"


def _kind(subject: str) -> str:
    """The kind of the message at hand; of a client's request both words."""
    words = subject.split(" ")
    return " ".join(words[:2]) if words[0] == "client" else words[0]


def _innermost(stacks: str) -> tuple[str, ...]:
    """The innermost frames of the thread that took the signal, in faulthandler's form."""
    lines = stacks.partition("Current thread ")[2].splitlines()[1:]
    frames = itertools.takewhile(lambda line: line.startswith("  File "), lines)
    return tuple(line.strip()[:LINE_LIMIT_CHARS] for line in itertools.islice(frames, FRAMES))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
