"""What stages, workspaces and the disk may hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeostat.proto.ids import Key
from homeostat.proto.settings import Quotas
from homeostat.workers.executor.changes import Growth
from homeostat.workers.executor.jobs import Jobs
from homeostat.workers.executor.quotas import Usage, Watch, WorkspaceCounts, inspect, measure
from tests.fakes.clocked_loop import ClockedLoop

MUCH = Usage(1 << 60, 1 << 60)
ONE, TWO = Key("1" * 32), Key("2" * 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of 1,000 bytes in two folders, a link out, and a file outside."""
    (tmp_path / "top/a/b").mkdir(parents=True)
    for name in ("f", "a/f", "a/b/f"):
        (tmp_path / "top" / name).write_bytes(b"x" * 1000)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/big").write_bytes(b"x" * 100_000)
    (tmp_path / "top/out").symlink_to("../outside")
    return tmp_path / "top"


@pytest.fixture
def fd(folder: Path) -> Iterator[int]:
    """It, open."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_measure_counts_sizes_or_blocks_and_follows_nothing(folder: Path, fd: int) -> None:
    """Files, folders and links each count as one; what a link names counts for nothing."""
    assert measure(fd, MUCH, apparent=True) == Usage(3000, 6)
    with (folder / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert measure(fd, MUCH, apparent=True).bytes == (1 << 40) + 3000
    assert measure(fd, MUCH, apparent=False).bytes < 1 << 20


def test_measure_stops_when_it_is_over(folder: Path, fd: int) -> None:
    """At the first thing too many, however many more there are."""
    for number in range(300):
        (folder / "a" / str(number)).touch()
    assert measure(fd, Usage(1 << 60, 10), apparent=True).files == 11


def test_measure_survives_what_a_command_does_meanwhile(folder: Path, fd: int) -> None:
    """A folder that became a link, or deeper than paths go, is left out."""
    deep = os.open(folder, os.O_RDONLY)
    for _ in range(400):
        os.mkdir("dddd", dir_fd=deep)
        inner = os.open("dddd", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = inner
    os.close(deep)
    assert 6 < measure(fd, MUCH, apparent=True).files < 300


def test_inspection_names_the_setting_of_the_stage_that_is_over(folder: Path) -> None:
    """Bytes and files each have their words; a stage within its quota is let be."""

    def look(**quotas: int) -> list[tuple[Key, str]]:
        stages = [(ONE, os.open(folder, os.O_RDONLY)), (TWO, os.open(folder / "a/b", os.O_RDONLY))]
        return inspect(stages, Quotas(min_free_bytes=0, **quotas)).over

    assert look() == []
    (found,) = look(stage_files=3)
    assert found[0] == ONE
    assert "quotas.stage_files" in found[1]
    assert [key for key, words in look(stage_bytes=100) if "quotas.stage_bytes" in words] == [ONE, TWO]


def test_inspection_names_the_largest_when_the_disk_is_nearly_full(folder: Path) -> None:
    """One at a time: the others may go on once it is gone."""
    stages = [(TWO, os.open(folder / "a/b", os.O_RDONLY)), (ONE, os.open(folder, os.O_RDONLY))]
    (found,) = inspect(stages, Quotas(min_free_bytes=1 << 62)).over
    assert found[0] == ONE
    assert "quotas.min_free_bytes" in found[1]


def test_inspection_closes_its_descriptors(folder: Path) -> None:
    """None is left, whatever was found."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        inspect([(ONE, os.open(folder, os.O_RDONLY))], Quotas(stage_files=1))
    assert len(os.listdir("/proc/self/fd")) == before


def test_watch_tells_once_more_as_long_as_a_stage_is_in_use(folder: Path) -> None:
    """It begins with a stage, tells who is over, and rests when none is in use."""
    loop, jobs, told = ClockedLoop(), Jobs(), list[Key]()
    using = True

    def in_use() -> list[tuple[Key, int]]:
        return [(ONE, os.open(folder, os.O_RDONLY))] if using else []

    watch = Watch(Quotas(stage_files=2), loop, jobs, in_use, lambda key, _: told.append(key))
    loop.watch(jobs.fd, jobs.deliver)
    watch.begin()
    watch.begin()
    loop.run_until(lambda: len(told) == 2)
    using = False
    loop.run_until(lambda: not loop._timers)
    assert told == [ONE, ONE]
    using = True
    watch.begin()
    loop.run_until(lambda: len(told) == 3)
    watch.close()
    jobs.close()
    loop.close()


def test_workspace_may_not_grow_beyond_its_quota(folder: Path, fd: int) -> None:
    """What it would hold is what counts, for bytes and for files; shrinking is always allowed."""
    counts = WorkspaceCounts(Quotas(workspace_bytes=3_500, workspace_files=7))
    assert counts.refusal("p", fd, Growth(500, 1)) == ""
    assert "quotas.workspace_bytes" in counts.refusal("p", fd, Growth(501, 0))
    assert "quotas.workspace_files" in counts.refusal("p", fd, Growth(0, 2))
    (folder / "more").write_bytes(b"x" * 9_000)
    counts.forget("p")
    assert counts.refusal("p", fd, Growth(-1, -1)) == ""
    assert "quotas.workspace_bytes" in counts.refusal("p", fd, Growth(1, -1))


def test_workspace_is_counted_once_and_again_before_it_is_refused(folder: Path, fd: int) -> None:
    """Merges keep the count; an old one is made again; none refuses what the folder no longer holds."""
    now = [0.0]
    counts = WorkspaceCounts(Quotas(workspace_bytes=10_000), clock=lambda: now[0])
    assert counts.refusal("p", fd, Growth(1, 1)) == ""
    (folder / "unseen").write_bytes(b"x" * 9_000)
    assert counts.refusal("p", fd, Growth(1, 1)) == ""  # the count is kept
    counts.merged("p", Growth(6_999, 1))
    (folder / "unseen").unlink()
    assert counts.refusal("p", fd, Growth(2, 0)) == ""  # over by the count that was kept, not by a new one
    (folder / "unseen").write_bytes(b"x" * 9_000)
    now[0] = 601.0
    assert "quotas.workspace_bytes" in counts.refusal("p", fd, Growth(1, 1))
