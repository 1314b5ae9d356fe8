"""The reflection gate: failures that go in circles, and everything that only looks like it."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from homeostat.workers.gate.reflection import (
    IDENTICAL,
    LONGEST_CYCLE,
    WINDOW,
    action_hash,
    error_hash,
    find_loop,
    remember,
)
from homeostat.workers.gate.state import Attempt

ESSAY = (
    "[SYSTEM EVENT - CORE KERNEL]: You are caught in a logic deadlock! The past 3 attempts were identical "
    "and invalid. Halt this approach immediately, abandon it, or switch to a completely different line of "
    "reasoning."
)


def attempt(action: str, error: str = "no such file", world: int = 0) -> Attempt:
    """One attempt; an empty error is a success."""
    return Attempt(
        action_hash("shell.run", action.encode()), error_hash("error" if error else "ok", 1, error), world
    )


def test_reflection_speaks_the_essays_words_when_three_attempts_were_identical() -> None:
    """Word for word."""
    loop = find_loop([attempt("a")] * 3)
    assert loop is not None
    assert (loop.rule, loop.message) == ("identical", ESSAY)
    assert IDENTICAL == ESSAY


def test_reflection_is_silent_after_two_identical_failures() -> None:
    """One repetition may be a retry."""
    assert find_loop([attempt("a")] * 2) is None
    assert find_loop([]) is None


def test_reflection_finds_the_essays_cycle_when_attempt_n_is_attempt_n_minus_2() -> None:
    """A, B, A with an error; what B came to doesn't matter, and the message doesn't claim three identical."""
    for between in (attempt("b"), attempt("b", error="")):
        loop = find_loop([attempt("a"), between, attempt("a")])
        assert loop is not None
        assert loop.rule == "cycle_2"
        assert "identical" not in loop.message


@pytest.mark.parametrize("length", range(3, LONGEST_CYCLE + 1))
def test_reflection_finds_a_cycle_when_it_went_round_twice(length: int) -> None:
    """Cycles of three to five actions, and not one attempt earlier."""
    once = [attempt(str(number)) for number in range(length)]
    assert find_loop(once * 2) is not None
    assert find_loop((once * 2)[:-1]) is None


def test_reflection_is_silent_when_a_cycle_is_longer_than_it_looks_for() -> None:
    """The bound is stated; what is longer is the budget's business."""
    assert find_loop([attempt(str(number)) for number in range(LONGEST_CYCLE + 1)] * 2) is None


def test_reflection_takes_edit_test_edit_for_progress_when_the_world_changed() -> None:
    """The same failing test after each edit is work, not a loop."""
    window: list[Attempt] = []
    for world in range(1, 6):
        remember(window, attempt(f"edit {world}", error="", world=world))
        remember(window, attempt("test", world=world))
        assert find_loop(window) is None


def test_reflection_finds_the_loop_again_when_the_world_stands_still_after_a_change() -> None:
    """An edit ends a loop; three failures after it are a new one."""
    window = [attempt("test", world=0), attempt("test", world=0), attempt("edit", error="", world=1)]
    for _ in range(2):
        remember(window, attempt("test", world=1))
    assert find_loop(window) is None
    remember(window, attempt("test", world=1))
    assert find_loop(window) is not None


@given(st.lists(st.sampled_from("ab"), max_size=WINDOW))
def test_reflection_never_speaks_after_a_success(actions: list[str]) -> None:
    """Repeating what works is no deadlock."""
    assert find_loop([attempt(action, error="") for action in actions]) is None


def test_reflection_is_silent_when_the_same_action_fails_differently() -> None:
    """Another error is news."""
    assert find_loop([attempt("a", "x"), attempt("a", "y"), attempt("a", "z")]) is None


def test_error_hash_is_the_same_when_only_numbers_differ() -> None:
    """Times, pids and addresses don't tell two failures apart; words and exit codes do."""
    first = error_hash("error", 1, "pid 4711 died at 0xdeadbeef after 12.5 s")
    assert first == error_hash("error", 1, "pid 99 died at 0x7f00 after 0.25 s")
    assert first != error_hash("error", 2, "pid 4711 died at 0xdeadbeef after 12.5 s")
    assert first != error_hash("timeout", 1, "pid 4711 died at 0xdeadbeef after 12.5 s")
    assert first != error_hash("error", 1, "pid 4711 lives at 0xdeadbeef after 12.5 s")
    assert error_hash("ok", 0, "anything") == b""


def test_action_hash_tells_tool_and_arguments_apart() -> None:
    """The border between the two can't be shifted."""
    assert action_hash("a", b"b") != action_hash("ab", b"")
    assert action_hash("a", b"b") == action_hash("a", b"b")


def test_window_keeps_the_newest_attempts_alone() -> None:
    """Its size in the task's head is bounded."""
    window: list[Attempt] = []
    for number in range(WINDOW * 2):
        remember(window, attempt(str(number)))
    assert len(window) == WINDOW >= 2 * LONGEST_CYCLE
    assert window[-1] == attempt(str(WINDOW * 2 - 1))
