"""The workbench of the compatibility tests, and one line about what is missing on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compatibility import workbench
from tests.compatibility.workbench import Workbench
from tests.sandbox.stand import Stand


@pytest.fixture(scope="session")
def shared() -> Iterator[Workbench]:
    """One executor for all; what a command could leave behind dies with its sandbox."""
    bench = Workbench()
    yield bench
    bench.close()


@pytest.fixture
def work(shared: Workbench) -> Workbench:
    """The shared executor with an empty workspace."""
    shared.renew()
    return shared


@pytest.fixture(scope="session")
def stage_hand() -> Iterator[Stand]:
    """One zygote for all programs on terminals."""
    with Stand(as_user=False) as stand:
        yield stand


@pytest.fixture
def place(stage_hand: Stand) -> Stand:
    """The shared zygote with an empty workspace."""
    stage_hand.workspace = stage_hand.folder(f"workspace{stage_hand.next_id()}")
    return stage_hand


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what these tests could not try."""
    if absent := workbench.missing():
        terminalreporter.write_line(
            f"compatibility: {len(absent)} of {len(workbench.PACKAGES)} programs are not installed "
            f"({' '.join(absent)}): as root, `make test-programs` installs them"
        )
