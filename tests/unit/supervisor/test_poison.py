from pathlib import Path

from homeostat.proto import messages as m
from homeostat.supervisor import poison
from homeostat.supervisor.oom import Killings
from homeostat.supervisor.poison import Suspects


def test_subject_is_poison_when_a_worker_crashed_over_it_twice() -> None:
    """Once can be chance; another worker, or another subject, is another count."""
    suspects = Suspects()
    assert suspects.crashed("brain.0", "observe t 5", lambda: "first") is None
    assert suspects.crashed("brain.1", "observe t 5", lambda: "other worker") is None
    assert suspects.crashed("brain.0", "observe t 6", lambda: "other subject") is None
    assert suspects.crashed("brain.0", "", lambda: "nothing at hand") is None
    assert suspects.crashed("brain.0", "", lambda: "nothing at hand") is None
    found = suspects.crashed("brain.0", "observe t 5", lambda: "second")
    assert found == m.Poison("observe t 5", "brain.0", 2, "second")


def test_poison_is_said_again_when_it_is_not_quarantined() -> None:
    """A gate that dies before it has put it aside leaves it to its successor."""
    suspects = Suspects()
    for _ in range(poison.CRASHES):
        suspects.crashed("gate.0", "propose t 1", lambda: "report")
    assert [one.subject for one in suspects.unanswered] == ["propose t 1"]
    assert suspects.quarantined("propose t 1")
    assert not suspects.quarantined("propose t 1")
    assert suspects.unanswered == ()
    assert suspects.crashed("gate.0", "propose t 1", lambda: "counted anew") is None


def test_suspects_are_bounded_when_everything_crashes() -> None:
    """The oldest counts go first."""
    suspects = Suspects()
    for number in range(poison.REMEMBERED + 1):
        suspects.crashed("brain.0", f"observe t {number}", lambda: "")
    assert suspects.crashed("brain.0", "observe t 0", lambda: "") is None
    assert suspects.crashed("brain.0", f"observe t {poison.REMEMBERED}", lambda: "") is not None
    for number in range(poison.UNANSWERED + 10):
        for _ in range(poison.CRASHES):
            suspects.crashed("memory.0", f"execute {number}", lambda: "")
    assert len(suspects.unanswered) == poison.UNANSWERED


def test_kernel_s_killings_are_seen_when_its_counter_grows(tmp_path: Path) -> None:
    """Only growth counts; a counter that can't be read says nothing."""
    path = tmp_path / "vmstat"
    path.write_text("pgfault 12\noom_kill 3\n")
    killings = Killings(path)
    assert not killings.some()
    path.write_text("pgfault 13\noom_kill 4\n")
    assert killings.some()
    assert not killings.some()
    path.unlink()
    assert not killings.some()
    assert not Killings().some()
