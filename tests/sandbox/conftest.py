"""Every sandbox test runs with root's zygote and an ordinary user's, where root runs it; else with the
user's.
"""

import os
from collections.abc import Iterator

import pytest

from homeostat.sandbox.namespaces import Ids
from homeostat.sandbox.selftest.prover import Prover
from homeostat.sandbox.selftest.zygotes import Interpreter
from tests.sandbox.stand import (
    COMMAND_UID,
    IMPORTS,
    ORDINARY_UID,
    SETUP_UID,
    USER_PYTHON,
    Stand,
    user_can_import,
)

MODES = ["root", "user"] if os.geteuid() == 0 else ["user"]


def _as_user(request: pytest.FixtureRequest) -> bool:
    wanted: bool = request.param == "user"
    if wanted and os.geteuid() == 0 and not user_can_import():
        pytest.skip("an ordinary user can't read this checkout; `make user-tests` gives it a copy")
    return wanted


@pytest.fixture(scope="session", params=MODES)
def shared(request: pytest.FixtureRequest) -> Iterator[Stand]:
    """One zygote for all tests that leave it alive."""
    with Stand(as_user=_as_user(request)) as stand:
        yield stand


@pytest.fixture
def stand(shared: Stand) -> Stand:
    """The shared zygote with an empty workspace."""
    shared.workspace = shared.folder(f"workspace{shared.next_id()}")
    return shared


@pytest.fixture(params=MODES)
def mortal(request: pytest.FixtureRequest) -> Iterator[Stand]:
    """A zygote of the test's own, to be killed or handed over."""
    with Stand(as_user=_as_user(request)) as stand:
        yield stand


@pytest.fixture(scope="session", params=MODES)
def prover(request: pytest.FixtureRequest) -> Iterator[Prover]:
    """The selftest's own zygote, root's or an ordinary user's."""
    ids, interpreter = Ids(os.geteuid() or SETUP_UID, None if os.geteuid() else COMMAND_UID), None
    if _as_user(request) and os.geteuid() == 0:
        ids = Ids(ORDINARY_UID)
        interpreter = Interpreter((USER_PYTHON, "-P"), tuple(IMPORTS.split(os.pathsep)), ORDINARY_UID)
    with Prover(ids, interpreter) as made:
        yield made
