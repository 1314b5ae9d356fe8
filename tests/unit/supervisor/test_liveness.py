import os

import pytest
from hypothesis import given, strategies as st

from homeostat.supervisor import liveness
from homeostat.supervisor.liveness import Limits, Reading, Watch, Word
from homeostat.workers import phase

LIMITS = Limits(run_s=10.0, sync_s=30.0, work_s=60.0)


def busy(progress: int = 1, *, phase: int = liveness.RUN, at_s: float = 0.0) -> Word:
    """A word that was written at this time."""
    return Word(phase, progress, int(at_s * 1e9))


def look_each_second(words: list[Word | None]) -> list[float]:
    """Seconds at which one worker was found hung."""
    watch = Watch(LIMITS)
    return [
        float(now_s)
        for now_s, word in enumerate(words)
        if watch.look(float(now_s), {"brain.0": Reading(word)})
    ]


def test_word_is_read_as_it_was_written_when_shared() -> None:
    """Both sides of the memory agree on its layout."""
    fd = liveness.create()
    word = phase.PhaseWord.attach({"phase": fd})
    with word.at(phase.Phase.SYNC):
        word.subject("propose t-1 5")
        seen = liveness.read(fd)
        assert seen is not None
        assert (seen.phase, seen.progress, seen.subject) == (liveness.SYNC, 2, "propose t-1 5")
    word.write(phase.Phase.RUN)
    seen = liveness.read(fd)
    assert seen is not None
    assert (seen.phase, seen.progress) == (liveness.RUN, 4)
    assert seen.at_ns > 0
    word.write(phase.Phase.IDLE)
    assert (liveness.read(fd) or seen).subject == ""
    assert phase.SUBJECT_BYTES + phase.SUBJECT_AT + 1 < phase.SIZE_BYTES == liveness.SIZE_BYTES
    assert (phase.SUBJECT_AT, phase.ASLEEP_AT) == (liveness.SUBJECT_AT, liveness.ASLEEP_AT)
    assert phase.LAYOUT.format == liveness.LAYOUT.format
    assert {one.value: one.name.lower() for one in phase.Phase} == liveness.PHASES
    os.close(fd)


@pytest.mark.parametrize("size_bytes", [3, 1 << 30])
def test_memory_of_a_word_keeps_its_size_when_a_worker_would_have_another(size_bytes: int) -> None:
    """A hostile worker can neither hide by shrinking what it shares with the supervisor, nor fill memory."""
    fd = liveness.create()
    with pytest.raises(PermissionError):
        os.ftruncate(fd, size_bytes)
    assert liveness.read(fd) is not None
    os.close(fd)


def test_watch_finds_a_worker_hung_when_it_makes_no_progress() -> None:
    """Only a busy phase without progress for the whole time counts."""
    assert look_each_second([busy()] * 12) == [10.0, 11.0]
    assert look_each_second([busy(phase=liveness.IDLE)] * 20) == []
    assert look_each_second([busy(number, at_s=float(number)) for number in range(20)]) == []


def test_watch_has_a_limit_for_each_phase_when_they_last() -> None:
    """What may take long is given long; a start has a deadline of its own."""
    assert look_each_second([busy(phase=liveness.SYNC)] * 32)[0] == 30.0
    assert look_each_second([busy(phase=liveness.WORK)] * 62)[0] == 60.0
    assert look_each_second([busy(phase=liveness.START)] * 200) == []
    assert look_each_second([busy(phase=99)] * 12)[0] == 10.0


def test_watch_grants_grace_when_it_looks_late() -> None:
    """A supervisor that was away does not kill everyone for its own lateness."""
    watch, stuck = Watch(LIMITS), {"gate.0": Reading(busy(at_s=1.0))}
    assert not watch.look(2.0, stuck)
    assert not watch.look(500.0, stuck, late_s=497.0)
    assert not watch.look(507.9, stuck)
    assert watch.look(508.0, stuck) == {"gate.0": 10.0}
    late = Watch(LIMITS)
    assert not late.look(500.0, stuck, late_s=495.0)  # Busy since before the first look that was late.


