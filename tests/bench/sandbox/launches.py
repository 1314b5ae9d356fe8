"""How long ``true`` takes from an executor's Launch to its Exited, through a real zygote; 50 at once.

Owns: the ways that are told apart: armed, cold, staged with the diff and merge of nothing.
Must not know: bounds, peers.
Invariant: every launch is checked: it ended with 0, and it was armed or was not, as its name says.
Source: issue 4 "Speed"; DESIGN §9.
"""

from __future__ import annotations

import os
import select
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from homeostat.sandbox import protocol
from homeostat.sandbox.profile import Profile
from homeostat.sandbox.protocol import Exited, Launch, Launched
from homeostat.workers.executor.diff import read_diff
from homeostat.workers.executor.merge import commit
from homeostat.workers.executor.stage import Stage
from tests.bench.stand import tail
from tests.sandbox.stand import Stand, receive

FILES = 10_000
ROUNDS, QUICK_ROUNDS = 200, 15
PAUSE_S = 0.06
"""Between two launches, so that what one has taken is armed again, as between two steps of an agent."""
AT_ONCE = 50
_BEAT_S = 0.01


@dataclass
class _Times:
    """Of one way to launch, in milliseconds."""

    name: str
    armed: bool
    all_ms: list[float] = field(default_factory=list)
    others: int = 0

    def figures(self) -> dict[str, float]:
        """By name; `others`: so many were made in the other way, and not counted."""
        spread = tail(self.all_ms)
        return {
            f"{self.name}_min_ms": min(self.all_ms),
            f"{self.name}_p50_ms": spread["p50"],
            f"{self.name}_p99_ms": spread["p99"],
            f"{self.name}_others": self.others,
        }


def measure(folder: Path, *, quick: bool = False) -> dict[str, float]:
    """Figures by name. `folder` is not needed: the workspace lies where every uid can reach it."""
    del folder
    rounds = QUICK_ROUNDS if quick else ROUNDS
    figures: dict[str, float] = {}
    with _stand(armed=2, files=FILES // 10 if quick else FILES) as stand:
        figures |= _unstaged(stand, _Times("true", armed=True), rounds)
        figures |= _staged(stand, _Times("staged", armed=True), rounds)
        figures |= _at_once(stand, AT_ONCE)
    with _stand(armed=0, files=FILES // 10 if quick else FILES) as stand:
        figures |= _unstaged(stand, _Times("cold", armed=False), rounds)
        figures |= _staged(stand, _Times("cold_staged", armed=False), rounds)
    return figures


@contextmanager
def _stand(*, armed: int, files: int) -> Iterator[Stand]:
    with Stand(as_user=False, armed=armed) as stand:
        for first in range(0, files, 100):
            sub = stand.own_folder(stand.workspace / f"d{first}")
            for number in range(first, first + 100):
                stand.file(sub / f"f{number}", "x")
        yield stand


def _unstaged(stand: Stand, times: _Times, rounds: int) -> dict[str, float]:
    workspace = os.open(stand.workspace, os.O_RDONLY | os.O_DIRECTORY)
    null = os.open(os.devnull, os.O_RDWR)
    try:
        while len(times.all_ms) < rounds:
            time.sleep(PAUSE_S)
            began_s = time.perf_counter()
            armed = _run(stand, [workspace, null, null, null], staged=False)
            _count(times, armed, began_s)
    finally:
        protocol.close((workspace, null))
    return times.figures()


def _staged(stand: Stand, times: _Times, rounds: int) -> dict[str, float]:
    """From the making of the stage to its end, with what it did read and merged."""
    owner = (stand.ids.outside_uid,) * 2 if os.geteuid() == 0 else None
    stages = stand.base / "stages"
    stages.mkdir(exist_ok=True)
    stages.chmod(0o711)
    with ExitStack() as stack:
        workspace = os.open(stand.workspace, os.O_RDONLY | os.O_DIRECTORY)
        folder = os.open(stages, os.O_RDONLY | os.O_DIRECTORY)
        null = os.open(os.devnull, os.O_RDWR)
        stack.callback(protocol.close, (workspace, folder, null))
        while len(times.all_ms) < rounds:
            time.sleep(PAUSE_S)
            began_s = time.perf_counter()
            stage = Stage.create(folder, f"s{stand.next_id()}", owner, 0o755)
            armed = _run(stand, [workspace, stage.fd, null, null, null], staged=True)
            commit(workspace, stage, read_diff(workspace, stage))
            _count(times, armed, began_s)
            stage.discard()
    return times.figures()


def _count(times: _Times, armed: bool, began_s: float) -> None:
    ended_s = time.perf_counter()
    if armed is times.armed:
        times.all_ms.append(1e3 * (ended_s - began_s))
        return
    times.others += 1
    if times.others > 200 + len(times.all_ms):
        raise RuntimeError(f"{times.name}: {times.others} launches were not as they should be")


def _run(stand: Stand, fds: list[int], *, staged: bool) -> bool:
    """One ``true``; whether it was armed."""
    stand.client.launch(Launch(stand.next_id(), Profile(), [b"true"], staged=staged), fds)
    armed = False
    while True:
        for message, passed in receive(stand.client):
            protocol.close(passed)
            match message:
                case Launched():
                    armed = message.armed
                case Exited(exit_code=0):
                    return armed
                case _:
                    raise RuntimeError(f"a launch went wrong: {message}")


def _at_once(stand: Stand, count: int) -> dict[str, float]:
    """So many in one breath, and how late a beat of their owner's loop is meanwhile."""
    workspace = os.open(stand.workspace, os.O_RDONLY | os.O_DIRECTORY)
    null = os.open(os.devnull, os.O_RDWR)
    began_s = time.perf_counter()
    for _ in range(count):
        stand.client.launch(Launch(stand.next_id(), Profile(), [b"true"]), [workspace, null, null, null])
    ends_s: list[float] = []
    late_s, next_s = [0.0], time.perf_counter() + _BEAT_S
    while len(ends_s) < count:
        select.select([stand.client], [], [], max(next_s - time.perf_counter(), 0.0))
        for message, passed in stand.client.receive():
            protocol.close(passed)
            if isinstance(message, Exited) and message.exit_code == 0:
                ends_s.append(time.perf_counter() - began_s)
        if (now_s := time.perf_counter()) >= next_s:
            late_s.append(now_s - next_s)
            next_s = now_s + _BEAT_S
    protocol.close((workspace, null))
    return {
        f"of_{count}_p50_ms": 1e3 * statistics.median(ends_s),
        f"all_{count}_ms": 1e3 * max(ends_s),
        "late_ms": 1e3 * max(late_s),
    }


def run(*, quick: bool = False) -> dict[str, float]:
    """As `measure`, where no folder is at hand."""
    return measure(Path("/var/tmp"), quick=quick)
