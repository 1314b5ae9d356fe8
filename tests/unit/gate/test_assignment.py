"""What a brain is told of a task and its agent."""

from __future__ import annotations

from homeostat.proto.config import Agent
from homeostat.workers.gate.assignment import agent_spec
from tests.unit.gate.core_stand import Stand


def test_agent_spec_leaves_out_a_tool_that_is_no_more() -> None:
    """Tasks outlive configurations and releases: the model is not shown the name, and the gate goes on."""
    agent = Agent(name="a", provider="chat", tools=("task.note", "rocket.launch"))
    assert [tool.name for tool in agent_spec(Stand().core, agent).tools] == ["task.note"]
