"""A workbench for stages: real overlays in a child's own namespaces, snapshots of trees, and crashes on
demand.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import pickle
import shutil
import signal
import stat
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from homeostat.workers.executor.diff import Diff, read_diff
from homeostat.workers.executor.merge import commit
from homeostat.workers.executor.stage import At, Stage

Snapshot = dict[bytes, tuple[object, ...]]
KEY = "0123456789abcdef0123456789abcdef"
_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x20000
_libc = ctypes.CDLL(None, use_errno=True)
_HERE = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Bench:
    """A workspace, a folder of stages, and one stage with an overlay for it."""

    def __init__(self, top: Path, workspace: Path | None = None) -> None:
        self.top = top
        self.workspace = workspace or top / "workspace"
        self.stages = top / "stages"
        self.view = top / "view"
        for folder in (self.workspace, self.stages, self.view):
            folder.mkdir(exist_ok=True)

    @contextmanager
    def fds(self) -> Iterator[tuple[int, int]]:
        """Descriptors of the workspace and of the folder of stages."""
        workspace_fd, stages_fd = os.open(self.workspace, _HERE), os.open(self.stages, _HERE)
        try:
            yield workspace_fd, stages_fd
        finally:
            os.close(workspace_fd)
            os.close(stages_fd)

    def stage(self, act: Callable[[Path], object], key: str = KEY) -> Snapshot:
        """Make a stage, act on an overlay of it and give the kernel's own view of the result."""
        with self.fds() as (_, stages_fd):
            mode = stat.S_IMODE(self.workspace.stat().st_mode)
            Stage.create(stages_fd, key, root_mode=mode).close()
        return self.on_overlay(act, key)

    def on_overlay(self, act: Callable[[Path], object], key: str = KEY) -> Snapshot:
        """Act on an overlay of a stage that exists; every process of it is dead when this returns."""
        place = self.stages / key
        options = f"lowerdir={self.workspace},upperdir={place}/upper,workdir={place}/work,userxattr,volatile"

        def life() -> Snapshot:
            _enter_namespaces()
            if _libc.mount(b"overlay", os.fsencode(self.view), b"overlay", 0, options.encode()):
                code = ctypes.get_errno()
                raise OSError(code, f"mount overlay: {os.strerror(code)}")
            act(self.view)
            return snapshot(self.view, merged=True)

        result = in_child(life)
        assert isinstance(result, dict)
        shutil.rmtree(place / "work" / "work" / "incompat", ignore_errors=True)
        return result


