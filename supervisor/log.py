"""The supervisor's log: one event a line.

Owns: the form of a line, where it goes, and that neither it nor any file of ``log/`` grows without end.
Must not know: what is worth a line.
Invariant: a line is one write; a value can't break out of its line; what was left out is counted and told.
Source: logfmt as Go kit and Grafana Loki read it; RFC 8259; DESIGN §12, law 5.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ..proto import subjects
from ..proto.config import Log as Settings
from . import rotation
from .journald import ADDRESS
from .rates import Rates
from .sinks import File, Front, Journald, Sink, leads_nowhere

NAME = "supervisor.log"
LINE_LIMIT_BYTES = 4096
"""A pipe that is writable takes this much without waiting: pipe(7)."""
VALUE_LIMITS_CHARS = (2_000, 300, 40)
"""A longer value loses its middle; all of a line that would be too long lose more of it."""
TAIL_LIMIT_BYTES = 16_384
LOOK_S = 0.25
"""The supervisor looks after busy workers much more often than sizes have to be looked at."""
RANK = {"debug": 0, "info": 1, "warning": 2, "error": 3}
Plain = str | int | float | bool


def open_log(path: Path) -> int:
    """Open for appending; give a descriptor. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def tail(path: Path, lines: int = 1) -> str:
    """Give the last lines of a log that are not blank, for a crash report; empty without a log.

    Where the log has just been cut they are taken from what was moved aside.
    """
    found: list[str] = []
    for one in (path, rotation.numbered(path, 1)):
        if len(found) < lines:
            found = [*_last_lines(one), *found]
    return "\n".join(found[-lines:])


