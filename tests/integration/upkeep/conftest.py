import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.upkeep.stand import CONFIG, Home


@pytest.fixture
def serve() -> Iterator[Callable[..., Home]]:
    """Start supervisors with real workers, each on a home of its own; they are gone afterwards."""
    homes: list[Home] = []
    folder = Path(tempfile.mkdtemp(prefix="hs-up-"))
    folder.chmod(0o755)

    def start(config: str = CONFIG) -> Home:
        homes.append(Home(folder / str(len(homes)), config))
        return homes[-1]

    yield start
    for home in homes:
        home.close()
    shutil.rmtree(folder)