def _enter_namespaces() -> None:
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(_NEW_USER | _NEW_MOUNTS):
        code = ctypes.get_errno()
        raise OSError(code, f"unshare: {os.strerror(code)}")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def in_child(act: Callable[[], object]) -> object:
    """Run in a forked child; give what it returned, raise what it raised, or give its death as -signal."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        try:
            answer: tuple[bool, object] = (True, act())
        except BaseException as error:  # noqa: BLE001  the parent raises what it reads
            answer = (False, f"{error!r}\n{traceback.format_exc()}")
        with os.fdopen(write_fd, "wb") as file:
            pickle.dump(answer, file)
        os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as file:
        data = file.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return -os.WTERMSIG(status)
    good, value = pickle.loads(data)  # noqa: S301  our own child's words
    if not good:
        raise AssertionError(value)
    return value


def killer(point: int) -> At:
    """A hook that SIGKILLs its own process at the numbered step, from 1."""
    steps = 0

    def at(_step: str) -> None:
        nonlocal steps
        steps += 1
        if steps == point:
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def write(path: Path | bytes, data: bytes | str = b"", mode: int = 0o644) -> None:
    """Write a file whole."""
    with open(path, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
    os.chmod(path, mode)


def snapshot(root: Path, *, merged: bool = False) -> Snapshot:
    """All that a merge must get right. ``merged``: only what can be merged, without set-id bits."""
    found: Snapshot = {}
    top = os.fsencode(root)
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            if merged and kind not in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
                continue
            found[path[len(top) + 1 :]] = _seen(path, status, 0o777 if merged else 0o7777)
    return found


def _seen(path: bytes, status: os.stat_result, bits: int) -> tuple[object, ...]:
    kind = stat.S_IFMT(status.st_mode)
    seen: tuple[object, ...] = (kind, status.st_mode & bits, status.st_uid, status.st_gid)
    if kind == stat.S_IFREG:
        with open(path, "rb") as file:
            seen += (hashlib.sha256(file.read()).hexdigest(), status.st_mtime_ns)
    if kind == stat.S_IFLNK:
        return (*seen, os.readlink(path))
    names = sorted(
        n for n in os.listxattr(path) if n.startswith("user.") and not n.startswith("user.overlay.")
    )
    return (*seen, tuple((name, os.getxattr(path, name)) for name in names))


def differences(left: Snapshot, right: Snapshot) -> list[tuple[bytes, object, object]]:
    """What two snapshots disagree on."""
    return [
        (p, left.get(p), right.get(p))
        for p in sorted(left.keys() | right.keys())
        if left.get(p) != right.get(p)
    ]


def fill_workspace(workspace: Path) -> None:
    """Something of every kind to be changed."""
    for name in ("edit", "gone", "moved", "touch", "same", "mode", "link1", "f2d", "f2l", "tagged"):
        write(workspace / name, f"old {name}\n" * 50)
    os.link(workspace / "link1", workspace / "link2")
    os.symlink("edit", workspace / "l2f")
    os.symlink("edit", workspace / "relink")
    for folder in ("opaque", "d2f", "goner", "keep", "keep/deep", "shut", "mvdir", "opened"):
        (workspace / folder).mkdir()
        for name in ("a", "b"):
            write(workspace / folder / name, f"{folder} {name}\n")
    (workspace / "opened").chmod(0o555)
    os.setxattr(workspace / "tagged", "user.tag", b"1")


def work_hard(view: Path) -> None:
    """Change something of every kind."""
    write(view / "edit", "new\n")
    (view / "gone").unlink()
    (view / "moved").rename(view / "moved2")
    os.utime(view / "touch", ns=(1, 10**18))
    (view / "mode").chmod(0o600)
    stamp = (view / "same").stat()
    with (view / "same").open("r+b") as file:
        file.write(b"o")
    os.utime(view / "same", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    write(view / "link1", "breaks the link\n")
    with (view / "tagged").open("ab") as file:
        file.write(b"more")
    _retype(view)
    _work_on_folders(view)
    _work_on_names(view)


def _retype(view: Path) -> None:
    (view / "f2d").unlink()
    (view / "f2d").mkdir()
    write(view / "f2d/x", "x")
    (view / "f2l").unlink()
    (view / "f2l").symlink_to("/etc/passwd")
    (view / "l2f").unlink()
    write(view / "l2f", "was a link")
    (view / "relink").unlink()
    (view / "relink").symlink_to("mode")
    shutil.rmtree(view / "d2f")
    write(view / "d2f", "was a folder")


def _work_on_folders(view: Path) -> None:
    shutil.rmtree(view / "opaque")
    (view / "opaque").mkdir()
    write(view / "opaque/a", "after")
    write(view / "opaque/c", "c")
    shutil.rmtree(view / "goner")
    write(view / "keep/deep/b", "deep edit")
    (view / "keep/deep/a").unlink()
    (view / "shut").chmod(0o500)
    shutil.copytree(view / "mvdir", view / "mvdir2")
    shutil.rmtree(view / "mvdir")
    (view / "opened").chmod(0o755)
    write(view / "opened/a", "changed in a folder that was closed")
    (view / "opened").chmod(0o555)
    (view / "new/er/est").mkdir(parents=True)
    write(view / "new/er/est/f", "f")
    os.link(view / "new/er/est/f", view / "new/hard")
    os.mkfifo(view / "fifo")
    os.mkfifo(view / "new/fifo")


def _work_on_names(view: Path) -> None:
    write(os.fsencode(view) + b"/new\nline\xff\xfe", "name")
    write(os.fsencode(view) + b"/" + b"n" * 255, "long name")
    write(view / "suid", "#!/bin/sh\n", 0o4755)
    (view / "new/sticky").mkdir()
    (view / "new/sticky").chmod(0o1777)
    (view / "readonly").mkdir()
    write(view / "readonly/f", "f", 0o444)
    (view / "readonly").chmod(0o555)


def nothing(_step: str) -> None:
    """The hook that does nothing."""


def crash_at(step: str) -> At:
    """A hook that SIGKILLs its own process at a named step."""

    def at(now: str) -> None:
        if now == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def merge(
    bench: Bench,
    between: Callable[[], object] = lambda: None,
    at: At = nothing,
    change: Callable[[Diff], Diff] = lambda diff: diff,
) -> str:
    """Read, let something happen, commit; give the stage's state afterwards."""
    with bench.fds() as (workspace_fd, stages_fd), Stage.open(stages_fd, KEY) as stage:
        diff = change(read_diff(workspace_fd, stage))
        between()
        commit(workspace_fd, stage, diff, at)
        return stage.state()


def state_of(bench: Bench) -> str:
    """The state as a new life would find it."""
    with bench.fds() as (_, stages_fd), Stage.open(stages_fd, KEY) as stage:
        return stage.state()