def _last_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            start = max(0, path.stat().st_size - TAIL_LIMIT_BYTES)
            file.seek(start)
            text = file.read(TAIL_LIMIT_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    lines = text.splitlines()
    # What we met in its middle is no line; one that has no end we can only show as it is.
    return [line for line in (lines[1:] if start and len(lines) > 1 else lines) if line.strip()]


# -- the form of a line ----------------------------------------------------------------------------------
def logfmt(fields: Mapping[str, object]) -> str:
    """Give ``key=value`` pairs; values with blanks or quotes are quoted."""
    return " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items() if value is not None)


def _quoted(value: str) -> str:
    plain = value and all(char.isprintable() and char not in ' "=\\' for char in value)
    if plain:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(char if char.isprintable() else "?" for char in escaped) + '"'


def as_json(fields: Mapping[str, object]) -> str:
    """Give one object on one line."""
    return msgspec.json.encode(fields).decode()


def _plain(value: object, limit_chars: int) -> Plain:
    """Numbers stay numbers; all else is text, bounded, and such as UTF-8 can say."""
    if isinstance(value, int | float):
        return value
    text = str(value).encode("utf-8", "replace").decode()
    half = limit_chars // 2
    return text if len(text) <= limit_chars else f"{text[:half]}…{text[1 - half :]}"


def ids_of(subject: str) -> dict[str, str]:
    """Task, span and call of what a worker had at hand; spans are named as ``homeostat trace`` names them."""
    found = subjects.parse(subject)
    if found.kind == "call":
        return {"call": found.name}
    if found.kind != "task":
        return {}
    words = subject.split(" ")
    return {"task": found.name, "span": f"step {words[2]}"} if len(words) == 3 else {"task": found.name}


# -- the log ---------------------------------------------------------------------------------------------
class Log:
    """Takes events from the loop and from the metrics endpoint's thread."""

    def __init__(
        self, settings: Settings, folder: Path, front: int | None = 2, journal: Path = ADDRESS
    ) -> None:
        """Open it. ``front`` is standard error where a person or a program may read it. Raises OSError."""
        self._folder = folder
        self._lock = threading.Lock()
        self._sinks: list[Sink] = []
        self._settings = settings
        self._rates = Rates(settings.lines_at_once, settings.lines_a_minute)
        self._look_s = 0.0
        self._open(settings, front, journal)

    def __call__(self, level: str, event: str, **fields: object) -> None:
        """Write one event; ``subject`` also gives the fields task, span and call where it names them."""
        if RANK[level] < RANK[self._settings.level]:
            return
        with self._lock:
            left_out = self._rates.take(event, time.monotonic())
            if left_out is None:
                return
            if left_out:
                self._tell_left_out(event, left_out)
            self._put(level, event, fields)

    def look(self) -> None:
        """Now and then: say what was left out, cut the logs of others that have grown."""
        if (now_s := time.monotonic()) < self._look_s:
            return
        self._look_s = now_s + LOOK_S
        with self._lock:
            for event, lines in self._rates.settled(now_s).items():
                self._tell_left_out(event, lines)
            for path in self._grown():
                self._cut(path)

    def reopen(self) -> None:
        """Open the file anew: somebody has moved it away. Raises OSError, and goes on with the old one."""
        with self._lock:
            for sink in self._sinks:
                sink.reopen()

    def change(self, settings: Settings) -> None:
        """Take other settings; ``to`` holds from the next start on."""
        with self._lock:
            self._tell_all_left_out()
            self._settings = msgspec.structs.replace(settings, to=self._settings.to)
            self._rates = Rates(settings.lines_at_once, settings.lines_a_minute)
            for sink in self._sinks:
                sink.limit(settings.max_bytes, settings.keep)

    def close(self) -> None:
        """Say what was left out, and give the descriptors back."""
        with self._lock:
            self._tell_all_left_out()
            for sink in self._sinks:
                sink.close()
            self._sinks = []

    # -- writing, the lock being held ------------------------------------------------------------------------
    def _open(self, settings: Settings, front: int | None, journal: Path) -> None:
        file = File(self._folder / NAME, settings.max_bytes, settings.keep)
        match settings.to:
            case "journald":
                self._sinks = [Journald(journal, file, self._line)]
            case "stderr" if front is not None and not leads_nowhere(front):
                self._sinks = [Front(front, self._line, alone=True)]
            case "stderr":
                file.open()
                self._sinks = [file]
                reason = "standard error leads nowhere"
                self._put("warning", "log_fallback", {"to": "file", "reason": reason})
            case "file":
                file.open()
                self._sinks = [file] if front is None else [file, Front(front, self._line, alone=False)]

    def _put(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        ids = ids_of(str(fields["subject"])) if fields.get("subject") else {}
        given = {key: value for key, value in {**fields, **ids}.items() if value is not None}
        plain: dict[str, Plain] = {}
        line = b""
        for limit_chars in VALUE_LIMITS_CHARS:
            plain = {key: _plain(value, limit_chars) for key, value in given.items()}
            line = self._line(level, event, plain)
            if len(line) <= LINE_LIMIT_BYTES:
                break
        for sink in self._sinks:
            sink.put(level, event, plain, line)

    def _line(self, level: str, event: str, fields: Mapping[str, Plain]) -> bytes:
        now = time.time()
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"
        form = as_json if self._settings.form == "json" else logfmt
        return (form({"at": stamp, "level": level, "event": event, **fields}) + "\n").encode(
            "utf-8", "replace"
        )

    def _tell_left_out(self, event: str, lines: int) -> None:
        self._put("warning", "left_out", {"of": event, "lines": lines})

    def _tell_all_left_out(self) -> None:
        for event, lines in self._rates.settled(None).items():
            self._tell_left_out(event, lines)

    # -- the logs of others ----------------------------------------------------------------------------------
    def _grown(self) -> list[Path]:
        found: list[Path] = []
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                if not entry.name.endswith(".log") or entry.name == NAME:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    info = entry.stat(follow_symlinks=False)
                    if entry.is_file(follow_symlinks=False) and info.st_size > self._settings.max_bytes:
                        found.append(Path(entry.path))
        return found

    def _cut(self, path: Path) -> None:
        try:
            gone = rotation.cut(path, self._settings.max_bytes, self._settings.keep)
        except OSError as error:
            reason = error.strerror or str(error)
            self._put("warning", "log_not_cut", {"log": path.name, "reason": reason})
        else:
            self._put("warning", "log_cut", {"log": path.name, "lost_bytes": gone})
