"""Silence: when it is looked at, and what two looks prove."""

from __future__ import annotations

import math

from homeostat.workers.executor.quiet import AGAIN_S, QUIET_S, SELDOM_S, Quiet


def looked(quiet: Quiet, now: float) -> bool:
    """Whether it wants a look now."""
    return quiet.check(now) == "look"


def test_two_equal_looks_without_output_between_prove_it() -> None:
    """One is not enough."""
    quiet = Quiet(0.0, 0.0, looks=True)
    assert not looked(quiet, QUIET_S - 0.01)
    assert looked(quiet, QUIET_S)
    assert not looked(quiet, QUIET_S + 0.01), "no second look before the answer"
    assert quiet.looked("waiting", 0.3) is False
    assert quiet.next_at() == 0.3 + AGAIN_S
    assert looked(quiet, 0.3 + AGAIN_S)
    assert quiet.looked("waiting", 0.5) is True


def test_output_between_two_looks_begins_anew() -> None:
    """A prompt that goes on printing is none."""
    quiet = Quiet(0.0, 0.0, looks=True)
    assert looked(quiet, 0.2)
    quiet.looked("waiting", 0.2)
    quiet.printed(0.3)
    assert not looked(quiet, 0.4)
    assert looked(quiet, 0.5)
    assert quiet.looked("waiting", 0.5) is False


def test_maybe_and_busy_prove_nothing_and_are_seldom_looked_at() -> None:
    """However often."""
    quiet = Quiet(0.0, 0.0, looks=True)
    now = QUIET_S
    for state in ("maybe", "busy", "waiting", "maybe", "waiting", "busy") * 5:
        assert looked(quiet, now)
        assert quiet.looked(state, now) is False
        now += SELDOM_S


def test_nobody_looks_any_more_where_nothing_can_be_seen() -> None:
    """And that is remembered."""
    quiet = Quiet(0.0, 0.0, looks=True)
    assert looked(quiet, 1.0)
    quiet.looked("unseen", 1.0)
    assert quiet.is_unseen
    assert quiet.next_at() == math.inf


def test_silence_is_over_its_limit() -> None:
    """Each output begins it anew; without a limit it may last for ever."""
    quiet = Quiet(0.0, 2.0, looks=False)
    quiet.printed(1.5)
    assert quiet.next_at() == 3.5
    assert quiet.check(3.4) == ""
    assert quiet.check(3.5) == "silent"
    assert Quiet(0.0, 0.0, looks=False).next_at() == math.inf


def test_what_stands_still_is_not_silent() -> None:
    """Its time goes on when it does."""
    quiet = Quiet(0.0, 2.0, looks=True)
    quiet.stand(1.0, still=True)
    assert quiet.next_at() == math.inf
    assert quiet.check(100.0) == ""
    quiet.stand(200.0, still=False)
    assert quiet.check(201.9) == "look"
    assert quiet.check(202.0) == "silent"
