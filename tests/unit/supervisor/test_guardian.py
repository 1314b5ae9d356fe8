"""What a guardian decides after the end of its supervisor: the same as the supervisor's own rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from homeostat.proto.config import Guardian
from homeostat.supervisor import guardian
from homeostat.supervisor.restart import FAILED_STARTS, Backoff, Intensity

RHYTHM = guardian.Rhythm(3, 60.0, 1.0, 30.0, 60.0)


def test_first_restart_waits_for_nothing_when_it_had_served() -> None:
    """What died once after serving is served again at once."""
    assert guardian.Restarts(RHYTHM).failed(-9, 100.0, 5.0, 0.99) == (0.0, "")


def test_delay_doubles_up_to_its_limit_when_deaths_follow() -> None:
    """Full jitter beneath a cap; the random value 1 shows the cap."""
    restarts = guardian.Restarts(guardian.Rhythm(100, 0.001, 1.0, 4.0, 60.0))
    delays = [restarts.failed(1, at, 5.0, 1.0)[0] for at in range(6)]
    assert delays == [0.0, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_backoff_begins_anew_when_it_was_healthy() -> None:
    """A supervisor that served long enough has the next restart at once."""
    restarts = guardian.Restarts(RHYTHM)
    restarts.failed(1, 0.0, 5.0, 1.0)
    assert restarts.failed(1, 10.0, 5.0, 1.0)[0] == 1.0
    assert restarts.failed(1, 200.0, 60.0, 1.0) == (0.0, "")


def test_guardian_gives_up_when_one_more_than_allowed_died_within_the_period() -> None:
    """Exactly so many as are allowed are mended; old ones expire."""
    restarts = guardian.Restarts(RHYTHM)
    assert [restarts.failed(1, at, 60.0, 0.0)[1] for at in (0.0, 1.0, 2.0)] == [""] * 3
    assert restarts.failed(1, 59.0, 60.0, 0.0)[1] == "it died 4 times in 60 s"
    old = guardian.Restarts(RHYTHM)
    assert [old.failed(1, at * 30.0, 60.0, 0.0)[1] for at in range(20)] == [""] * 20


def test_guardian_gives_up_when_deaths_follow_without_health() -> None:
    """However far apart the backoff has put them."""
    restarts = guardian.Restarts(RHYTHM)
    assert [restarts.failed(1, at, 1.0, 0.0)[1] for at in (0.0, 100.0, 200.0)] == [""] * 3
    assert "never after 60 s of service" in restarts.failed(1, 300.0, 1.0, 0.0)[1]


def test_guardian_gives_up_when_starts_fail_in_a_row() -> None:
    """A restart that never serves is counted apart; one that serves begins the row anew."""
    restarts = guardian.Restarts(guardian.Rhythm(100, 60.0, 0.0, 0.0, 60.0))
    for _ in range(FAILED_STARTS - 1):
        assert restarts.failed(9, 0.0, None, 0.0) == (0.0, "")
    restarts.failed(-9, 0.0, 1.0, 0.0)
    for _ in range(FAILED_STARTS - 1):
        assert restarts.failed(9, 0.0, None, 0.0) == (0.0, "")
    assert restarts.failed(9, 0.0, None, 0.0)[1] == f"{FAILED_STARTS} starts in a row failed"


@pytest.mark.parametrize("code", sorted(guardian.LASTING))
def test_guardian_gives_up_at_once_when_no_restart_can_mend_it(code: int) -> None:
    """Settings, home, protection."""
    assert guardian.Restarts(RHYTHM).failed(code, 0.0, 1_000.0, 0.0)[1] == guardian.LASTING[code]


@given(
    deaths=st.lists(
        st.tuples(st.floats(0.0, 50.0), st.floats(0.0, 120.0), st.floats(0.0, 1.0, exclude_max=True)),
        max_size=20,
    )
)
def test_guardian_decides_as_the_supervisor_does_when_given_the_same(
    deaths: list[tuple[float, float, float]],
) -> None:
    """The same delays and the same end as by supervisor/restart.py, which it can't afford to import."""
    settings = Guardian()
    restarts = guardian.Restarts(
        guardian.Rhythm(
            settings.intensity,
            settings.period_s,
            settings.backoff_base_s,
            settings.backoff_max_s,
            settings.healthy_s,
        )
    )
    intensity = Intensity(settings.intensity, settings.period_s)
    backoff = Backoff(settings.backoff_base_s, settings.backoff_max_s, settings.healthy_s)
    now_s = 0.0
    for pause_s, served_s, random in deaths:
        now_s += pause_s
        intensity, backoff = intensity.failed(now_s), backoff.failed(served_s)
        delay_s, reason = restarts.failed(1, now_s, served_s, random)
        assert bool(reason) == (intensity.exceeded or backoff.attempts > settings.intensity)
        if reason:
            return
        assert delay_s == backoff.delay_s(random)


def test_log_line_can_t_be_broken_out_of_when_a_value_is_hostile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newlines, quotes and control characters stay within their value; a large log is moved aside."""
    monkeypatch.chdir(tmp_path)
    Path("log").mkdir()
    guardian.log("info", "one", said='a "b"\nlevel=error \x1b[0m\\', delay_s=0.5, nothing=None)
    (line,) = Path(guardian.LOG).read_text().splitlines()
    assert line.endswith(r'level=info event=one said="a \"b\"\nlevel=error ?[0m\\" delay_s=0.500')
    Path(guardian.LOG).write_bytes(b"x" * (guardian.LOG_LIMIT_BYTES + 1))
    guardian.log("info", "two")
    assert Path(guardian.LOG + ".1").stat().st_size > guardian.LOG_LIMIT_BYTES
    assert Path(guardian.LOG).read_text().endswith("event=two\n")
