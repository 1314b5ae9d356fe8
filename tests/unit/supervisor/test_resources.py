"""Which worker takes too much: hysteresis, one at a time, cool-down, the hard limit; a look at a process."""

import os
import subprocess
import sys
import threading
from typing import Any

import psutil
import pytest

from homeostat.proto.config import Supervision
from homeostat.supervisor.resources import ResourceWatch, Sample, Verdict, sample
from homeostat.supervisor.specs import ChildId

BRAIN, EXECUTOR = ChildId("brain", 0), ChildId("executor", 0)
SETTINGS = Supervision(
    soft_memory_bytes=100,
    soft_open_files=10,
    soft_threads=10,
    soft_cpu_share=0.5,
    cool_down_s=600,
    hard_factor=2,
)
CALM = Sample(1, 10, 1, 1, 0.0)


class Stand:
    """A watch whose time goes by 30 seconds a look."""

    def __init__(self, **settings: Any) -> None:
        base = {name: getattr(SETTINGS, name) for name in SETTINGS.__struct_fields__}
        self.watch = ResourceWatch(Supervision(**{**base, **settings}))
        self.now_s = 1_000.0

    def look(self, *, busy: bool = False, passed_s: float = 30.0, **samples: Sample) -> Verdict:
        """Look at workers by role."""
        self.now_s += passed_s
        named = {ChildId(role, 0): one for role, one in samples.items()}  # type: ignore[arg-type]
        return self.watch.look(self.now_s, named, busy=busy)


@pytest.mark.parametrize(
    ("over", "resource"),
    [
        (Sample(1, 150, 1, 1, 0.0), "memory_bytes"),
        (Sample(1, 10, 15, 1, 0.0), "open_files"),
        (Sample(1, 10, 1, 15, 0.0), "threads"),
    ],
)
def test_worker_is_recycled_when_two_looks_find_it_over_its_limit(over: Sample, resource: str) -> None:
    """One is a peak."""
    stand = Stand()
    assert stand.look(brain=over) == Verdict()
    found = stand.look(brain=over).recycle
    assert found is not None
    assert (found.worker, found.resource) == (BRAIN, resource)
    assert f"soft_{resource}" in found.reason


def test_worker_is_recycled_when_it_computes_too_much_between_looks() -> None:
    """Share of one core: 20 of 30 seconds, twice."""
    stand = Stand()
    found = [stand.look(brain=Sample(1, 10, 1, 1, cpu_s)).recycle for cpu_s in (0.0, 20.0, 40.0)]
    assert [one is not None for one in found] == [False, False, True]


def test_peak_is_forgotten_when_a_look_is_well_below_the_limit() -> None:
    """Just below is no calm: it counts neither way."""
    stand = Stand()
    over, near = Sample(1, 150, 1, 1, 0.0), Sample(1, 95, 1, 1, 0.0)
    assert [stand.look(brain=one).recycle for one in (over, CALM, over)] == [None, None, None]
    stand = Stand()
    assert [stand.look(brain=one).recycle is None for one in (over, near, over)] == [True, True, False]


def test_worst_alone_is_recycled_when_several_are_over() -> None:
    """At most one at a time."""
    stand = Stand()
    bad, worse = Sample(1, 150, 1, 1, 0.0), Sample(1, 180, 1, 1, 0.0)
    stand.look(brain=bad, executor=worse)
    found = stand.look(brain=bad, executor=worse).recycle
    assert found is not None
    assert found.worker == EXECUTOR
    assert stand.look(brain=bad, executor=worse, busy=True).recycle is None
    after = stand.look(brain=bad, executor=CALM).recycle
    assert after is not None
    assert after.worker == BRAIN


def test_worker_is_left_alone_within_its_cool_down() -> None:
    """Then it is tried again: a recycling that was put off, or one that has not helped for long."""
    stand = Stand()
    over = Sample(1, 150, 1, 1, 0.0)
    looks = [stand.look(brain=over).recycle is not None for _ in range(24)]
    assert [number for number, found in enumerate(looks) if found] == [1, 21]


