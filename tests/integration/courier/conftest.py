"""Couriers and far hosts that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from homeostat.proto.config import Agent
from tests.fakes.far_host import Behaviour, FarHost
from tests.integration.courier.stand import Stand

MakeStand = Callable[..., Stand]
MakeHost = Callable[..., FarHost]


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[MakeStand]:
    """Makes a courier for these agents."""
    made: list[Stand] = []

    def make(*agents: Agent, **more: Any) -> Stand:
        made.append(Stand(tmp_path, agents, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def far() -> Iterator[MakeHost]:
    """Makes a far host."""
    made: list[FarHost] = []

    def make(behave: Behaviour, **more: Any) -> FarHost:
        made.append(FarHost(behave, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()
