"""kill(-1) is for PID 1 of a sandbox alone."""

import os

import pytest

from homeostat.sandbox.standstill import Tree


@pytest.mark.skipif(os.getpid() == 1, reason="this is PID 1, and may")
def test_tree_is_refused_outside_of_a_sandbox() -> None:
    """Anywhere else it would stop the whole machine."""
    with pytest.raises(RuntimeError, match="PID 1"):
        Tree()
