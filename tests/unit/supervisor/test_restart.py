import pytest
from hypothesis import given, strategies as st

from homeostat.proto.config import Supervision
from homeostat.supervisor.restart import FAILED_STARTS, Backoff, Intensity, affected, pointless
from homeostat.supervisor.specs import Strategy

MEMBERS = ("a", "b", "c")
CASES = [
    (Strategy.ONE_FOR_ONE, "a", ("a",)),
    (Strategy.ONE_FOR_ONE, "c", ("c",)),
    (Strategy.ONE_FOR_ALL, "a", ("a", "b", "c")),
    (Strategy.ONE_FOR_ALL, "c", ("a", "b", "c")),
    (Strategy.REST_FOR_ONE, "a", ("a", "b", "c")),
    (Strategy.REST_FOR_ONE, "b", ("b", "c")),
    (Strategy.REST_FOR_ONE, "c", ("c",)),
]
times = st.lists(st.floats(0, 1_000), min_size=1, max_size=60).map(sorted)


@pytest.mark.parametrize(("strategy", "failed", "expected"), CASES)
def test_strategy_restarts_whom_otp_restarts_when_one_fails(
    strategy: Strategy, failed: str, expected: tuple[str, ...]
) -> None:
    """The three strategies as OTP defines them, in start order."""
    assert affected(strategy, MEMBERS, failed) == expected


@given(times, st.integers(0, 10), st.floats(0.1, 100))
def test_intensity_is_exceeded_when_the_period_holds_more_failures(
    at_s: list[float], limit: int, period_s: float
) -> None:
    """The sliding window counts exactly the failures of the last period."""
    intensity = Intensity(limit, period_s)
    for now_s in at_s:
        intensity = intensity.failed(now_s)
    recent = [one for one in at_s[:-1] if at_s[-1] - one < period_s]
    assert intensity.exceeded == (len(recent) + 1 > limit)


@given(st.floats(0, 1, exclude_max=True), st.floats(0.001, 1), st.floats(1, 100), st.integers(0, 2_000))
def test_backoff_stays_within_its_cap_when_failures_go_on(
    random: float, base_s: float, max_s: float, failures: int
) -> None:
    """Full jitter below a cap that doubles and never passes the maximum."""
    backoff = Backoff(base_s, max_s, healthy_s=10.0)
    for _ in range(failures):
        backoff = backoff.failed(None)
    cap_s = min(max_s, base_s * 2.0 ** min(max(failures - 2, 0), 60))
    assert 0.0 <= backoff.delay_s(random) <= cap_s
    if failures > 1 and random > 0:
        assert backoff.delay_s(random) > 0.0


def test_backoff_waits_for_nothing_when_it_is_the_first_failure() -> None:
    """The first restart is immediate, the second is not."""
    first = Backoff(1.0, 8.0, healthy_s=10.0).failed(None)
    assert first.delay_s(0.999) == 0.0
    assert first.failed(5.0).delay_s(0.5) == 0.5
    assert first.failed(5.0).failed(5.0).delay_s(0.5) == 1.0


def test_backoff_begins_anew_when_the_child_had_been_healthy() -> None:
    """A healthy period pays all former failures."""
    backoff = Backoff(1.0, 8.0, healthy_s=10.0)
    for _ in range(5):
        backoff = backoff.failed(1.0)
    assert backoff.delay_s(0.5) == 4.0
    assert backoff.failed(10.0).delay_s(0.5) == 0.0


@pytest.mark.parametrize(
    ("crashes", "apart_s", "served_s", "failed_starts", "why"),
    [
        (20, 0.1, None, 0, ""),
        (21, 0.1, None, 0, "21 crashes of its group in 10 s"),
        (20, 60.0, 1.0, 0, ""),
        (21, 60.0, 1.0, 0, "21 crashes of its group, none after 10 s of service"),
        (1_000, 60.0, 10.0, 0, ""),
        (2, 60.0, None, FAILED_STARTS - 1, ""),
        (3, 60.0, None, FAILED_STARTS, "3 starts in a row failed and none has succeeded"),
    ],
)
def test_restart_is_pointless_when_crashes_are_many_at_once_or_in_a_row_or_nothing_ever_served(
    crashes: int, apart_s: float, served_s: float | None, failed_starts: int, why: str
) -> None:
    """The default settings, with crashes that far apart, each after so much service."""
    intensity, backoff = Intensity(20, 10.0), Backoff(0.05, 5.0, healthy_s=10.0)
    for crash in range(crashes):
        intensity, backoff = intensity.failed(crash * apart_s), backoff.failed(served_s)
    assert pointless(intensity, backoff, failed_starts) == why


@given(st.floats(0, 1, exclude_max=True))
def test_worker_that_always_crashes_is_given_up_when_the_settings_are_the_default(random: float) -> None:
    """Whatever the jitter, the backoff can't keep a worker below the limit for ever."""
    settings = Supervision()
    intensity = Intensity(settings.intensity, settings.period_s)
    backoff = Backoff(settings.backoff_base_s, settings.backoff_max_s, settings.healthy_s)
    now_s, crashes = 0.0, 0
    while not pointless(intensity, backoff, 0):
        crashes += 1
        intensity, backoff = intensity.failed(now_s), backoff.failed(0.001)
        now_s += 0.001 + backoff.delay_s(random)
        assert crashes <= settings.intensity + 1
