"""What stages, workspaces and the disk may hold."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from homeostat.proto.ids import Key
from homeostat.proto.settings import Quotas
from homeostat.workers.executor import quotas
from homeostat.workers.executor.beneath import Beneath
from homeostat.workers.executor.changes import Growth
from homeostat.workers.executor.jobs import Jobs
from homeostat.workers.executor.quotas import HiddenError, Usage, Watch, WorkspaceCounts, inspect, measure
from homeostat.workers.executor.stage import remove_tree
from tests.fakes.clocked_loop import ClockedLoop
from tests.unit.executor import stage_lab as lab

Entry = tuple[bytes, os.stat_result, bool]
MUCH = Usage(1 << 60, 1 << 60)
PLENTY = Quotas(min_free_bytes=0, min_free_files=0)
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


@pytest.fixture
def deep(folder: Path, fd: int) -> Iterator[None]:
    """In it 400 folders within each other: too deep for a recursive removal."""
    here = os.dup(fd)
    for _ in range(400):
        os.mkdir("dddd", dir_fd=here)
        inner = os.open("dddd", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    yield
    remove_tree(fd, "dddd")


@pytest.mark.usefixtures("deep")
def test_measure_leaves_out_what_lies_deeper_than_a_diff_may_reach(fd: int) -> None:
    """In a workspace, which may have been so before; in a stage, where it hides things, it is an error."""
    assert 6 < measure(fd, MUCH, apparent=True).files < 300
    with pytest.raises(HiddenError, match="deeper than a diff may reach"):
        measure(fd, MUCH, apparent=False, all_of_it=True)


@pytest.mark.usefixtures("deep")
def test_inspection_ends_the_call_that_hides_things_too_deep(folder: Path) -> None:
    """At once, whatever little it holds; the one beside it is let be."""
    stages = [(ONE, os.open(folder, os.O_RDONLY)), (TWO, os.open(folder / "a", os.O_RDONLY))]
    ((key, words),) = inspect(stages, PLENTY).over
    assert (key, "deeper than a diff may reach" in words, "quotas.stage_bytes" in words) == (ONE, True, True)
    assert len(words) < 500


def test_inspection_ends_the_call_that_makes_a_folder_unreadable(folder: Path) -> None:
    """Mode 0300: things can be put into it and not be counted. As whom permissions stop."""
    (folder / "a/b").chmod(0o300)

    def look() -> list[tuple[Key, str]]:
        stages = [(ONE, os.open(folder, os.O_RDONLY))]
        if os.geteuid() == 0:
            os.setuid(65_534)
        return inspect(stages, PLENTY).over

    try:
        found = lab.in_child(look)
    finally:
        (folder / "a/b").chmod(0o700)
    assert isinstance(found, list)
    ((key, words),) = found
    assert (key, "the folder a/b can't be read" in words) == (ONE, True)


def test_measure_survives_what_a_command_does_meanwhile(
    folder: Path, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that goes, or becomes a link, between its being found and being looked into takes no room."""
    real = quotas._entries

    def entries(tree: Beneath, path: bytes, *, all_of_it: bool) -> Iterator[Entry]:
        yield from list(real(tree, path, all_of_it=all_of_it))
        if not path:
            (folder / "a").rename(folder / "z")
            (folder / "a").symlink_to("z")

    monkeypatch.setattr(quotas, "_entries", entries)
    assert measure(fd, MUCH, apparent=True, all_of_it=True) == Usage(1000, 3)


def test_inspection_names_the_setting_of_the_stage_that_is_over(folder: Path) -> None:
    """Bytes and files each have their words; a stage within its quota is let be."""

    def look(**limits: int) -> list[tuple[Key, str]]:
        stages = [(ONE, os.open(folder, os.O_RDONLY)), (TWO, os.open(folder / "a/b", os.O_RDONLY))]
        return inspect(stages, Quotas(min_free_bytes=0, min_free_files=0, **limits)).over

    assert look() == []
    (found,) = look(stage_files=3)
    assert found[0] == ONE
    assert "quotas.stage_files" in found[1]
    assert [key for key, words in look(stage_bytes=100) if "quotas.stage_bytes" in words] == [ONE, TWO]


def inspect_short(
    monkeypatch: pytest.MonkeyPatch, folder: Path, limits: Quotas, **disk: int
) -> list[tuple[Key, str]]:
    """What is found of two stages, of 3 and 1 files of 1,000 bytes each, on a disk with so much left."""
    full = {"f_bavail": 1 << 40, "f_frsize": 1, "f_favail": 1 << 40, "f_files": 1 << 41} | disk
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(**full))
    stages = [(TWO, os.open(folder / "a/b", os.O_RDONLY)), (ONE, os.open(folder, os.O_RDONLY))]
    return inspect(stages, limits).over


def test_inspection_names_the_largest_when_it_is_why_the_disk_is_nearly_full(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """One at a time: the others may go on once it is gone; of bytes as of inodes."""
    limits = Quotas(min_free_bytes=20_000, min_free_files=20)
    assert inspect_short(monkeypatch, folder, limits, f_bavail=10_000, f_favail=10) == []
    (found,) = inspect_short(monkeypatch, folder, limits, f_bavail=5_000)
    assert (found[0], "quotas.min_free_bytes" in found[1], "holds most" in found[1]) == (ONE, True, True)
    (found,) = inspect_short(monkeypatch, folder, limits, f_favail=5)
    assert (found[0], "quotas.min_free_files" in found[1], "holds most" in found[1]) == (ONE, True, True)


def test_inspection_ends_all_when_what_it_sees_does_not_explain_the_full_disk(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """Files may be open that have no name any more: nobody can say whose."""
    limits = Quotas(min_free_bytes=1 << 30, min_free_files=1_000)
    for setting, left in (("min_free_bytes", {"f_bavail": 0}), ("min_free_files", {"f_favail": 0})):
        found = inspect_short(monkeypatch, folder, limits, **left)
        assert {key for key, _ in found} == {ONE, TWO}
        assert all(f"quotas.{setting}" in words and "does not explain it" in words for _, words in found)


def test_inspection_never_counts_inodes_where_there_is_no_number_of_them(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """On file systems that make them at need, and with the setting at 0."""
    assert inspect_short(monkeypatch, folder, Quotas(min_free_files=1_000), f_files=0, f_favail=0) == []
    assert inspect_short(monkeypatch, folder, Quotas(min_free_files=0), f_favail=0) == []


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


def test_workspace_count_is_not_kept_when_a_merge_comes_while_it_is_made(
    folder: Path, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs and the loop use the counts at the same time: what another did meanwhile is not lost."""
    counts, real = WorkspaceCounts(Quotas(workspace_bytes=10_000)), quotas.measure

    def measured(fd: int, most: Usage, *, apparent: bool) -> Usage:
        usage = real(fd, most, apparent=apparent)
        done = threading.Thread(target=merge_beside)
        done.start()
        done.join()  # no walk is made under the lock: else this would never come back
        return usage

    def merge_beside() -> None:
        (folder / "beside").write_bytes(b"x" * 6_000)
        counts.merged("p", Growth(6_000, 1))

    monkeypatch.setattr(quotas, "measure", measured)
    assert counts.refusal("p", fd, Growth(1, 1)) == ""
    monkeypatch.setattr(quotas, "measure", real)
    assert "quotas.workspace_bytes" in counts.refusal("p", fd, Growth(2_000, 1))