def test_recycling_is_futile_when_the_successor_begins_beyond_the_limit() -> None:
    """It is said once, and that incarnation is left alone; another limit still counts."""
    stand = Stand(cool_down_s=1)
    stand.look(brain=Sample(1, 150, 1, 1, 0.0))
    assert stand.look(brain=Sample(1, 150, 1, 1, 0.0)).recycle is not None
    begins = stand.look(brain=Sample(2, 150, 1, 1, 0.0))
    assert [one.resource for one in begins.futile] == ["memory_bytes"]
    later = [stand.look(brain=Sample(2, 150, 15, 1, 0.0)) for _ in range(2)]
    assert [one.futile for one in later] == [(), ()]
    assert later[1].recycle is not None
    assert later[1].recycle.resource == "open_files"


def test_new_incarnation_begins_anew() -> None:
    """What its predecessor had taken is gone with it."""
    stand = Stand()
    stand.look(brain=Sample(1, 150, 1, 1, 0.0))
    assert stand.look(brain=Sample(2, 150, 1, 1, 0.0)).recycle is None


def test_worker_is_killed_when_it_is_far_beyond_its_limit() -> None:
    """At the first look, whoever is recycled just now; but for computing nobody is killed."""
    stand = Stand()
    found = stand.look(brain=Sample(1, 200, 1, 1, 0.0), executor=Sample(1, 10, 20, 1, 0.0), busy=True)
    assert [(one.worker, one.resource) for one in found.kill] == [
        (BRAIN, "memory_bytes"),
        (EXECUTOR, "open_files"),
    ]
    stand = Stand(hard_factor=0)
    assert stand.look(brain=Sample(1, 10**9, 1, 1, 0.0)).kill == ()
    stand = Stand()
    stand.look(brain=CALM)
    assert stand.look(brain=Sample(1, 10, 1, 1, 300.0)).kill == ()


def test_limit_is_off_when_it_is_0() -> None:
    """And what the kernel does not show is not judged."""
    stand = Stand(soft_memory_bytes=0)
    many = Sample(1, 10**12, None, 1, 0.0)
    assert [stand.look(brain=many) for _ in range(3)] == [Verdict()] * 3


def test_sample_sees_what_psutil_sees() -> None:
    """Of a process with its own memory, descriptors, threads and processor time."""
    source = """
import os, sys, threading, time
held = bytearray(b"x") * (64 << 20)
files = [os.open("/dev/null", os.O_RDONLY) for _ in range(40)]
stop = threading.Event()
for _ in range(5): threading.Thread(target=stop.wait, daemon=True).start()
until = time.process_time() + 0.2
while time.process_time() < until: pass
print("there", flush=True); sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"there\n"
        found, theirs = sample(process.pid, 7), psutil.Process(process.pid)
        assert found is not None
        assert found.memory_bytes is not None
        memory = theirs.memory_info()
        assert abs(found.memory_bytes - (memory.rss - memory.shared)) < 1 << 20
        assert found.memory_bytes > 64 << 20
        assert found.threads == theirs.num_threads() == 6
        assert found.open_files is not None
        assert found.open_files >= 43
        assert found.open_files in (
            theirs.num_fds(),
            32,
        )  # Before Linux 6.2 as an ordinary user: half a table.
        assert 0.15 <= found.cpu_s <= sum(theirs.cpu_times()[:2]) + 0.01
        assert found.epoch == 7
        process.stdin.close()
    assert sample(process.pid, 7) is None


def test_sample_counts_no_pages_of_files() -> None:
    """A gate that has read its journal has not leaked it."""
    before = sample(os.getpid(), 1)
    with open(sys.executable, "rb") as file:
        import mmap

        size = os.fstat(file.fileno()).st_size
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert sum(mapped[at] for at in range(0, size, 4096)) >= 0
            after = sample(os.getpid(), 1)
    assert before is not None
    assert after is not None
    assert before.memory_bytes is not None
    assert after.memory_bytes is not None
    assert after.memory_bytes - before.memory_bytes < 1 << 20
    assert threading.active_count() == after.threads
