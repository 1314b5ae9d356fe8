"""What an outcome says when the kernel killed for want of memory."""

from __future__ import annotations

import pytest

from homeostat.proto import messages as m
from homeostat.proto.ids import Key, TaskId
from homeostat.workers.executor import calls as c, outcomes

KEY = Key("k" * 64)


def ended(exit_code: int | None, signal: int | None, oom_kills: int) -> m.Ended:
    """An outcome with its output, as the core makes it."""
    execute = m.Execute(KEY, TaskId("t"), "shell.run", b"{}", "staged", "", 1.0, 4096)
    call = c.Call(execute, 1.0, 1.0)
    event = c.Exited(KEY, exit_code, signal, oom_kills=oom_kills)
    return outcomes.with_output(outcomes.of_exit(call, event, 0.5), c.Output("out", "", 3, "cut"))


def test_a_command_killed_for_want_of_memory_says_so() -> None:
    """Killed, with the limit's name in the text and in the note."""
    outcome = outcomes.died(ended(None, 9, 1), staged=True)
    assert outcome.status == "killed"
    assert "killed by SIGKILL: all its processes together passed the memory limit" in outcome.text
    assert "thrown away" in outcome.text
    assert outcome.note.endswith("; cut")
    assert "sandbox.total_memory_bytes" in outcome.note


def test_a_command_that_lost_a_process_to_it_says_so() -> None:
    """It ended by itself, with an error: that stays its status."""
    outcome = ended(2, None, 1)
    assert (outcome.status, outcome.exit_code) == ("error", 2)
    assert "memory limit" in outcome.text


@pytest.mark.parametrize(("code", "signal"), [(0, None), (1, None), (None, 9)])
def test_others_say_nothing_of_memory(code: int | None, signal: int | None) -> None:
    """A SIGKILL of another's is not the memory's."""
    assert "memory" not in ended(code, signal, 0).text + ended(code, signal, 0).note
