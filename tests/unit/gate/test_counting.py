"""Totals that a status shows: counted from the gate's start, beside the metrics."""

from __future__ import annotations

from typing import cast
from unittest.mock import MagicMock

import pytest

from homeostat.proto.records import Usage
from homeostat.workers.gate.counting import TOTALS, Counting
from homeostat.workers.metrics import Metrics


@pytest.fixture
def counting() -> Counting:
    """Counts into metrics that nobody reads."""
    return Counting(cast("Metrics", MagicMock(spec=Metrics)))


def test_totals_begin_at_zero_and_name_everything(counting: Counting) -> None:
    """A viewer can tell what is not counted from what has not happened."""
    assert dict(counting.totals) == dict.fromkeys(TOTALS, 0)


def test_totals_count_what_the_core_and_the_shell_tell(counting: Counting) -> None:
    """Each observation once, and writing the metrics takes nothing away."""
    counting.observed("step", 1)
    counting.observed("system_event", 1)
    counting.observed("verdict", ("policy", "admit"))
    counting.observed("verdict", ("schema", "deny"))
    counting.observed("outcome", ("read", "ok", 0.1))
    counting.observed("tokens", Usage(30, 12))
    counting.request("submit", "ok")
    counting.request("submit", "limit")
    counting.committed(0.001, 7)
    counting.write(idle=True)
    assert dict(counting.totals) == {
        "steps": 1, "effects": 1, "verdicts": 2, "denied": 1, "tokens": 42,
        "commits": 1, "records": 7, "requests": 2, "refused": 1,
    }  # fmt: skip
