"""What the tests of a real gate process share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homeostat.proto.config import Config
from tests.integration.gate.gate_world import GateWorld


@pytest.fixture
def new_world() -> Iterator[Callable[[Config], GateWorld]]:
    """Make worlds with short paths, since a unix socket's is bounded; they are taken down afterwards."""
    worlds: list[GateWorld] = []
    folders: list[Path] = []

    def make(config: Config) -> GateWorld:
        folders.append(Path(tempfile.mkdtemp(prefix="gate-")))
        worlds.append(GateWorld(folders[-1] / "home", config))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()
    for folder in folders:
        shutil.rmtree(folder)
