"""Control groups: what all processes of a command may have together, where it is put, what is left of it."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeostat.sandbox import cgroups, delegation, kernel, layers, probe, protocol
from homeostat.sandbox.cgroups import Bounds, Groups
from homeostat.sandbox.delegation import HomeGroup
from homeostat.sandbox.profile import Limits, Profile
from homeostat.sandbox.protocol import Exited, Launched
from tests.sandbox.stand import PATIENCE_S, Stand, kill, receive, wait_dead
from tests.sandbox.test_attack_processes import TREE, start

SMALL = Profile(limits=Limits(total_memory_bytes=96 << 20))
#: Touches every page, so that they are really there.
HOG = "hog = bytearray({0} << 20); hog[::4096] = bytes(len(hog[::4096]))"


@pytest.fixture
def grouped(stand: Stand) -> Stand:
    """A stand whose sandboxes are placed."""
    if stand.groups.version == "none":
        pytest.skip(f"no control groups here: {stand.groups.reason}")
    return stand


def test_memory_bomb_of_one_process_is_killed_and_said(grouped: Stand) -> None:
    """55: far below the bound of one process; the end says why."""
    result = grouped.python(HOG.format(512), profile=SMALL)
    assert result.signal == signal.SIGKILL
    assert isinstance(result.end, Exited)
    assert result.end.oom_kills > 0


def test_memory_bomb_of_many_processes_is_bounded_and_the_next_command_runs(grouped: Stand) -> None:
    """55: each is small, together they are not: the kernel takes one, and the bound is the command's own."""
    result = grouped.python(f"""
import time
children = []
for _ in range(8):
    if (child := os.fork()) == 0:
        {HOG.format(40)}
        time.sleep(30); os._exit(0)
    children.append(child)
os.wait()  # whichever it took
for child in children: os.kill(child, 9)
sys.exit(3)
""", profile=SMALL)  # fmt: skip
    assert isinstance(result.end, Exited)
    assert result.end.oom_kills > 0
    again = grouped.python(f"{HOG.format(40)}; print('ran')", profile=SMALL)
    assert (again.code, again.out) == (0, "ran\n")
    assert isinstance(again.end, Exited)
    assert again.end.oom_kills == 0


def test_files_in_memory_count_as_the_commands_memory(grouped: Stand) -> None:
    """17: the private /tmp is larger than the bound; what is written there is charged."""
    result = grouped.python("""
with open("/tmp/fill", "wb") as file:
    while True: file.write(bytes(1 << 20))
""", profile=SMALL)  # fmt: skip
    assert isinstance(result.end, Exited)
    assert result.end.oom_kills > 0


def test_every_process_of_a_sandbox_is_in_its_group(grouped: Stand) -> None:
    """PID 1 and a daemon of two forks and two sessions alike; nobody of it is anywhere else."""
    launched, pidfd, pipe = start(grouped, TREE)
    own = _group_of(launched.pid)
    assert "/homeostat-" in own
    until_s = time.monotonic() + PATIENCE_S
    while len(living := [launched.pid, *_below(launched.pid)]) > 3:  # the one between is about to end
        assert time.monotonic() < until_s
        time.sleep(0.01)
    assert [_group_of(pid) for pid in living] == [own] * 3  # PID 1, the command, its daemon
    grouped.client.kill(launched.id)
    receive(grouped.client)
    protocol.close((pidfd, pipe))


def _below(pid: int) -> list[int]:
    """All that live below a process: one that has ended is in no group any more."""
    found = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    living = [one for one in found if "State:\tZ" not in Path(f"/proc/{one}/status").read_text()]
    return [*living, *(deeper for one in living for deeper in _below(one))]


def _group_of(pid: int) -> str:
    """Its group of pids (version 1), else its only one."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next((line for line in lines if ":pids:" in line), lines[-1]).split(":", 2)[2]


def test_groups_of_a_killed_run_are_removed_by_the_next(mortal: Stand) -> None:
    """The zygote is killed with a tree in its sandbox; the next run of this home finds nothing of it."""
    if mortal.groups.version == "none":
        pytest.skip(f"no control groups here: {mortal.groups.reason}")
    launched, pidfd, pipe = start(mortal, TREE)
    assert isinstance(launched, Launched)
    kill(mortal.process)
    successor = HomeGroup(mortal.base, mortal.ids.setup_uid if os.geteuid() == 0 else None)
    assert successor.version == mortal.groups.version
    wait_dead(launched.pid)
    assert [list(base.glob("*/*.*")) for base in successor._bases] == [[]] * len(successor._bases)
    assert successor.close()
    assert not any(base.exists() for base in successor._bases)
    protocol.close((pidfd, pipe))


@pytest.fixture
def lent(tmp_path: Path) -> Iterator[dict[str, int]]:
    """Folders that were delegated to this user."""
    home = HomeGroup(tmp_path, None)
    if home.version == "none":
        pytest.skip(f"no control groups here: {home.reason}")
    fds = home.lend(0)
    yield fds
    protocol.close([*fds.values()])
    assert home.close()


def in_process(source: str, fds: dict[str, int]) -> str:
    """Run this in a process of one thread, as a zygote is one, with `groups` made of these descriptors."""
    program = f"from homeostat.sandbox.cgroups import *\nimport errno\ngroups = Groups({fds!r})\n" + source
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, pass_fds=[*fds.values()]
    )
    return ran.stdout


def test_fork_bomb_is_bounded_by_the_group_alone(lent: dict[str, int]) -> None:
    """54: where RLIMIT_NPROC does not hold, as for root, the group does."""
    out = in_process("""
