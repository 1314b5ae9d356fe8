"""The corpus as data: nothing of its list is left out, every case can be shown, every attack is a program."""

from pathlib import Path

import pytest

from homeostat.sandbox.selftest import guard
from homeostat.sandbox.selftest.case import Act, Case, Ran, answers_of, judge
from homeostat.sandbox.selftest.corpus import CASES, ELSEWHERE

ROOT = Path(__file__).resolve().parents[3]


def test_corpus_covers_every_number_of_its_list() -> None:
    """1 to 64 are tried here, or name what shows them; and new ones are all used once they are counted."""
    numbers = {number for case in CASES for number in case.numbers} | set(ELSEWHERE)
    assert set(range(1, 65)) <= numbers


@pytest.mark.parametrize("number", ELSEWHERE)
def test_corpus_names_a_file_that_is_there(number: int) -> None:
    """What is shown elsewhere can be looked up."""
    assert (ROOT / ELSEWHERE[number][1]).is_file()


def test_corpus_has_names_of_its_own_that_fit_the_table() -> None:
    """Unique names, and titles, layers and names within the 100 columns of `homeostat selftest`."""
    assert len({case.name for case in CASES}) == len(CASES)
    for case in CASES:
        assert len(case.name) <= 20, case.name
        assert len(case.title) <= 44, case.name
        assert len(case.layer) <= 27, case.name
        assert len({act.name for act in case.acts}) == len(case.acts), case.name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_corpus_attack_is_a_program_that_shows_something(case: Case) -> None:
    """It compiles, and has an act, a look at the host, a deadly end or a scenario."""
    compile(guard.source(case, {}), case.name, "exec")
    assert case.acts or case.examine or case.deadly or case.script


ACT = Case("a", (), "", "", acts=(Act("one", ""), Act("two", "", ("ENOENT",))))
DEADLY = Case("d", (), "", "", deadly=(9,))


@pytest.mark.parametrize(
    ("case", "ran", "state"),
    [
        (ACT, Ran("@one\tEPERM\n@two\tENOENT\n", 0), "contained"),
        (ACT, Ran("@one\tEPERM\r\n@two\tENOENT\r\n", 0), "contained"),
        (ACT, Ran("@one\tOK\n@two\tENOENT\n", 0), "not contained"),
        (ACT, Ran("@one\tEFAULT\n@two\tENOENT\n", 0), "not contained"),
        (ACT, Ran("@one\tEPERM\n", 0), "not proven"),
        (ACT, Ran("@one\tEPERM\n@two\tENOENT\n", 1), "not proven"),
        (ACT, Ran("", 97), "not proven"),
        (ACT, Ran(refused="root: no"), "not proven"),
        (ACT, Ran("@one\tEPERM\n@two\tENOENT\n", None, 9, overdue=True), "not contained"),
        (DEADLY, Ran("", None, 9), "contained"),
        (DEADLY, Ran("", None, 15), "not contained"),
        (DEADLY, Ran("", 0), "not contained"),
        (DEADLY, Ran("", 2), "not proven"),
    ],
)
def test_verdict_is_contained_only_for_what_proves_it(case: Case, ran: Ran, state: str) -> None:
    """Every way to end, with its verdict."""
    assert judge(case, ran, answers_of(case, ran, "x86_64"))[0] == state


def test_verdict_on_others_takes_any_refusal() -> None:
    """Strict asks for our own answer; another sandbox may refuse by another errno, but must refuse."""
    ran = Ran("@one\tENOSYS\n@two\tEROFS\n", 0)
    answers = answers_of(ACT, ran, "x86_64")
    assert judge(ACT, ran, answers)[0] == "not contained"
    assert judge(ACT, ran, answers, strict=False)[0] == "contained"
