"""The control experiment: where nothing contains them the attacks hit, so that a failure means something."""

import os
import subprocess

import pytest

from homeostat.sandbox.selftest.case import Case
from tests.bench.sandbox.foreign import ORDINARY_UID, PYTHON, Foreign, attack, portable_cases

#: What a user namespace alone, an ordinary uid or this kernel's build refuses already.
REFUSED_ANYWAY = {
    "odd-names", "pid-1", "uncover", "setns", "x32", "own-program", "page-cache", "ghosts", "host-settings",
    "real-time", "devices", "cgroups",
}  # fmt: skip

CASES = [case for case in portable_cases() if case.name not in REFUSED_ANYWAY and "root" not in case.needs]


@pytest.fixture(scope="module")
def hits() -> dict[str, str]:
    """The state of every case in a user namespace and nothing else."""
    user = ORDINARY_UID if os.geteuid() == 0 else None
    words = ("unshare", "--user", "--map-root-user", "--")
    try:
        subprocess.run([*words, PYTHON, "-c", ""], check=True, user=user, group=user, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"unshare(1) with the system's Python is what this is tried with: {error}")
    bare = Foreign("a user namespace", lambda _: words, user=user)
    return {found.case.name: found.state for found in attack(bare, CASES)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_attack_hits_where_nothing_contains_it(hits: dict[str, str], case: Case) -> None:
    """At least one act of it succeeds, or a canary is touched."""
    assert hits[case.name] == "not contained"