import signal
group = groups.take(Bounds(64 << 20, 12))
child, _ = groups.clone(0, group)
if child == 0:
    sit_down(group)
    children = []
    try:
        while True:
            children.append(os.fork())
            if children[-1] == 0:
                signal.pause()
    except OSError as error:
        print(errno.errorcode[error.errno], len(children), flush=True)
    for one in children:
        os.kill(one, signal.SIGKILL)
        os.waitpid(one, 0)
    os._exit(0)
os.waitpid(child, 0)
""", lent)  # fmt: skip
    answer, made = out.split()
    assert answer == "EAGAIN"
    assert 12 <= int(made) < 20


def test_groups_are_used_again_and_bounds_are_never_mixed(lent: dict[str, int]) -> None:
    """Two sizes, two groups; what comes back is given out again; a former zygote's are swept away."""
    groups = Groups(lent)
    small, large = Bounds(64 << 20, 8), Bounds(128 << 20, 8)
    first, second = groups.take(small), groups.take(large)
    assert first.name != second.name
    groups.give_back(first)
    assert groups.take(large).name not in {first.name, second.name}
    assert groups.take(small).name == first.name
    Groups(lent).settle()
    assert _names(lent) == set()


def _names(lent: dict[str, int]) -> set[str]:
    return {
        one for fd in lent.values() for one in os.listdir(fd) if os.path.isdir(f"/proc/self/fd/{fd}/{one}")
    }


def test_groups_that_an_administrator_removed_are_not_given_out(lent: dict[str, int]) -> None:
    """Its folder is gone: it is not used again, and its end is no error."""
    groups = Groups(lent)
    group = groups.take(Bounds(64 << 20, 8))
    for fd in lent.values():
        os.rmdir(group.name, dir_fd=fd)
    assert groups.new_oom_kills(group) == 0
    groups.give_back(group)
    assert groups.take(Bounds(64 << 20, 8)).name != group.name


@pytest.mark.root
def test_a_process_is_born_into_a_group_of_version_2_and_killed_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """clone3(2) with CLONE_INTO_CGROUP and cgroup.kill, on a hierarchy that may have no controllers."""
    roots = [Path(one) for one in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")]
    root = next((one for one in roots if (one / "cgroup.controllers").exists()), None)
    if root is None or not os.access(root, os.W_OK):
        pytest.skip("no hierarchy of version 2 that can be written")
    base = root / f"homeostat-test-{os.getpid()}"
    for name, nothing in (("_BOUNDS", {"v2": ()}), ("_EVENTS", {"v2": "cgroup.events"})):
        monkeypatch.setattr(cgroups, name, nothing)
    base.mkdir()
    fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        groups = Groups({"cgroup": fd})
        group = groups.take(Bounds(64 << 20, 8))
        pid, pidfd = groups.clone(0, group)
        if pid == 0:
            signal.pause()
            os._exit(0)
        assert (base / group.name / "cgroup.procs").read_text().split() == [str(pid)]
        groups.kill(group)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        protocol.close((pidfd,))
        (base / group.name).rmdir()
    finally:
        os.close(fd)
        base.rmdir()


def test_clone_into_what_is_no_group_is_an_error() -> None:
    """A folder of another kind is refused by the kernel, and nothing is forked."""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    with pytest.raises(kernel.KernelError, match="clone3"):
        kernel.clone_pidfd(0, fd)
    os.close(fd)


# -- version 2, as far as a folder can play it -----------------------------------------------------


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A group of version 2 that was delegated and that others are in; nothing of it is limited yet."""
    (tmp_path / "cgroup.subtree_control").write_text("")
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n{os.getppid()}\n")
    monkeypatch.setattr(delegation, "_place", lambda _name: delegation._Place("v2", (tmp_path,)))
    monkeypatch.setattr(delegation, "_is_ours", lambda _folder: True)
    return tmp_path


def test_others_of_the_own_group_are_not_moved_when_only_the_caller_may_be(second: Path) -> None:
    """It is said that they are there, and nothing is made; a home's supervisor moves them."""
    alone = HomeGroup(second / "home", None, others=False)
    assert alone.version == "none"
    assert "those are left where they are" in alone.reason
    assert sorted(os.listdir(second)) == ["cgroup.procs", "cgroup.subtree_control"]
    moving = HomeGroup(second / "home", None)
    assert any(name.endswith(".supervisor") for name in os.listdir(second)), moving.reason


@pytest.mark.parametrize("split", [False, True])
def test_probe_says_of_version_2_only_what_it_tried(
    second: Path, monkeypatch: pytest.MonkeyPatch, *, split: bool
) -> None:
    """Where children are limited already a group is entered, which a plain folder does not stand; else it is
    offered, and the start will try it.
    """
    protection = next(one for one in layers.PROTECTIONS if one.name == "cgroup")
    if split:
        (second / "cgroup.subtree_control").write_text("memory pids")
        monkeypatch.setattr(probe, "_can_limit", lambda _folder: True)
        monkeypatch.setattr(delegation, "_enable", lambda _folder: None)
    found = probe.probe(protection, os.fspath(second))
    assert found.available is not split
    if split:
        assert found.errno == errno.ENOENT
    else:
        assert found.detail.startswith("v2: offered; tried at the start")


def test_probe_limits_below_a_group_of_version_2_only_where_it_is_limited_itself(tmp_path: Path) -> None:
    """The controllers are handed on before a group is made there."""
    control = tmp_path / "cgroup.subtree_control"
    control.write_text("")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert not probe._can_limit(fd)
        assert control.read_text() == ""
        (tmp_path / "memory.max").write_text("max")
        assert probe._can_limit(fd)
        assert control.read_text() == "+memory +pids"
    finally:
        os.close(fd)
