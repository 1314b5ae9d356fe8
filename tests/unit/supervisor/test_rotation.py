"""Cutting a log beneath its writer, on this file system and on one that takes no ranges away."""

import errno
import itertools
import multiprocessing
import os
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NoReturn

import pytest

from homeostat.supervisor import rotation
from homeostat.supervisor.log import open_log

CUTS = 8


def write_lines(path: Path, enough: Event) -> None:
    """Be a worker that prints until somebody has seen enough."""
    fd = open_log(path)
    for number in itertools.count():
        os.write(fd, b"line %d of the worker\n" % number)
        if enough.is_set():
            return


def no_collapse(_fd: int, _length: int) -> NoReturn:
    """A file system that has no such operation."""
    raise OSError(errno.EOPNOTSUPP, "not supported")


def collapses(folder: Path) -> bool:
    """Whether this file system takes ranges away."""
    probe = folder / "probe"
    probe.write_bytes(bytes(3 * 4096))
    fd = os.open(probe, os.O_RDWR)
    try:
        rotation._collapse(fd, 4096)
    except OSError:
        return False
    finally:
        os.close(fd)
        probe.unlink()
    return True


def test_cut_loses_nothing_when_the_writer_goes_on(tmp_path: Path) -> None:
    """Every line of a process that writes all the time is in one of the files, once and in order."""
    if not collapses(tmp_path):
        pytest.skip("this file system takes no ranges away; what is lost then is told in the module")
    path = tmp_path / "x.log"
    path.touch()
    forking = multiprocessing.get_context("fork")
    enough = forking.Event()
    writer = forking.Process(target=write_lines, args=(path, enough))
    writer.start()
    cuts = lost = 0
    while cuts < CUTS:
        if path.stat().st_size > 20_000:
            lost += rotation.cut(path, 1 << 30, keep=CUTS)
            cuts += 1
    enough.set()
    writer.join()
    files = [rotation.numbered(path, number) for number in range(CUTS, 0, -1)]
    text = b"".join(one.read_bytes() for one in [*files, path])
    assert lost == 0
    assert text == b"".join(b"line %d of the worker\n" % number for number in range(text.count(b"\n")))


def test_cut_empties_the_file_when_no_range_can_be_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that was written before is kept, and the writer begins at the beginning."""
    monkeypatch.setattr(rotation, "_collapse", no_collapse)
    path = tmp_path / "x.log"
    fd = open_log(path)
    os.write(fd, b"x" * 10_000 + b"end")
    assert rotation.cut(path, 1 << 20, keep=1) == 0
    os.write(fd, b"after")
    os.close(fd)
    assert rotation.numbered(path, 1).read_bytes() == b"x" * 10_000 + b"end"
    assert path.read_bytes() == b"after"


@pytest.mark.parametrize("collapse", [True, False])
def test_cut_takes_away_what_it_can_not_copy_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collapse: bool
) -> None:
    """What filled the disk goes, and the count of it is told."""
    if not collapse:
        monkeypatch.setattr(rotation, "_collapse", no_collapse)
    path = tmp_path / "x.log"
    path.write_bytes(b"x" * 10_000)

    def full(*_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "sendfile", full)
    lost = rotation.cut(path, 1 << 20, keep=1)
    assert lost == 10_000 - path.stat().st_size
    assert lost >= 8_192


def test_cut_follows_no_link_when_the_name_is_one(tmp_path: Path) -> None:
    """A log is a file of the folder, nothing else."""
    (tmp_path / "other").write_bytes(b"x" * 10_000)
    (tmp_path / "x.log").symlink_to("other")
    with pytest.raises(OSError, match="symbolic"):
        rotation.cut(tmp_path / "x.log", 1, keep=1)
    assert (tmp_path / "other").stat().st_size == 10_000
