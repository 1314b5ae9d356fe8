import os

from homeostat.supervisor import liveness
from homeostat.supervisor.liveness import Watch, Word
from homeostat.workers import phase


def look_each_second(watch: Watch, words: list[Word | None]) -> list[float]:
    """Seconds at which one worker was found hung."""
    return [float(now_s) for now_s, word in enumerate(words) if watch.look(float(now_s), {"brain.0": word})]


def test_word_is_read_as_it_was_written_when_shared() -> None:
    """Both sides of the memory agree on its layout."""
    fd = liveness.create()
    word = phase.PhaseWord.attach(fd)
    assert liveness.read(fd) == Word(0, 0, 0)
    word.write(phase.Phase.SYNC)
    word.write(phase.Phase.RUN)
    seen = liveness.read(fd)
    assert seen is not None
    assert (seen.phase, seen.progress) == (1, 2)
    assert seen.at_ns > 0
    assert phase.LAYOUT.format == liveness.LAYOUT.format
    assert {one.value: one.name.lower() for one in phase.Phase} == liveness.PHASES
    os.close(fd)


def test_word_is_none_when_a_worker_has_cut_its_memory() -> None:
    """A hostile worker can't bring the supervisor down by shrinking what they share."""
    fd = liveness.create()
    os.ftruncate(fd, 3)
    assert liveness.read(fd) is None
    os.close(fd)


def test_watch_finds_a_worker_hung_when_it_makes_no_progress() -> None:
    """Only a busy phase without progress for the whole time counts."""
    stuck = Word(1, 7, 0)
    assert look_each_second(Watch(10.0), [stuck] * 12) == [10.0, 11.0]
    assert look_each_second(Watch(10.0), [Word(0, 7, 0)] * 20) == []
    assert look_each_second(Watch(10.0), [Word(1, number, 0) for number in range(20)]) == []
    assert look_each_second(Watch(10.0), [*[stuck] * 9, None, *[stuck] * 9]) == []


def test_watch_grants_grace_when_it_looks_late() -> None:
    """A supervisor that was away does not kill everyone for its own lateness."""
    watch, stuck = Watch(10.0), {"gate.0": Word(2, 1, 0)}
    assert not watch.look(0.0, stuck)
    assert not watch.look(1.0, stuck)
    assert not watch.look(500.0, stuck)  # 497 s late: of these 499 s it counts 2
    assert not any(watch.look(500.0 + more_s, stuck) for more_s in range(1, 7))
    assert watch.look(507.0, stuck) == {"gate.0": 10.0}


def test_watch_looks_less_than_once_a_second_when_the_limit_is_the_default() -> None:
    """An idle tree sleeps."""
    assert Watch(30.0).every_s == 3.0
    assert Watch(0.01).every_s == 0.2
