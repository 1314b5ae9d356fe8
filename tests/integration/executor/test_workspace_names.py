"""One folder under many names is one workspace: one writer at a time."""

from __future__ import annotations

import pytest

from homeostat.proto import messages as m
from tests.integration.executor.bench import Bench


@pytest.mark.parametrize("name", ["{0}/", "{0}/.", "{0}/../{1}", "link"])
def test_second_writer_waits_when_it_names_the_same_folder_otherwise(own: Bench, name: str) -> None:
    """The folder counts: the second call sees what the first did, and conflicts with nothing."""
    own.own_workspace()
    link = own.home / "link"
    link.symlink_to(own.workspace)
    other = str(link) if name == "link" else name.format(own.workspace, own.workspace.name)
    first = own.send("shell.run", "staged", command="sleep 0.3; echo first >> f")
    second = own.send("shell.run", "staged", workspace=other, command="echo second >> f")
    assert own.ended(first).status == "ok"
    assert own.ended(second).status == "ok"
    assert (own.workspace / "f").read_text() == "first\nsecond\n"


def test_call_is_refused_when_its_workspace_was_exchanged_while_it_waited(own: Bench) -> None:
    """Its turn was for one folder; another of the same name may have a writer already."""
    own.own_workspace()
    link = own.home / "link"
    link.symlink_to(own.workspace)
    first = own.send("shell.run", "staged", command="sleep 0.3; echo first >> f")
    second = own.send("shell.run", "staged", workspace=str(link), command="echo second >> f")
    link.unlink()
    link.symlink_to(own.home / "workspaces" / "t2")
    assert own.ended(first).status == "ok"
    ended = own.ended(second)
    assert isinstance(ended, m.Ended)
    assert ended.status == "error"
    assert "was exchanged while the call waited" in ended.text
    assert "nothing was run" in ended.text


def test_call_is_refused_in_words_when_its_workspace_has_a_nul(own: Bench) -> None:
    """What no folder can be called costs the call, not the executor."""
    ended = own.ended(own.send("shell.run", "staged", workspace="/a\0b", command="true"))
    assert ended.status == "error"
    assert "NUL" in ended.text