def test_watch_does_not_count_when_a_worker_waits_for_a_processor() -> None:
    """Slow but alive is not hung: a crowded machine takes the time, not the worker."""
    watch = Watch(LIMITS)
    for now_s in range(1, 40):
        assert not watch.look(float(now_s), {"gate.0": Reading(busy(), waited_s=now_s * 0.8)})
    assert watch.look(60.0, {"gate.0": Reading(busy(), waited_s=39 * 0.8)})


def test_watch_looks_no_oftener_when_a_worker_waits_for_a_processor() -> None:
    """Who is starved reaches its limit later: looking all the time would take yet more from it."""
    watch = Watch(LIMITS)
    for now_s in range(30):
        watch.look(float(now_s), {"gate.0": Reading(busy(), waited_s=now_s * 0.9)})
    assert watch.next_s(29.0) == 29.0 + LIMITS.run_s / liveness.LOOKS_PER_LIMIT


@given(st.floats(0.0, 20.0))
def test_watch_finds_a_worker_hung_when_every_look_is_late(late_s: float) -> None:
    """Grace for the supervisor's own lateness puts a verdict off, never for ever."""
    watch, now_s, looks = Watch(LIMITS), 0.0, 0
    while not watch.look(now_s, {"gate.0": Reading(busy())}, late_s):
        now_s, looks = watch.next_s(now_s) + late_s, looks + 1
        assert looks <= 10


def test_watch_tells_of_a_slow_worker_once_when_it_goes_on() -> None:
    """Half of the limit without progress is worth a line, not one for each look."""
    watch, told = Watch(LIMITS), []
    for now_s in range(10):
        watch.look(float(now_s), {"gate.0": Reading(busy())})
        told += list(watch.slow.items())
    assert told == [("gate.0", (5.0, busy()))]
    watch.look(10.5, {"gate.0": Reading(busy(2, at_s=10.4))})
    watch.look(16.0, {"gate.0": Reading(busy(2, at_s=10.4))})
    assert list(watch.slow) == ["gate.0"]


def test_watch_gives_the_limit_of_a_sync_when_the_loop_waits_for_the_disk() -> None:
    """A page that is read in can take long; no code of the worker runs meanwhile."""
    watch = Watch(LIMITS)
    reading = {"memory.0": Reading(busy(), waits_for_disk=lambda: True)}
    assert not watch.look(29.0, reading)
    assert watch.look(30.0, reading)


def test_watch_looks_when_somebody_reaches_a_limit() -> None:
    """Rarely while all are idle, often while one is busy, and on time."""
    watch = Watch(LIMITS)
    watch.look(0.0, {"brain.0": Reading(busy(phase=liveness.IDLE))})
    assert watch.next_s(0.0) == liveness.LONGEST_S
    watch.look(5.0, {"brain.0": Reading(busy(at_s=4.0))})
    assert watch.next_s(5.0) == 7.5
    assert watch.next_s(13.0) == 14.0


def test_word_wakes_its_reader_when_that_sleeps_and_the_worker_becomes_busy() -> None:
    """One kick, not one for each event."""
    memory, kick = liveness.create(), os.eventfd(0, os.EFD_NONBLOCK)
    word = phase.PhaseWord.attach({"phase": memory, "kick": kick})
    assert os.eventfd_read(kick) == 1  # Its first word.
    liveness.sleep_well(memory)
    word.write(phase.Phase.IDLE)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(kick)
    word.write(phase.Phase.RUN)
    word.write(phase.Phase.RUN)
    assert os.eventfd_read(kick) == 1
    for fd in (memory, kick):
        os.close(fd)


def test_time_spent_waiting_is_read_when_the_kernel_counts_it() -> None:
    """The figure of a real process, and none of one that is gone."""
    assert liveness.waited_s(os.getpid()) >= 0.0
    assert liveness.waited_s(2**22 + 1) == 0.0
    assert not liveness.waits_for_disk(2**22 + 1)
