"""The bench of the executor's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.executor.bench import Bench


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    """One executor for the tests of a module that leave it as it was."""
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture
def bench(shared: Bench) -> Bench:
    """The shared executor with an empty memory of what was said."""
    shared.loop.posted.clear()
    return shared


@pytest.fixture
def own() -> Iterator[Bench]:
    """An executor of the test's own."""
    bench = Bench()
    yield bench
    bench.close()
