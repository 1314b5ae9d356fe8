"""``homeostat crashes``: crash reports as rows and in full.

Owns: how a report is printed.
Must not know: how a report comes about (supervisor/reports.py).
Invariant: only files are read, so it works while no supervisor runs; a file that is no report hides no other.
Source: docs/PROTOCOL.md "JSON of the command line".
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click
import msgspec

from ...proto.config import ASK_AS_OWNER
from ...proto.errors import HomeError, HomeostatError
from .. import reports
from ..reports import Report
from .settings import Settings, common
from .text import brief, duration, printable, say, say_json, table


@click.command()
@click.argument("number", type=click.IntRange(min=1), required=False)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@click.option("--worker", default="", metavar="NAME", help="Only those of gate.0, brain.0, …")
@click.option("--full", is_flag=True, help="Print them in full, not as rows.")
@common()
@click.pass_obj
def crashes(settings: Settings, number: int | None, limit: int, worker: str, full: bool) -> None:
    """List crash reports of workers, newest first, or show the one with NUMBER in full."""
    files = _files(settings.home)
    if number is not None:
        _show(settings, _one(files, number))
        return
    read = [_read(path) for path in files]
    found = [one for one in read if one is not None and worker in ("", one.worker)][:limit]
    unreadable = read.count(None)
    if settings.as_json:
        say_json({"crashes": msgspec.to_builtins(found), "unreadable": unreadable})
        return
    if full:
        for one in found:
            _show(settings, one)
    else:
        _list(found)
    if unreadable:
        say(f"{unreadable} can't be read: {settings.home / 'log' / reports.FOLDER}")


def _files(home: Path) -> list[Path]:
    """The files, newest first; none before the first crash. Raises HomeError."""
    try:
        return [path for _, path in reversed(reports.found(home / "log" / reports.FOLDER))]
    except FileNotFoundError as error:
        if home.is_dir():
            return []
        raise HomeError(f"{home}: there is no home", remedy="Name the home: --home DIR.") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise HomeError(f"{error.filename or home}: {reason}", remedy=ASK_AS_OWNER) from error


def _one(files: list[Path], number: int) -> Report:
    path = next((path for path in files if path.name.startswith(f"{number:06d}-")), None)
    found = None if path is None else _read(path)
    if found is None:
        raise HomeostatError(
            f"there is no crash report {number}" if path is None else f"{path}: is no crash report",
            remedy=f"`homeostat crashes` lists them; the newest {reports.KEPT} are kept.",
        )
    return found


def _read(path: Path) -> Report | None:
    try:
        return reports.load(path)
    except OSError:  # It was just replaced by a newer one, or is another's; both are counted.
        return None


def _list(found: list[Report]) -> None:
    rows = [
        (
            str(one.number),
            _when(one),
            one.worker,
            one.how,
            brief(one.reason, 50),
            brief(one.subject, 50),
            f"(+{one.left_out})" if one.left_out else "",
        )
        for one in found
    ]
    table(("NUMBER", "WHEN", "WORKER", "HOW", "REASON", "AT HAND", "LEFT OUT"), rows)


def _when(report: Report) -> str:
    """Its time in this place's."""
    try:
        return datetime.fromisoformat(report.at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return report.at


def _show(settings: Settings, report: Report) -> None:
    if settings.as_json:
        say_json(msgspec.to_builtins(report))
        return
    say(printable(f"crash {report.number}: {report.worker} {report.how}"))
    for name, text in _facts(report):
        say(f"  {name:<9} {printable(text)}")
    for name, lines in (("stacks", report.stacks.splitlines()), ("last lines of its log", report.log)):
        if lines:
            say(f"  {name}")
        for line in lines:
            say(f"    {printable(line)}")


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    yield "when", f"{_when(report)} ({report.at})"
    yield "process", f"pid {report.pid}, epoch {report.epoch}, {report.state or 'state unknown'}"
    if report.lifetime_s is not None:
        served = "never served" if report.served_s is None else f"served {duration(report.served_s)}"
        yield "lived", f"{duration(report.lifetime_s)}, {served}"
    if report.reason:
        yield "reason", report.reason
    if report.phase:
        yield "phase", report.phase
    if report.subject:
        yield "at hand", report.subject
    if used := report.usage:
        yield (
            "used",
            (
                f"{duration(used.user_s)} user, {duration(used.system_s)} system, "
                f"{used.max_rss_bytes / 2**20:.1f} MiB at most"
            ),
        )
        yield "faults", f"{used.minor_faults} minor, {used.major_faults} major"
        yield "switches", f"{used.voluntary_switches} voluntary, {used.involuntary_switches} involuntary"
    if report.left_out:
        yield "left out", f"{report.left_out} crashes of {report.worker} before it have no report"
