"""Token buckets that count what they hold back."""

from hypothesis import given, strategies as st

from homeostat.supervisor.rates import NAMES_LIMIT, Rates


def test_rates_let_a_burst_through_and_then_the_rate() -> None:
    """So many at once, then one each so often; another name has a bucket of its own."""
    rates = Rates(at_once=3, a_minute=60)
    assert [rates.take("a", 0.0) for _ in range(5)] == [0, 0, 0, None, None]
    assert rates.take("b", 0.0) == 0
    assert rates.take("a", 1.0) == 2
    assert rates.take("a", 1.5) is None
    assert rates.settled(1.5) == {}
    assert rates.settled(2.0) == {"a": 1}
    assert rates.settled(2.0) == {}


def test_rates_forget_idle_names_when_there_are_too_many() -> None:
    """Memory is bounded by the names that hold something back."""
    rates = Rates(at_once=1, a_minute=1)
    rates.take("kept", 0.0)
    rates.take("kept", 0.0)
    for number in range(3 * NAMES_LIMIT):
        rates.take(str(number), 0.0)
    assert len(rates._buckets) <= NAMES_LIMIT
    assert rates.settled(None) == {"kept": 1}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 30)), max_size=200))
def test_rates_account_for_everything(steps: list[tuple[str, float]]) -> None:
    """What went through and what is told as left out is all that there was."""
    rates, now_s, through, told = Rates(at_once=2, a_minute=30), 0.0, 0, 0
    for name, after_s in steps:
        now_s += after_s
        if (left_out := rates.take(name, now_s)) is not None:
            through, told = through + 1, told + left_out
    assert through + told + sum(rates.settled(None).values()) == len(steps)
