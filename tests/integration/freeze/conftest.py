"""The plug's stand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.freeze.stand import Plugged


@pytest.fixture(scope="module")
def shared() -> Iterator[Plugged]:
    """One homeostat for the tests of a module."""
    plugged = Plugged()
    yield plugged
    plugged.close()


@pytest.fixture
def plugged(shared: Plugged) -> Iterator[Plugged]:
    """The shared one, with nothing frozen before and after."""
    yield shared
    for scope, name in [(view.scope, view.name) for view in shared.frozen()]:
        shared.ask("thaw", *((f"--{scope}", name) if name else ()))
