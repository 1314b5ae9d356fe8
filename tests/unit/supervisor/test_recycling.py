"""The sequence of a rolling restart, event by event, without a process or a clock."""

from homeostat.proto import messages as m
from homeostat.supervisor.recycling import (
    QUEUED,
    SERVE_S,
    Effect,
    Note,
    Phase,
    Progress,
    Recycle,
    Retire,
    Roll,
    Rolls,
    Seen,
    units,
)
from homeostat.supervisor.specs import ChildId

GATE, MEMORY = ChildId("gate", 0), ChildId("memory", 0)
ZYGOTE, EXECUTOR = ChildId("zygote", 0), ChildId("executor", 0)
BRAINS = ChildId("brain", 0), ChildId("brain", 1)
ALL = (GATE, MEMORY, ZYGOTE, EXECUTOR, *BRAINS)
DRAIN_S = 60.0


class Stand:
    """Rolls, and workers that the test moves by hand."""

    def __init__(self) -> None:
        self.rolls = Rolls(GATE)
        self.seen = dict.fromkeys(ALL, Seen(1, ready=True))
        self.now_s = 100.0
        self.number = 0

    def roll(self, wanted: str = "", *, force: bool = False, hold: tuple[ChildId, ...] = ()) -> Progress:
        """Queue one."""
        self.number += 1
        return self.rolls.add(Roll(self.number, "test", units(ALL, wanted), DRAIN_S, force, hold))

    def step(self, passed_s: float = 0.0) -> list[Effect]:
        """Time goes by; what is to be done, without the notes."""
        self.now_s += passed_s
        return [effect for effect in self.rolls.step(self.now_s, self.seen) if not isinstance(effect, Note)]

    def falls(self, worker: ChildId) -> None:
        """It has ended, and its successor is starting."""
        self.seen[worker] = Seen(self.seen[worker].epoch + 1, ready=False)

    def serves(self, worker: ChildId) -> None:
        """It serves."""
        self.seen[worker] = Seen(self.seen[worker].epoch, ready=True)

    def drained(self, worker: ChildId) -> None:
        """The gate says so."""
        self.rolls.on_drained(m.Drained(worker.role, worker.index, self.seen[worker].epoch))

    def drain(self, worker: ChildId, *, on: bool = True) -> m.Drain:
        """The word for its present incarnation."""
        return m.Drain(worker.role, worker.index, self.seen[worker].epoch, on)

    def restarted(self, worker: ChildId) -> list[Effect]:
        """Its successor serves; what follows."""
        self.falls(worker)
        self.step()
        self.serves(worker)
        return self.step()


def test_roll_restarts_one_after_the_other_in_start_order() -> None:
    """Gate, memory, the pair, brains; the next is touched when the one before serves again."""
    stand = Stand()
    progress = stand.roll()
    assert stand.step() == [Recycle(GATE)]
    assert stand.step() == []
    assert stand.restarted(GATE) == [stand.drain(MEMORY)]
    stand.drained(MEMORY)
    assert stand.step() == [Recycle(MEMORY)]
    assert stand.restarted(MEMORY) == [stand.drain(EXECUTOR)]
    stand.drained(EXECUTOR)
    assert stand.step() == [Retire(EXECUTOR)]
    assert stand.step() == []
    stand.seen[EXECUTOR] = Seen(1, ready=False, alive=False)
    assert stand.step() == [Recycle(ZYGOTE)]
    stand.falls(ZYGOTE)
    stand.serves(ZYGOTE)
    assert stand.step() == [], "its executor serves too before the next"
    assert stand.restarted(EXECUTOR) == [stand.drain(BRAINS[0])]
    stand.drained(BRAINS[0])
    assert stand.step() == [Recycle(BRAINS[0])]
    assert stand.restarted(BRAINS[0]) == [stand.drain(BRAINS[1])]
    stand.drained(BRAINS[1])
    assert stand.step() == [Recycle(BRAINS[1])]
    assert stand.restarted(BRAINS[1]) == []
    assert (progress.state, progress.error) == ("done", "")
    assert {row.phase for row in progress.rows} == {Phase.DONE}


def test_executor_is_put_off_and_given_work_again_when_a_command_outlasts_the_limit() -> None:
    """It is not touched; the roll goes on with the others and says whom it left."""
    stand = Stand()
    progress = stand.roll("executor")
    assert stand.step() == [stand.drain(EXECUTOR)]
    assert stand.step(DRAIN_S - 1) == []
    assert stand.step(1) == [stand.drain(EXECUTOR, on=False)]
    assert progress.state == "failed"
    assert "executor.0 was not restarted: a command still runs" in progress.error


def test_executor_is_recycled_at_the_limit_when_forced() -> None:
    """`--force` means it."""
    stand = Stand()
    stand.roll("executor", force=True)
    stand.step()
    assert stand.step(DRAIN_S) == [Recycle(EXECUTOR)]


def test_brain_is_recycled_at_the_limit_when_its_provider_is_slow() -> None:
    """A call that is made again costs tokens; nothing is lost by it."""
    stand = Stand()
    stand.roll("brain.1")
    assert stand.step() == [stand.drain(BRAINS[1])]
    assert stand.step(DRAIN_S) == [Recycle(BRAINS[1])]


