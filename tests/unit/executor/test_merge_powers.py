"""An executor that is root's worker: mighty over the command's files, and over nothing else."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homeostat.workers.executor.stage import Stage
from tests.unit.executor import stage_lab as lab


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other uids can reach."""
    folder = Path(tempfile.mkdtemp(prefix="homeostat-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make files of another uid")
def test_merge_keeps_the_commands_owner_when_the_executor_rules_only_its_files(public: Path) -> None:
    """An executor that is mighty in a user namespace of two uids merges and removes what the command's uid
    owns.
    """
    executor, command = 64103, 64111
    bench = lab.Bench(public)
    lab.fill_workspace(bench.workspace)
    for path in [bench.workspace, *bench.workspace.rglob("*"), bench.view]:
        os.chown(path, command, command, follow_symlinks=False)
    bench.workspace.chmod(0o700)
    os.chown(bench.stages, executor, executor)
    bench.stages.chmod(0o700)

    assert lab.in_child(lambda: as_executor(executor, command, lambda: make_stage(bench, command))) is None
    expected = lab.in_child(lambda: as_command(bench, command))
    ended = lab.in_child(lambda: as_executor(executor, command, lambda: merge_and_discard(bench)))
    assert ended == ("merged", [])
    assert isinstance(expected, dict)
    assert lab.differences(lab.snapshot(bench.workspace, merged=True), expected) == []


def make_stage(bench: lab.Bench, command: int) -> None:
    """What the executor does before the call."""
    with bench.fds() as (_, stages_fd):
        Stage.create(stages_fd, lab.KEY, owner=(command, command)).close()


def merge_and_discard(bench: lab.Bench) -> tuple[str, list[str]]:
    """What the executor does after the call, and at the task's end."""
    state = lab.merge(bench)
    with bench.fds() as (_, stages_fd), Stage.open(stages_fd, lab.KEY) as stage:
        stage.discard()
        return state, os.listdir(stages_fd)


def as_executor(executor: int, command: int, act: Callable[[], object]) -> object:
    """Act as the executor's uid, with all capabilities, but only over the two uids."""
    libc = ctypes.CDLL(None, use_errno=True)
    ready_read, ready_write = os.pipe()
    mapped_read, mapped_write = os.pipe()
    me = os.getpid()
    mapper = os.fork()
    if mapper == 0:  # a uid_map of two lines needs privilege over the parent of the namespace
        os.read(ready_read, 1)
        Path(f"/proc/{me}/uid_map").write_text(f"{executor} {executor} 1\n{command} {command} 1\n")
        Path(f"/proc/{me}/gid_map").write_text(f"{executor} {executor} 1\n{command} {command} 1\n")
        os.write(mapped_write, b"x")
        os._exit(0)
    assert libc.unshare(0x10000000) == 0
    os.write(ready_write, b"x")
    os.read(mapped_read, 1)
    os.waitpid(mapper, 0)
    assert libc.prctl(8, 1, 0, 0, 0) == 0  # PR_SET_KEEPCAPS
    os.setgroups([])
    os.setresgid(executor, executor, executor)
    os.setresuid(executor, executor, executor)
    raise_permitted()
    return act()


def raise_permitted() -> None:
    """Make every permitted capability effective again (capget(2), version 3)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    data[0], data[3] = data[1], data[4]
    assert libc.capset(header, data) == 0


def as_command(bench: lab.Bench, command: int) -> lab.Snapshot:
    """Work on an overlay that a namespace of the command's uid mounted, reached by descriptor."""
    os.chdir(bench.stages / lab.KEY)
    libc = ctypes.CDLL(None, use_errno=True)
    os.setgroups([])
    os.setresgid(command, command, command)
    os.setresuid(command, command, command)
    libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: else /proc/self/uid_map is root's
    lab._enter_namespaces()
    options = f"lowerdir={bench.workspace},upperdir=upper,workdir=work,userxattr,volatile"
    if libc.mount(b"overlay", os.fsencode(bench.view), b"overlay", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")
    lab.work_hard(bench.view)
    return lab.snapshot(bench.view, merged=True)
