"""Signs of life after a ping, as pure decisions."""

from hypothesis import given, strategies as st

from homeostat.supervisor.liveness import IDLE, START, Word
from homeostat.supervisor.pings import Pings, Sign

LIMIT_S = 10.0


def sign(progress: int = 1, *, epoch: int = 1, waited_s: float = 0.0, phase: int = IDLE) -> Sign:
    """A worker as it can be seen."""
    return Sign(epoch, Word(phase, progress, 0), waited_s)


def asked(before: Sign) -> Pings:
    """One worker, pinged at second 0."""
    pings = Pings()
    assert pings.ask("brain.0", before, 0.0)
    return pings


def test_worker_is_silent_when_its_word_stands_still_for_the_limit() -> None:
    """Not before, and no longer once it moves."""
    pings = asked(sign())
    assert pings.next_s(LIMIT_S) == LIMIT_S
    assert not pings.look(9.9, {"brain.0": sign()}, LIMIT_S)
    assert pings.look(10.0, {"brain.0": sign()}, LIMIT_S) == {"brain.0": 10.0}
    assert not pings.look(10.1, {"brain.0": sign(2)}, LIMIT_S)
    assert not pings.look(99.0, {"brain.0": sign(2)}, LIMIT_S)
    assert pings.next_s(LIMIT_S) == float("inf")


def test_ping_is_not_said_again_when_one_is_awaited() -> None:
    """The gate may complain every second: the first ping counts, until it was answered."""
    pings = asked(sign())
    assert not pings.ask("brain.0", sign(), 5.0)
    assert pings.look(10.0, {"brain.0": sign()}, LIMIT_S)
    assert pings.ask("brain.0", sign(2), 11.0)
    assert not pings.look(20.9, {"brain.0": sign(2)}, LIMIT_S)


def test_nothing_is_asked_when_a_worker_has_yet_to_begin_or_shows_nothing() -> None:
    """A start has a deadline of its own."""
    pings = Pings()
    assert not pings.ask("brain.0", sign(phase=START), 0.0)
    assert not pings.ask("brain.0", Sign(1, None), 0.0)
    assert pings.awaited == ()


def test_successor_owes_nothing_when_the_one_that_was_pinged_is_gone() -> None:
    """Neither another incarnation with the same progress nor one that isn't there."""
    assert not asked(sign()).look(50.0, {"brain.0": sign(epoch=2)}, LIMIT_S)
    assert not asked(sign()).look(50.0, {}, LIMIT_S)


def test_grace_is_granted_when_the_look_is_late_or_the_processor_was_others() -> None:
    """Neither is the worker's fault."""
    pings = asked(sign())
    assert not pings.look(100.0, {"brain.0": sign()}, LIMIT_S, late_s=95.0)
    assert not pings.look(104.9, {"brain.0": sign()}, LIMIT_S)
    assert pings.look(105.0, {"brain.0": sign()}, LIMIT_S)
    assert not asked(sign()).look(15.0, {"brain.0": sign(waited_s=5.1)}, LIMIT_S)


@given(
    st.lists(st.tuples(st.sampled_from(["ask", "move", "look"]), st.floats(0.0, 7.0)), max_size=30),
)
def test_worker_that_moves_is_never_silent_whatever_is_asked_and_when(moves: list[tuple[str, float]]) -> None:
    """Only a word that has stood still since a ping, for the limit, is a silence."""
    pings, progress, now_s, still_since_s = Pings(), 0, 0.0, 0.0
    for what, later_s in moves:
        now_s += later_s
        if what == "move":
            progress, still_since_s = progress + 1, now_s
        elif what == "ask":
            pings.ask("brain.0", sign(progress), now_s)
        elif pings.look(now_s, {"brain.0": sign(progress)}, LIMIT_S):
            assert now_s - still_since_s >= LIMIT_S
