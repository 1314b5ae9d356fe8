"""What every test of the repository shares: who may run it."""

from __future__ import annotations

import os

import pytest

# Before anything is collected: the checkout has an __init__.py on top (for tools), which pytest would import
# under the name of the checkout's folder; in one called "homeostat" it would hide the installed package.
import homeostat  # noqa: F401


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, and say so, what only root or only an ordinary user can show."""
    is_root = os.geteuid() == 0
    if item.get_closest_marker("root") and not is_root:
        pytest.skip("needs root")
    if item.get_closest_marker("unprivileged") and is_root:
        pytest.skip("needs an ordinary user; `make user-tests` runs it as one")
