"""Resource watch: which worker takes too much, and whether it is recycled or killed for it.

Owns: the decision, and the look at a process that it rests on.
Must not know: how a worker is drained, recycled or killed; `ResourceWatch` knows no clock and no process.
Invariants: at most one worker is recycled at a time and none again within its cool-down; a peak is no leak:
    what counts is over its limit in two looks, with no look well below it in between.
Source: issue "Resource watch"; proc_pid_status(5), proc_pid_stat(5). Measured: psutil would cost 1.7 MB of
    the 80 MB that an idle tree may take, and 80 µs a worker instead of 35; as an ordinary user it can't count
    the descriptors of a worker that is not dumpable, which the size of /proc/PID/fd tells (Linux 6.2).

Memory is the process's own: its journal's pages in the page cache (LMDB maps it) are none of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..proto.config import Supervision
from .specs import ChildId
from .usage import usage

LOOKS = 2
"""A limit is passed when so many looks have found it passed."""
CALM = 0.9
"""Below this share of the limit a worker is over it no more."""


@dataclass(frozen=True)
class Sample:
    """One look at one incarnation; None is what the kernel does not show."""

    epoch: int
    memory_bytes: int | None
    open_files: int | None
    threads: int
    cpu_s: float


@dataclass(frozen=True)
class Excess:
    """A worker and the limit that it has passed."""

    worker: ChildId
    epoch: int
    resource: str
    value: float
    limit: float

    @property
    def reason(self) -> str:
        """In words, with the setting that says so."""
        return f"{self.resource} {_shown(self.value)} beyond soft_{self.resource} = {_shown(self.limit)}"


@dataclass(frozen=True)
class Verdict:
    """What follows from one look. ``futile`` are those whom a recycling has not helped."""

    recycle: Excess | None = None
    kill: tuple[Excess, ...] = ()
    futile: tuple[Excess, ...] = ()


@dataclass
class _Seen:
    """What is remembered of one worker."""

    epoch: int
    at_s: float
    cpu_s: float
    looks: dict[str, int] = field(default_factory=dict)
    futile: set[str] = field(default_factory=set)


class ResourceWatch:
    """Compares each look with the one before."""

    def __init__(self, settings: Supervision) -> None:
        self.settings = settings
        self._seen: dict[ChildId, _Seen] = {}
        self._not_before_s: dict[ChildId, float] = {}
        self._reasons: dict[ChildId, str] = {}
        """What a worker was last recycled over."""

    def look(self, now_s: float, samples: Mapping[ChildId, Sample], *, busy: bool) -> Verdict:
        """Decide; ``busy`` while somebody is being recycled already."""
        kill: list[Excess] = []
        over: list[Excess] = []
        futile: list[Excess] = []
        for worker, sample in samples.items():
            seen = self._seen.get(worker)
            is_new = seen is None or seen.epoch != sample.epoch
            if seen is None or is_new:
                seen = _Seen(sample.epoch, now_s, sample.cpu_s)
            for excess in self._measured(worker, sample, seen, now_s):
                if excess.value >= excess.limit and is_new and self._reasons.get(worker) == excess.resource:
                    seen.futile.add(excess.resource)
                    futile.append(excess)
                if self._is_hard(excess):
                    kill.append(excess)
                elif self._is_over(excess, seen) and excess.resource not in seen.futile:
                    over.append(excess)
            seen.at_s, seen.cpu_s = now_s, sample.cpu_s
            self._seen[worker] = seen
        over = [one for one in over if now_s >= self._not_before_s.get(one.worker, now_s)]
        worst = max(over, key=lambda one: one.value / one.limit, default=None) if not busy else None
        if worst is not None:
            self._not_before_s[worst.worker] = now_s + self.settings.cool_down_s
            self._reasons[worst.worker] = worst.resource
        return Verdict(worst, tuple(kill), tuple(futile))

    def _measured(self, worker: ChildId, sample: Sample, seen: _Seen, now_s: float) -> Iterator[Excess]:
        """Each resource that has a limit and could be looked at."""
        settings, passed_s = self.settings, now_s - seen.at_s
        share = (sample.cpu_s - seen.cpu_s) / passed_s if passed_s > 0 else None
        for resource, value, limit in (
            ("memory_bytes", sample.memory_bytes, settings.soft_memory_bytes),
            ("open_files", sample.open_files, settings.soft_open_files),
            ("threads", sample.threads, settings.soft_threads),
            ("cpu_share", share, settings.soft_cpu_share),
        ):
            if value is not None and limit > 0:
                yield Excess(worker, sample.epoch, resource, value, limit)

    def _is_hard(self, excess: Excess) -> bool:
        """So far beyond that nothing is waited for. Whoever computes much harms nobody at once."""
        factor = self.settings.hard_factor
        return factor > 0 and excess.resource != "cpu_share" and excess.value >= excess.limit * factor

    @staticmethod
    def _is_over(excess: Excess, seen: _Seen) -> bool:
        """Whether enough looks have found it over; one well below forgets them."""
        looks = seen.looks.get(excess.resource, 0)
        if excess.value >= excess.limit:
            looks += 1
        elif excess.value < CALM * excess.limit:
            looks = 0
        seen.looks[excess.resource] = looks
        return looks >= LOOKS


def sample(pid: int, epoch: int) -> Sample | None:
    """Look at a process; None when it has gone."""
    found = usage(pid)
    if found is None:
        return None
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            fields = dict(line.split(b":", 1) for line in file.read().splitlines() if b":" in line)
        memory = sum(int(fields[name].split()[0]) << 10 for name in (b"RssAnon", b"VmSwap"))
        # Before Linux 6.2 another user's descriptors are not counted; their table, which doubles, is known.
        slots = int(fields[b"FDSize"]) // 2
    except (OSError, KeyError):  # Gone meanwhile, or a zombie, which has no memory.
        return None
    files = found.open_files if found.open_files is not None else slots
    return Sample(epoch, memory, files, found.threads, found.cpu_s)


def _shown(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
