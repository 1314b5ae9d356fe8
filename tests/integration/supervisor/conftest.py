import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.supervised import SETTINGS, Supervised
from tests.integration.supervisor.hosted import Hosted


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path that workers of other users can pass through (pytest's own folders are root's alone)."""
    folder = Path(tempfile.mkdtemp(prefix="hs-"))
    folder.chmod(0o711)
    yield folder / "home"
    shutil.rmtree(folder)


@pytest.fixture
def supervise(home: Path) -> Iterator[Callable[..., Supervised]]:
    """Start supervisors on this home; they are gone afterwards, with everything they started."""
    started: list[Supervised] = []

    def start(settings: str = SETTINGS, fake: str = "") -> Supervised:
        started.append(Supervised(home, settings, fake))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def host(home: Path) -> Iterator[Callable[..., Hosted]]:
    """Start hosted trees on this home; they are gone afterwards, with everything they started."""
    started: list[Hosted] = []

    def start(*groups: str, **options: str) -> Hosted:
        started.append(Hosted(home, *groups, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()
