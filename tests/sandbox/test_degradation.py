"""The degradation matrix: every layer is taken away in turn, and each time that is refused or shown.

What is taken away is really gone: a seccomp filter refuses the call, or says that it worked and does nothing;
/proc is masked; the groups are closed. One process runs all cases as root, another as an ordinary user.
"""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from homeostat.sandbox import kernel, layers
from tests.fakes.without import LIE, Refusal
from tests.sandbox.conftest import MODES
from tests.sandbox.stand import COMMAND_UID, IMPORTS, ORDINARY_UID, SETUP_UID, USER_PYTHON, user_can_import

ANY_NAMESPACE = 0x7E020000
SET_FILTER, NO_NEW_PRIVS, GET_PEER, CONTROLLING, LOOPBACK_UP = 1, 38, 0x5441, 0x540E, 0x8914
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """What is taken away, and how that must show: the layer named by a refusal, or by the report."""

    name: str
    refusals: tuple[Refusal, ...] = ()
    fatal: str = ""
    refused: str = ""
    degraded: tuple[str, ...] = ()
    act: str = ""
    staged: bool = False
    tty: bool = False
    grouped: bool = True
    may_be_missing: tuple[str, ...] = ("cgroup", "overlay")
    lacks: str = ""
    """The name in layers.PROTECTIONS of what is gone."""
    only: str = ""
    """The mode in which it means something; both, if empty."""


def gone(call: str, number: int = errno.EPERM, **rest: int) -> tuple[Refusal, ...]:
    """One refusal."""
    return (Refusal(call, number, **rest),)


CASES = (
    Case("nothing"),
    # -- the zygote can't begin: every launch would be refused, so the start is
    Case("unshare", gone("unshare"), fatal="user namespaces", lacks="user_namespaces"),
    Case("unshare-user", gone("unshare", argument=0, mask=kernel.CLONE_NEWUSER, value=kernel.CLONE_NEWUSER),
         fatal="user namespaces"),
    Case("max-user-namespaces", act="forbid_namespaces", fatal="max_user_namespaces", only="user"),
    Case("mount", gone("mount"), fatal="/proc"),
    Case("open-tree", gone("open_tree"), fatal="/proc", lacks="mount_api"),
    Case("move-mount", gone("move_mount"), fatal="/proc"),
    Case("mount-setattr", gone("mount_setattr"), fatal="/proc"),
    Case("pivot-root", gone("pivot_root"), fatal="/proc"),
    Case("close-range", gone("close_range", errno.ENOSYS), fatal="5.9", lacks="close_range"),
    Case("pidfd-open", gone("pidfd_open", errno.ENOSYS), fatal="5.3", lacks="pidfd"),
    Case("pidfd-signal", gone("pidfd_send_signal"), fatal="5.3", lacks="pidfd"),
    Case("packet-size", gone("setsockopt", LIE, argument=2, mask=0xFFFFFFFF, value=socket.SO_SNDBUF),
         fatal="wmem_max", lacks="packet_size"),
    # -- a sandbox can't be made
    Case("clone", gone("clone", argument=0, mask=kernel.CLONE_NEWPID, value=kernel.CLONE_NEWPID),
         refused="namespaces"),
    Case("clone-net", gone("clone", argument=0, mask=kernel.CLONE_NEWNET, value=kernel.CLONE_NEWNET),
         refused="namespaces"),
    Case("loopback", gone("ioctl", argument=1, mask=0xFFFFFFFF, value=LOOPBACK_UP), refused="namespaces"),
    Case("host-name", gone("sethostname"), refused="namespaces"),
    Case("masked-proc", act="mask_proc", refused="root", lacks="fresh_proc"),
    Case("old-root", gone("umount2"), refused="old_root"),
    Case("setresuid-lies", gone("setresuid", LIE), fatal="/proc", only="root"),
    Case("overlay", gone("fsopen"), refused="workspace", staged=True, lacks="overlay"),
    Case("overlay-options", gone("fsconfig", errno.EINVAL), refused="workspace", staged=True),
    Case("overlay-fsmount", gone("fsmount"), refused="workspace", staged=True),
    Case("terminal", gone("ioctl", argument=1, mask=0xFFFFFFFF, value=GET_PEER),
         refused="terminal", tty=True, lacks="terminal"),
    Case("controlling-terminal", gone("ioctl", argument=1, mask=0xFFFFFFFF, value=CONTROLLING),
         refused="terminal", tty=True),
    # -- a command can't be locked in
    Case("no-new-privs", gone("prctl", argument=0, mask=0xFFFFFFFF, value=NO_NEW_PRIVS),
         refused="privileges", lacks="no_new_privs"),
    Case("no-new-privs-lies", gone("prctl", LIE, argument=0, mask=0xFFFFFFFF, value=NO_NEW_PRIVS),
         refused="privileges", only="root"),
    Case("capset", gone("capset"), refused="privileges"),
    Case("capset-lies", gone("capset", LIE), refused="privileges"),
    Case("rlimits", gone("prlimit64", argument=2, value=0), refused="limits", lacks="rlimits"),
    Case("rlimits-lies", gone("prlimit64", LIE, argument=2, value=0), refused="limits"),
    Case("landlock-restrict", gone("landlock_restrict_self"), refused="landlock"),
    Case("landlock-rule", gone("landlock_add_rule"), refused="landlock"),
    Case("landlock-lies", gone("landlock_restrict_self", LIE), refused="landlock"),
    Case("seccomp", gone("seccomp", argument=0, mask=0xFFFFFFFF, value=SET_FILTER), refused="seccomp",
         lacks="seccomp"),
    Case("seccomp-lies", gone("seccomp", LIE, argument=0, mask=0xFFFFFFFF, value=SET_FILTER),
         refused="seccomp"),
    # -- what an operator may allow to be missing
    Case("landlock", gone("landlock_create_ruleset", errno.ENOSYS), fatal="lsm=", lacks="landlock"),
    Case("landlock-switched-off", gone("landlock_create_ruleset", errno.EOPNOTSUPP), fatal="lsm="),
    Case("landlock-allowed", gone("landlock_create_ruleset", errno.ENOSYS), degraded=("landlock",),
         may_be_missing=("landlock", "cgroup"), lacks="landlock"),
    Case("groups", grouped=False, fatal="Delegate=yes", may_be_missing=(), lacks="cgroup"),
    Case("groups-allowed", grouped=False, degraded=("cgroup",), lacks="cgroup"),
    Case("groups-closed", act="close_groups", fatal="Delegate=yes", may_be_missing=(), only="root"),
    Case("groups-closed-allowed", act="close_groups", degraded=("cgroup",), only="root"),
)  # fmt: skip

Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module", params=MODES)
def results(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, Results]]:
    """The mode, the version of control groups, and what became of each case."""
    mode: str = request.param
    as_user = mode == "user" and os.geteuid() == 0
    if as_user and not user_can_import():
        pytest.skip("an ordinary user can't read this checkout; `make user-tests` gives it a copy")
    runner = ORDINARY_UID if as_user else os.geteuid()
    base = tempfile.mkdtemp(prefix="homeostat-test-", dir="/var/tmp")
    os.chmod(base, 0o755)
    os.chown(base, COMMAND_UID if mode == "root" else runner, -1)
    try:
        yield mode, *_run(base, mode, runner if as_user else None)
    finally:
        shutil.rmtree(base)


