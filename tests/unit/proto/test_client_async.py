"""The asyncio client has the blocking one's behaviour."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeostat.proto.client import Client
from homeostat.proto.client_async import AsyncClient
from homeostat.proto.conversation import WireRefusedError
from tests.fakes.wire_gate import WireGate, local, serving


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[WireGate]:
    """A gate on the client port of a home."""
    yield from serving(local(tmp_path))


def test_async_client_has_the_surface_of_the_blocking_one() -> None:
    """The same methods with the same parameters."""
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_"):
            twin = getattr(AsyncClient, name)
            assert list(inspect.signature(twin).parameters) == list(inspect.signature(method).parameters), (
                name
            )


def test_async_client_submits_watches_and_is_refused(gate: WireGate, tmp_path: Path) -> None:
    """One task from its submit to its end; concurrent requests each get their own answer."""

    async def scenario() -> None:
        async with AsyncClient.for_home(tmp_path, timeout_s=5) as client:
            task = (await client.submit("count")).task
            gate.record(task, "event", step=1, rule="", message="")
            gate.record(task, "status", status="done", reason="", result="")
            assert [event.position async for event in client.watch(task)] == [1, 2]
            shown, status = await asyncio.gather(client.show(task), client.status())
            assert shown.task.status == "done"
            assert status.position == 2
            with pytest.raises(WireRefusedError):
                await client.cancel("t0")

    asyncio.run(scenario())


def test_async_watch_goes_on_when_the_gate_restarts(gate: WireGate, tmp_path: Path) -> None:
    """A held watch is asked again of the next gate."""

    async def scenario() -> list[int]:
        seen = []
        async with AsyncClient.for_home(tmp_path, timeout_s=5) as client:
            gate.add_task("t1")
            gate.record("t1", "event", step=1, rule="", message="")
            async for event in client.watch("t1"):
                seen.append(event.position)
                if event.position == 1:
                    asyncio.get_running_loop().call_later(0.1, restart_and_end)
        return seen

    def restart_and_end() -> None:
        gate.stop()
        gate.start()
        gate.record("t1", "status", status="done", reason="", result="")

    assert asyncio.run(scenario()) == [1, 2]
