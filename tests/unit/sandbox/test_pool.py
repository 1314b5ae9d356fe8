"""Which armed sandboxes there should be, decided without one."""

import pytest

from homeostat.sandbox.pool import FIRST_PAUSE_S, IDLE_S, LONGEST_PAUSE_S, REST_S, Pool

Books = Pool[str, int]


def filled(kind: str, count: int, per_kind: int = 2, most: int = 8) -> Books:
    """A pool with so many armed of one kind, asked for at 0."""
    pool = Books(per_kind, most)
    pool.want(kind, 0.0)
    for member in range(count):
        pool.put(kind, member)
        pool.armed(member)
    return pool


def test_pool_arms_a_kind_up_to_its_number_and_not_beyond() -> None:
    """One after the other: the next only when the one before it waits."""
    pool = filled("a", 0)
    for member in (1, 2):
        assert pool.plan(1.0, busy=False) == ([], "a")
        pool.put("a", member)
        assert pool.plan(1.0, busy=False) == ([], None)
        pool.armed(member)
    assert pool.plan(1.0, busy=False) == ([], None)


@pytest.mark.parametrize("per_kind", [0, 1, 20])
def test_pool_keeps_to_the_settings(per_kind: int) -> None:
    """0 is off; more than fit in all are not wanted."""
    pool = Books(per_kind, most=3)
    pool.want("a", 0.0)
    made = 0
    while (plan := pool.plan(1.0, busy=False)).arm:
        pool.put(plan.arm, made)
        pool.armed(made)
        made += 1
        assert not plan.retire
    assert made == min(per_kind, 3)


def test_pool_rests_after_a_launch_and_while_launches_are_on_their_way() -> None:
    """A burst gets the processor; it is not answered with more work."""
    pool = filled("a", 1)
    assert pool.take("a", 5.0) == 0
    assert pool.plan(5.0 + REST_S / 2, busy=False).arm is None
    assert pool.plan(5.0 + REST_S, busy=True).arm is None
    assert pool.plan(5.0 + REST_S, busy=False).arm == "a"
    assert pool.wait_s(5.0) == pytest.approx(REST_S)


def test_pool_gives_the_oldest_that_waits_before_one_that_is_being_armed() -> None:
    """And one that is being armed before none."""
    pool = Books(3)
    pool.want("a", 0.0)
    for member in (1, 2, 3):
        pool.put("a", member)
    pool.armed(2)
    assert [pool.take("a", 1.0) for _ in range(4)] == [2, 1, 3, None]
    assert pool.take("b", 1.0) is None


def test_pool_makes_room_for_what_was_asked_for_later() -> None:
    """In all so many; the kind that has been idle the longest gives way, one at a time."""
    pool = filled("old", 2, most=2)
    pool.want("new", 10.0)
    plan = pool.plan(11.0, busy=False)
    assert plan == ([0], "new")
    pool.put("new", 7)
    pool.armed(7)
    assert sorted(pool.members) == [1, 7]
    pool.want("old", 12.0)
    assert pool.plan(13.0, busy=False) == ([7], "old")


def test_pool_retires_a_kind_that_nobody_asks_for() -> None:
    """It is forgotten whole, and then there is nothing to wait for."""
    pool = filled("a", 2)
    assert pool.wait_s(1.0) == pytest.approx(IDLE_S - 1.0)
    assert pool.plan(IDLE_S - 1, busy=False).retire == []
    assert pool.plan(IDLE_S, busy=False) == ([0, 1], None)
    assert (pool.members, pool.wait_s(IDLE_S)) == ({}, None)


def test_pool_waits_longer_each_time_when_what_it_armed_dies() -> None:
    """No loop; a success starts the pauses anew."""
    pool, now_s, pauses = filled("a", 0, per_kind=1), 1.0, []
    for member in range(12):
        pool.put("a", member)
        assert pool.lost(member, now_s)
        pause_s = pool.wait_s(now_s)
        assert pause_s is not None
        assert pool.plan(now_s + pause_s / 2, busy=False).arm is None
        pauses.append(pause_s)
        pool.want("a", now_s := now_s + pause_s + 1e-6)
        assert pool.plan(now_s, busy=False).arm == "a"
    assert pauses[:3] == pytest.approx([FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S])
    assert pauses[-1] <= LONGEST_PAUSE_S
    pool.put("a", 99)
    pool.armed(99)
    pool.lost(99, now_s)
    assert pool.wait_s(now_s) == pytest.approx(FIRST_PAUSE_S)
    pool.failed("a", now_s)
    assert pool.wait_s(now_s) == pytest.approx(2 * FIRST_PAUSE_S)


def test_pool_forgets_all_for_another_owner() -> None:
    """What was armed is given back to be ended; a member that was taken is no longer ours."""
    pool = filled("a", 2)
    assert pool.take("a", 1.0) == 0
    assert not pool.lost(0, 1.0)
    assert pool.drop() == [1]
    assert pool.drop("a") == []
    assert pool.take("a", 2.0) is None
