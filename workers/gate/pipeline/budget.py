"""Stage 4: steps, tokens, output, errors: what a task may still spend.

Owns: the comparison of a task's counters with its limits. Must not know: how they are counted.
Invariant: a limit that is reached ends the task with a reason that names it.
Source: DESIGN §8 "Budget", law 5.
"""

from __future__ import annotations

from ..state import Task


def overdrawn(task: Task) -> str:
    """Say which limit does not let another step begin; empty if none."""
    limits = task.limits
    if task.step >= limits.max_steps:
        return f"budget: max_steps = {limits.max_steps} is used up"
    if task.tokens >= limits.max_tokens:
        return f"budget: max_tokens = {limits.max_tokens} is used up"
    if task.output_bytes >= limits.max_output_bytes:
        return f"budget: max_output_bytes = {limits.max_output_bytes} is used up"
    if task.consecutive_errors >= limits.max_consecutive_errors:
        return f"budget: {task.consecutive_errors} errors in a row (max_consecutive_errors)"
    return ""


def wall_deadline_ns(task: Task) -> int:
    """When the task's wall time is over; while it is frozen that doesn't come nearer."""
    return task.accepted_ns + task.frozen_ns + int(task.limits.max_wall_s * 1e9)