def test_new_gate_is_told_again_when_it_was_killed_over_a_drain() -> None:
    """Else nobody would ever say Drained."""
    stand = Stand()
    stand.roll("executor")
    stand.step()
    stand.falls(GATE)
    assert stand.step() == [stand.drain(EXECUTOR)]
    assert stand.step() == []
    stand.drained(EXECUTOR)
    assert stand.step() == [Recycle(EXECUTOR)]


def test_worker_counts_as_restarted_when_it_died_by_itself() -> None:
    """Its successor is as good as any; it is not restarted once more."""
    stand = Stand()
    progress = stand.roll("executor")
    stand.step()
    assert stand.restarted(EXECUTOR) == []
    assert progress.state == "done"


def test_word_of_a_former_drain_is_nothing_when_another_has_begun() -> None:
    """Only what was said since the last Drain counts."""
    stand = Stand()
    stand.roll("executor")
    stand.step()
    stand.step(DRAIN_S)
    stand.drained(EXECUTOR)  # It crossed our word that the drain is off.
    stand.roll("executor")
    assert stand.step() == [stand.drain(EXECUTOR)]
    assert stand.step() == []


def test_roll_fails_and_stops_when_a_successor_never_serves() -> None:
    """The others are left alone: they serve."""
    stand = Stand()
    progress = stand.roll("brain")
    stand.step()
    stand.drained(BRAINS[0])
    stand.step()
    off = stand.drain(BRAINS[0], on=False)
    stand.falls(BRAINS[0])
    assert stand.step(SERVE_S) == [off], "nobody stays drained behind a roll"
    assert progress.state == "failed"
    assert "brain.0 was not restarted: it does not serve" in progress.error
    assert progress.rows[1].phase is Phase.WAIT


def test_roll_waits_for_a_worker_that_is_just_starting() -> None:
    """One that does not serve can't be drained."""
    stand = Stand()
    stand.seen[EXECUTOR] = Seen(1, ready=False)
    stand.roll("executor")
    assert stand.step() == []
    stand.serves(EXECUTOR)
    assert stand.step() == [stand.drain(EXECUTOR)]


def test_rolls_run_one_after_the_other_when_two_are_asked_for() -> None:
    """The second begins when the first is over, and restarts everybody anew."""
    stand = Stand()
    first, second = stand.roll("brain.0"), stand.roll("brain.0")
    assert stand.step() == [stand.drain(BRAINS[0])]
    stand.drained(BRAINS[0])
    stand.step()
    assert second.state == "queued"
    assert stand.restarted(BRAINS[0]) == [stand.drain(BRAINS[0])]
    assert (first.state, second.state) == ("done", "running")


def test_stop_ends_every_roll() -> None:
    """It wins: nobody is waited for, nothing more is done."""
    stand = Stand()
    first, second = stand.roll(), stand.roll()
    stand.step()
    stand.rolls.stop("stopped")
    assert (first.state, second.state) == ("stopped", "stopped")
    assert stand.step() == []
    assert not stand.rolls.busy


def test_brains_are_held_first_when_gate_and_brains_get_another_configuration() -> None:
    """No gate asks a brain to be an agent that only one of them knows."""
    stand = Stand()
    found = (*units(ALL, "gate"), *units(ALL, "brain"))
    stand.rolls.add(Roll(1, "reload", found, DRAIN_S, hold=BRAINS))
    assert stand.step() == [stand.drain(BRAINS[0]), stand.drain(BRAINS[1])]
    stand.drained(BRAINS[0])
    assert stand.step() == []
    stand.drained(BRAINS[1])
    assert stand.step() == [Recycle(GATE)]
    stand.falls(GATE)
    assert stand.step() == [stand.drain(BRAINS[0]), stand.drain(BRAINS[1])], "before it hears anybody"
    stand.serves(GATE)
    assert stand.step() == [stand.drain(BRAINS[0])]
    stand.drained(BRAINS[0])
    assert stand.step() == [Recycle(BRAINS[0])]
    stand.falls(BRAINS[1])  # A held one that dies is held again.
    assert stand.step() == [stand.drain(BRAINS[1])]


def test_held_brain_gets_work_again_when_the_roll_fails() -> None:
    """Nobody is left drained behind a roll."""
    stand = Stand()
    found = (*units(ALL, "gate"), *units(ALL, "brain"))
    stand.rolls.add(Roll(1, "reload", found, DRAIN_S, hold=BRAINS))
    stand.step()
    for brain in BRAINS:
        stand.drained(brain)
    stand.step()
    assert stand.step(SERVE_S) == [stand.drain(brain, on=False) for brain in BRAINS]


def test_too_many_rolls_are_seen_when_they_wait() -> None:
    """The caller is refused before the queue grows beyond its limit."""
    stand = Stand()
    for _ in range(QUEUED):
        assert not stand.rolls.full
        stand.roll()
    assert stand.rolls.full


def test_due_time_is_the_next_limit_when_something_is_waited_for() -> None:
    """So that a supervisor sleeps until then."""
    stand = Stand()
    assert stand.rolls.due_s() is None
    stand.roll("executor")
    stand.step()
    assert stand.rolls.due_s() == stand.now_s + DRAIN_S
    stand.drained(EXECUTOR)
    stand.step(1.0)
    assert stand.rolls.due_s() == stand.now_s + SERVE_S