def _run(base: str, mode: str, uid: int | None) -> tuple[str, Results]:
    cases = [case for case in CASES if case.only in {"", mode}]
    setup, command = (SETUP_UID, COMMAND_UID) if mode == "root" else (uid or os.geteuid(), 0)
    ran = subprocess.run(
        [sys.executable if uid is None else USER_PYTHON, "-m", "tests.sandbox.degraded_host", base,
         str(setup), str(command)],
        input=json.dumps([asdict(case) for case in cases]), capture_output=True, text=True, check=False,
        user=uid, group=uid, extra_groups=None if uid is None else [],
        cwd=ROOT if uid is None else "/", timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((IMPORTS, str(ROOT))),
             "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    return told["groups"], {one["case"]: one for one in told["results"]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_taken_away_is_refused_or_shown(case: Case, results: tuple[str, str, Results]) -> None:
    """Never silence: a refusal with the layer and a remedy, or a report that names what is missing."""
    mode, groups, all_results = results
    if case.only not in {"", mode}:
        pytest.skip(f"means something as {case.only} only")
    result = all_results[case.name]
    if case.fatal:
        assert (result["end"], result["code"]) == ("fatal", 8), result
        assert case.fatal in result["remedy"], result
    elif case.refused:
        assert (result["end"], result["layer"]) == ("refused", case.refused), result
        assert result["remedy"] == layers.REMEDIES[layers.Layer(case.refused)]
    else:
        assert (result["end"], result["exit"]) == ("ran", 0), result
        missing = {*case.degraded, *(("cgroup",) if groups == "none" else ())}
        assert set(result["degraded"]) == missing
        assert (result["cgroup"] == "none") is ("cgroup" in missing)
        assert (result["landlock"] == 0) is ("landlock" in missing)


@pytest.mark.parametrize("protection", layers.PROTECTIONS, ids=lambda one: one.name)
def test_every_protection_is_taken_away_by_a_case(protection: layers.Protection) -> None:
    """With its layer or its remedy; what may be missing is also shown where it is allowed to be."""
    cases = [case for case in CASES if case.lacks == protection.name]
    stopped = [case for case in cases if case.refused or case.fatal]
    assert stopped
    for case in stopped:
        remedies = protection.remedy + layers.REMEDIES[protection.layer]
        assert case.refused == protection.layer.value or (case.fatal and case.fatal in remedies), case.name
    if protection.degradable and protection.name != "overlay":  # whether to stage is the executor's choice
        assert any(case.degraded == (protection.name,) for case in cases)
