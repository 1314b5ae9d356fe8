"""A short path that workers of other users can pass through, and a daemon on it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon.stand import Daemon


@pytest.fixture
def home() -> Iterator[Path]:
    """The name of a home."""
    folder = Path(tempfile.mkdtemp(prefix="hs-"))
    folder.chmod(0o711)
    yield folder / "home"
    shutil.rmtree(folder)


@pytest.fixture
def daemon(home: Path) -> Iterator[Daemon]:
    """A daemon that is not started yet; nothing of it is left afterwards."""
    one = Daemon(home)
    yield one
    one.close()
