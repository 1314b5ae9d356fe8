"""Short folders, and one running home that every test of refusals finds and leaves unharmed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.bad_input.stand import Home, short_folder


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder for one test."""
    with short_folder() as folder:
        yield folder


@pytest.fixture
def home(root: Path) -> Iterator[Home]:
    """A home that nobody runs yet."""
    one = Home(root)
    yield one
    one.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Home]:
    """A running home for all."""
    with short_folder() as folder:
        one = Home(folder)
        try:
            one.start()
            yield one
            assert one.stop() == 0
        finally:
            one.close()


@pytest.fixture
def running(served: Home) -> Iterator[Home]:
    """The running home. A task that was accepted before the test ends well after it; no worker has died."""
    before = served.workers()
    accepted = served.accept()
    yield served
    assert served.ends(accepted) == "done"
    assert served.workers() == before
