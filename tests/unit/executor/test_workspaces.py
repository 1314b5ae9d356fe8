from __future__ import annotations

import os
from pathlib import Path

import pytest

from homeostat.workers.executor.workspaces import WorkspaceError, Workspaces, command_owner


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with its folder for fresh workspaces."""
    (tmp_path / "home" / "workspaces").mkdir(parents=True)
    return tmp_path / "home"


def test_workspaces_makes_a_fresh_one_for_the_command(home: Path) -> None:
    """Made once, for the uid of commands alone."""
    owner = command_owner(64_100)
    fd = Workspaces(home, str(home), owner).open(str(home / "workspaces" / "t1"))
    status = os.fstat(fd)
    os.close(fd)
    assert status.st_mode & 0o777 == 0o700
    assert status.st_uid == (owner[0] if owner else os.geteuid())
    assert (owner is None) == (os.geteuid() != 0)


def test_workspaces_says_that_one_is_gone(home: Path, tmp_path: Path) -> None:
    """A folder that a user named and removed is not made anew."""
    with pytest.raises(WorkspaceError, match="is gone"):
        Workspaces(home, str(home), None).open(str(tmp_path / "project"))


@pytest.mark.parametrize("path", ["journal", ".", "..", "workspaces", "workspaces/t1/deeper", "/"])
def test_workspaces_never_gives_homeostats_own_files(home: Path, path: str) -> None:
    """Neither the home, nor what is in it, nor what holds it."""
    (home / "journal").mkdir()
    (home / "workspaces" / "t1" / "deeper").mkdir(parents=True)
    with pytest.raises(WorkspaceError, match="own files"):
        Workspaces(home, str(home), None).open(str(home / path))


def test_workspaces_refuses_a_link_into_the_home(home: Path, tmp_path: Path) -> None:
    """The place counts, not its name."""
    (home / "journal").mkdir()
    (tmp_path / "innocent").symlink_to(home / "journal")
    with pytest.raises(WorkspaceError, match="own files"):
        Workspaces(home, str(home), None).open(str(tmp_path / "innocent"))


def test_workspaces_refuses_what_is_no_folder(home: Path, tmp_path: Path) -> None:
    """A file is not a workspace, and neither is a relative path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="Not a directory"):
        Workspaces(home, str(home), None).open(str(tmp_path / "file"))
    with pytest.raises(WorkspaceError, match="not an absolute path"):
        Workspaces(home, str(home), None).open("file")


@pytest.mark.root
def test_workspaces_refuses_other_peoples_folders_as_root(home: Path, tmp_path: Path) -> None:
    """As root a workspace must belong to the uid of commands; the remedy is named."""
    (tmp_path / "roots").mkdir()
    with pytest.raises(WorkspaceError, match="chown -R 64111:64111"):
        Workspaces(home, str(home), command_owner(64_100)).open(str(tmp_path / "roots"))


def test_workspaces_reaches_fresh_ones_when_a_folder_above_is_closed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home may be known by a path that this process can't walk: it has it as its folder."""
    monkeypatch.chdir(home)
    fd = Workspaces(Path(), "/closed/home", None).open("/closed/home/workspaces/t1")
    os.close(fd)
    assert (home / "workspaces" / "t1").is_dir()


@pytest.mark.root
def test_workspaces_gives_a_fresh_one_away_when_its_maker_was_killed(home: Path) -> None:
    """A SIGKILL between making it and handing it over left it with the executor's own uid."""
    owner = command_owner(64_100)
    assert owner is not None
    (home / "workspaces" / "t1").mkdir(mode=0o700)
    fd = Workspaces(home, str(home), owner).open(str(home / "workspaces" / "t1"))
    status = os.fstat(fd)
    os.close(fd)
    assert (status.st_uid, status.st_gid) == owner


@pytest.mark.root
def test_workspaces_names_no_number_when_the_owner_is_not_mapped(home: Path, tmp_path: Path) -> None:
    """From within a user namespace every foreign owner looks like the overflow uid."""
    (tmp_path / "foreign").mkdir()
    os.chown(tmp_path / "foreign", 65_534, 65_534)
    with pytest.raises(WorkspaceError, match="belongs to another user; commands run as uid 64111"):
        Workspaces(home, str(home), command_owner(64_100)).open(str(tmp_path / "foreign"))
