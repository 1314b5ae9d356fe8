"""Walking by descriptor, and names as text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from homeostat.workers.executor.beneath import (
    Beneath,
    BlockedPathError,
    TooManyEntriesError,
    parse_shown,
    shown,
    walk,
)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Beneath]:
    """A folder with a link out of it."""
    (tmp_path / "top/dir").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/canary").write_text("canary")
    (tmp_path / "top/out").symlink_to("../outside")
    (tmp_path / "top/in").symlink_to("dir")
    (tmp_path / "top/dir/f").write_text("f")
    fd = os.open(tmp_path / "top", os.O_RDONLY)
    beneath = Beneath(fd)
    yield beneath
    beneath.forget()
    os.close(fd)


@pytest.mark.parametrize("path", [b"out/canary", b"in/f", b"dir/f/x", b"../outside/canary", b"/etc/passwd"])
def test_beneath_refuses_when_the_way_is_no_plain_one(tree: Beneath, path: bytes) -> None:
    """Links, even inner ones, files, "..", and absolute paths lead nowhere."""
    with pytest.raises(BlockedPathError):
        tree.open(path)


def test_beneath_sees_the_link_itself_when_it_is_the_last_name(tree: Beneath) -> None:
    """The last component is looked at and never followed."""
    assert tree.readlink(b"out") == b"../outside"
    with pytest.raises(BlockedPathError):
        tree.open(b"out")


def test_beneath_refuses_when_a_folder_became_a_link(tree: Beneath, tmp_path: Path) -> None:
    """After ``forget`` a path is resolved anew."""
    tree.folder(b"dir")
    (tmp_path / "top/dir").rename(tmp_path / "top/was")
    (tmp_path / "top/dir").symlink_to("../outside")
    tree.forget()
    with pytest.raises(BlockedPathError):
        tree.folder(b"dir")


def test_beneath_keeps_few_descriptors_when_it_walks_many_folders(tree: Beneath, tmp_path: Path) -> None:
    """300 folders cost at most 128 descriptors at once."""
    for number in range(300):
        (tmp_path / f"top/dir/{number}/x").mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    assert len(walk(tree, b"dir", 10_000)) == 602
    assert len(os.listdir("/proc/self/fd")) - before <= 129


def test_walk_gives_up_when_there_are_too_many_things(tree: Beneath) -> None:
    """The limit is kept, with the path in the words."""
    with pytest.raises(TooManyEntriesError, match="dir"):
        walk(tree, b"dir", 1)


@settings(database=None)
@given(st.binary(min_size=1, max_size=40))
def test_shown_path_comes_back_and_crosses_a_wire_whatever_the_bytes(path: bytes) -> None:
    """Any name has one text, free of control characters and lone surrogates."""
    text = shown(path)
    assert parse_shown(text) == path
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(text)) == text
    assert text.isprintable() or not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)


def test_shown_path_escapes_what_could_mislead() -> None:
    """Escape sequences and reversed text can't reach a terminal."""
    assert shown("a\x1b[2J\u202eb\\".encode() + b"\xff") == r"a\x1b[2J\xe2\x80\xaeb\\\xff"
