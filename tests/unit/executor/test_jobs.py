from __future__ import annotations

import select
import threading
from collections.abc import Iterator

import pytest

from homeostat.workers.executor.jobs import Jobs


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    """Two threads."""
    made = Jobs()
    yield made
    made.close()


def deliver(jobs: Jobs, until: int, results: list[object]) -> None:
    """Serve the descriptor until so many results are there."""
    while len(results) < until:
        assert select.select([jobs.fd], [], [], 20)[0]
        jobs.deliver()


def test_jobs_deliver_in_the_asking_thread(jobs: Jobs) -> None:
    """The work is done elsewhere, its end is told here."""
    results: list[object] = []
    jobs.submit("a", threading.get_ident, lambda ident: results.extend((ident, threading.get_ident())))
    deliver(jobs, 2, results)
    there, here = results
    assert here == threading.get_ident() != there
    assert jobs.idle()


def test_jobs_keep_the_order_of_a_lane(jobs: Jobs) -> None:
    """Work of one key never overlaps or overtakes, whatever other keys do."""
    results: list[object] = []
    for number in range(200):
        jobs.submit("one", lambda number=number: number, results.append)  # type: ignore[misc]
        jobs.submit(f"other {number}", lambda: None, lambda _: None)
    deliver(jobs, 200, results)
    assert results == list(range(200))


def test_jobs_raise_an_unexpected_error_in_the_loop(jobs: Jobs) -> None:
    """Nothing is swallowed in a thread."""

    def fail() -> None:
        raise LookupError("unexpected")

    jobs.submit("a", fail, lambda _: None)
    assert select.select([jobs.fd], [], [], 20)[0]
    with pytest.raises(LookupError, match="unexpected"):
        jobs.deliver()
