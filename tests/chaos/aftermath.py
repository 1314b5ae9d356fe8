"""What a stopped home must look like: the journal whole, nothing running, nothing mounted, nothing half done.

Owns: the checks of a home that nobody runs any more.
Must not know: rounds.
Invariant: reads only.
Source: DESIGN §5 (`journal verify`), §6 (a stage without its commit record goes, one with it is merged).
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from homeostat.proto import records as r
from homeostat.proto.ids import ENDED
from homeostat.workers.executor.stage import Stage
from homeostat.workers.gate.journal.store import Store
from homeostat.workers.gate.journal.verify import verify, verify_pages


def inspect(home: Path) -> tuple[list[str], int]:
    """Everything that is wrong with a stopped home, and how many stages its retention still keeps."""
    wrong, kept = _stages(home / "stages")
    return [*_journal(home / "journal"), *wrong, *_mounts(home)], kept


def _journal(folder: Path) -> list[str]:
    if difference := verify_pages(folder):
        return [f"journal: {difference}"]
    with Store.open(folder, create=False) as store:
        report = verify(store)
        if not report.clean:
            return [f"journal: {report.difference}"]
        return _stories(store)


def _stories(store: Store) -> list[str]:
    """Every intent has its one outcome, in every task; every task has ended."""
    intents: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    last: dict[int, str] = {}
    position = 1
    while records := store.scan(position, 1_000, 4 << 20):
        for entry in records:
            record = r.decode_record(entry.payload)
            match record:
                case r.Accepted():
                    last[entry.task_no] = "accepted"
                case r.Decided() if record.intent is not None:
                    intents[record.intent.key] += 1
                case r.Outcome():
                    outcomes[record.key] += 1
                case r.StatusChanged():
                    last[entry.task_no] = record.status
                case _:
                    pass
        position = records[-1].position + 1
    wrong = [
        f"journal: intent {key}: {n} times, {outcomes[key]} outcomes"
        for key, n in intents.items()
        if n != 1 or outcomes[key] != 1
    ]
    wrong += [f"journal: outcome {key} without an intent" for key in outcomes.keys() - intents.keys()]
    wrong += [f"journal: task {number} is {status}" for number, status in last.items() if status not in ENDED]
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
