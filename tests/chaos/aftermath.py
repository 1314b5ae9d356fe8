"""What a stopped home must look like: the journal whole, nothing running, nothing mounted, nothing half done.

Owns: the checks of a home that nobody runs any more.
Must not know: rounds.
Invariant: reads only.
Source: DESIGN §5 (`journal verify`), §6 (a stage without its commit record goes, one with it is merged).
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from homeostat.proto import records as r
from homeostat.proto.errors import JournalError
from homeostat.proto.ids import ENDED, Position, TaskId
from homeostat.proto.messages import JournalRecord
from homeostat.workers.executor.ledger import Ledger
from homeostat.workers.executor.stage import Stage
from homeostat.workers.gate.journal.store import Store
from homeostat.workers.gate.journal.verify import verify, verify_pages
from homeostat.workers.memory import store as memory


def inspect(home: Path, recent: set[str]) -> tuple[list[str], str]:
    """Everything that is wrong with a stopped home, and what it still keeps of tasks that have ended.

    Only for ``recent`` tasks stages may be kept: the stop may have come before they were swept.
    """
    wrong, kept = _stages(home / "stages")
    entries, tasks = _ledgers(home / "ledger")
    wrong += [f"stages of {task} are kept, which ended long ago" for task in tasks if task not in recent]
    return [*_journal(home), *wrong, *_mounts(home)], f"{kept} merged stages, {entries} ledger entries"


def _ledgers(folder: Path) -> tuple[int, list[str]]:
    """How many calls the ledgers still know, and whose stages they keep."""
    count = 0
    tasks: list[str] = []
    for part in sorted(folder.iterdir()):
        with tempfile.TemporaryDirectory(prefix="hs-chaos-ledger-") as copied:
            ledger = Ledger(Path(shutil.copytree(part, copied, dirs_exist_ok=True)))
            count += sum(1 for _ in ledger.entries())
            tasks += ledger.kept_tasks()
            ledger.close(settled=False)
    return count, tasks


def _journal(home: Path) -> list[str]:
    if difference := verify_pages(home / "journal"):
        return [f"journal: {difference}"]
    try:
        store = Store.open(home / "journal", create=False)
    except JournalError as error:
        return [f"journal: {error}"]
    with store:
        report = verify(store)
        if not report.clean:
            return [f"journal: {report.difference}"]
        return [*_stories(store), *_memory(home / "memory", store)]


def _memory(folder: Path, store: Store) -> list[str]:
    """Law 6: the memory that grew through all the kills is the one that the journal makes from nothing."""
    with tempfile.TemporaryDirectory(prefix="hs-chaos-memory-") as fresh:
        rebuilt = memory.Store(Path(fresh))
        (grown_to, grown) = _episodes(folder)
        rebuilt.add(record for record in _records(store) if record.position <= grown_to)
        rebuilt.close()
        _, made = _episodes(Path(fresh))
    if grown == made:
        return []
    more, less = Counter(grown) - Counter(made), Counter(made) - Counter(grown)
    return [f"memory at {grown_to}: {more.total()} too many, {less.total()} missing: {(*more, *less)[:3]}"]


def _episodes(folder: Path) -> tuple[int, list[tuple[object, ...]]]:
    """How far a memory has read, and all that it holds but its own row numbers."""
    database = sqlite3.connect(next(folder.glob("memory.db")))
    try:
        (position,) = database.execute("SELECT value FROM meta WHERE name = 'position'").fetchone()
        rows = database.execute("SELECT * FROM episodes ORDER BY id").fetchall()
    finally:
        database.close()
    return position, [row[1:] for row in rows]


def _records(store: Store) -> Iterator[JournalRecord]:
    """The whole journal as a follower is sent it."""
    names: dict[int, str] = {0: ""}
    position = 1
    while found := store.scan(position, 1_000, 4 << 20):
        for one in found:
            if isinstance(record := r.decode_record(one.payload), r.Accepted):
                names[one.task_no] = record.task
            yield JournalRecord(Position(one.position), TaskId(names[one.task_no]), one.seq, one.payload)
        position = found[-1].position + 1


def _stories(store: Store) -> list[str]:
    """Every intent has its one outcome, in every task; every task has ended."""
    intents: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    last: dict[str, str] = {}
    for entry in _records(store):
        record = r.decode_record(entry.record)
        match record:
            case r.Accepted():
                last[entry.task] = "accepted"
            case r.Decided() if record.intent is not None:
                intents[record.intent.key] += 1
            case r.Outcome():
                outcomes[record.key] += 1
            case r.StatusChanged():
                last[entry.task] = record.status
            case _:
                pass
    wrong = [
        f"journal: intent {key}: {n} times, {outcomes[key]} outcomes"
        for key, n in intents.items()
        if n != 1 or outcomes[key] != 1
    ]
    wrong += [f"journal: outcome {key} without an intent" for key in outcomes.keys() - intents.keys()]
    wrong += [f"journal: task {task} is {status}" for task, status in last.items() if status not in ENDED]
    return wrong


def _stages(folder: Path) -> tuple[list[str], int]:
    wrong, kept = [], 0
    for part in sorted(folder.iterdir()) if folder.exists() else []:
        fd = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in sorted(os.listdir(fd)):
                if name.startswith("."):
                    continue  # Renamed out of the way by a discard; the next start sweeps it.
                with Stage.open(fd, name) as stage:
                    state = stage.state()
                kept += state == "merged"
                if state != "merged":
                    wrong.append(f"stage {name} was left {state}")
        finally:
            os.close(fd)
    return wrong, kept


def _mounts(home: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [f"left mounted: {line}" for line in lines if str(home) in line]
