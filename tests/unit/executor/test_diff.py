"""What a staged call did, read from real overlays."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest

from homeostat.proto.records import DiffSummary
from homeostat.workers.executor.beneath import Beneath, shown
from homeostat.workers.executor.changes import Change
from homeostat.workers.executor.diff import Diff, Limits, read_diff
from homeostat.workers.executor.renames import digest_in, pair_renames
from homeostat.workers.executor.stage import Stage
from tests.unit.executor import stage_lab as lab


@pytest.fixture
def bench(tmp_path: Path) -> lab.Bench:
    """A workspace with something of every kind."""
    bench = lab.Bench(tmp_path)
    lab.fill_workspace(bench.workspace)
    return bench


def diff_of(bench: lab.Bench, limits: Limits | None = None, key: str = lab.KEY) -> Diff:
    """Read the diff of a bench's stage as its maker would."""
    mode = stat.S_IMODE(bench.workspace.stat().st_mode)
    with bench.fds() as (workspace_fd, stages_fd):
        stage = Stage(stages_fd, key, root_mode=mode)
        with stage:
            return read_diff(workspace_fd, stage, limits)


def after(bench: lab.Bench, act: Callable[[Path], object], limits: Limits | None = None) -> Diff:
    """Act on an overlay and read what was done."""
    bench.stage(act)
    return diff_of(bench, limits)


def by_hand(bench: lab.Bench, act: Callable[[Path], object], limits: Limits | None = None) -> Diff:
    """Write an upper layer without an overlay and read it."""
    with bench.fds() as (_, stages_fd):
        Stage.create(stages_fd, lab.KEY, root_mode=0o755).close()
    act(bench.stages / lab.KEY / "upper")
    return diff_of(bench, limits)


def one(diff: Diff) -> Change:
    """The only change of a diff that was not refused."""
    assert (diff.refused_reason, diff.conflicts) == ("", ())
    (change,) = diff.changes
    return change


def kinds(diff: Diff) -> dict[str, str]:
    """Kind by path."""
    return {change.path: change.kind for change in diff.changes}


def test_diff_is_empty_when_nothing_was_changed(bench: lab.Bench) -> None:
    """Reading, and opening for writing without writing, is no change, though the overlay copies up."""

    def act(view: Path) -> None:
        (view / "edit").read_bytes()
        (view / "keep/deep/a").open("r+b").close()

    diff = after(bench, act)
    assert (diff.changes, diff.counts, diff.plan.operations) == ((), {}, ())


def test_diff_tells_what_a_file_became_when_it_was_created(bench: lab.Bench) -> None:
    """Size, mode, executability and hash are there before anything is merged."""
    change = one(after(bench, lambda view: lab.write(view / "run.sh", "#!/bin/sh\n", 0o750)))
    assert (change.path, change.kind, change.type, change.old_type) == ("run.sh", "created", "file", None)
    assert (change.size, change.mode, change.executable) == (10, 0o750, True)
    assert change.digest == hashlib.sha256(b"#!/bin/sh\n").hexdigest()


def test_diff_names_each_kind_of_change_when_all_are_made(bench: lab.Bench) -> None:
    """One hard day's work on an overlay gives the kinds that were meant."""
    found = kinds(after(bench, lab.work_hard))
    expected = {
        "edit": "changed", "gone": "deleted", "moved2": "renamed", "touch": "changed",
        "mode": "mode", "link1": "changed", "tagged": "changed", "f2d": "retyped", "f2d/x": "created",
        "f2l": "retyped", "l2f": "retyped", "relink": "changed", "d2f/a": "deleted", "d2f": "retyped",
        "opaque": "opaque", "opaque/a": "changed", "opaque/b": "deleted", "opaque/c": "created",
        "goner": "deleted", "goner/a": "deleted", "keep/deep/b": "changed", "keep/deep/a": "deleted",
        "shut": "mode", "mvdir": "deleted", "mvdir2": "created", "mvdir2/a": "renamed",
        "new/er/est/f": "created",
        "opened/a": "changed", "fifo": "special", "new/fifo": "special", "suid": "created",
        r"new\x0aline\xff\xfe": "created",
    }  # fmt: skip
    assert {path: found.get(path) for path in expected} == expected
    silent = {"same", "keep", "keep/deep", "link2", "opened", "opened/b", "moved", "mvdir/a"}
    assert not silent & found.keys()


def test_diff_says_that_a_link_leads_outside_when_it_was_created(bench: lab.Bench) -> None:
    """The target is part of what an approver sees."""
    change = one(after(bench, lambda view: (view / "l").symlink_to("/etc/passwd")))
    assert (change.type, change.target) == ("symlink", "/etc/passwd")


def test_diff_drops_set_id_bits_and_says_so(bench: lab.Bench) -> None:
    """The mode shown is the mode merged."""
    change = one(after(bench, lambda view: lab.write(view / "s", "s", 0o6755)))
    assert (change.mode, change.notes) == (0o755, ("set-id and sticky bits dropped",))


def test_diff_reports_the_workspace_itself_when_its_mode_was_changed(bench: lab.Bench) -> None:
    """``chmod .`` is a change like any other."""
    change = one(after(bench, lambda view: view.chmod(0o700)))
    assert (change.path, change.kind, change.mode) == (".", "mode", 0o700)


def test_diff_sees_an_attribute_when_only_that_was_changed(bench: lab.Bench) -> None:
    """A user's attribute counts, though bytes, mode and times are the same."""

    def act(view: Path) -> None:
        stamp = (view / "edit").stat()
        os.setxattr(view / "edit", "user.colour", b"red")
        os.utime(view / "edit", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    assert one(after(bench, act)).notes == ("same bytes",)


def test_diff_counts_what_was_written_and_deleted(bench: lab.Bench) -> None:
    """Totals cover everything."""

    def act(view: Path) -> None:
        lab.write(view / "a", b"x" * 1000)
        lab.write(view / "edit", b"y" * 10)
        shutil.rmtree(view / "goner")

    diff = after(bench, act)
    assert (diff.bytes_written, diff.deleted) == (1010, 3)
    assert diff.counts == {"created": 1, "changed": 1, "deleted": 3}


@pytest.mark.parametrize(
    ("act", "hooks"),
    [
        (lambda root: _hook(root / ".git/hooks/pre-commit", 0o755), 1),
        (lambda root: _hook(root / "deep/er/.git/hooks/post-merge", 0o755), 1),
        (lambda root: _hook(root / ".git/hooks/pre-commit.sample", 0o755), 0),
        (lambda root: _hook(root / ".git/hooks/pre-commit", 0o644), 0),
        (lambda root: _hook(root / "hooks/pre-commit", 0o755), 0),
        (lambda root: ((root / ".git").mkdir(), (root / ".git/hooks").symlink_to("../elsewhere")), 1),
        (lambda root: _hook(root / ".git/modules/sub/hooks/pre-commit", 0o755), 1),
        (lambda root: _hook(root / ".git/modules/sub/hooks/pre-commit.sample", 0o755), 0),
        (lambda root: _hook(root / "bare.git/hooks/post-receive", 0o755), 1),
        (lambda root: _hook(root / "bare.git/hooks/post-receive.sample", 0o755), 0),
        (lambda root: ((root / "b.git").mkdir(), (root / "b.git/hooks").symlink_to("../elsewhere")), 1),
        (lambda root: _hook(root / ".git/refs/pre-commit", 0o755), 0),
        (lambda root: (root / ".git").symlink_to("elsewhere"), 1),
        (lambda root: ((root / ".git").mkdir(), (root / ".git/modules").symlink_to("../elsewhere")), 1),
        (lambda root: _gitdir(root / ".git", "elsewhere"), 1),
        (lambda root: _gitdir(root / "sub/.git", "../.git/modules/sub"), 0),
        (lambda root: _gitdir(root / "sub/.git", "../elsewhere"), 1),
        (lambda root: _gitdir(root / "sub/.git", "../../.git"), 1),
        (lambda root: _gitdir(root / "sub/.git", "/somewhere/.git/modules/sub"), 1),
        (lambda root: _gitdir(root / "sub/.git", "../.git/../elsewhere"), 1),
        (lambda root: (root / ".git").write_text("no words of git"), 1),
    ],
)
def test_summary_counts_hooks_that_would_run(
    bench: lab.Bench, act: Callable[[Path], object], hooks: int
) -> None:
    """A hook is what git would execute later, with a person's rights; samples are left alone."""
    assert after(bench, act).summary(0).hooks == hooks


def test_summary_counts_a_repository_that_became_a_file(bench: lab.Bench) -> None:
    """Instead of the user's own repository git would follow the file to another one, with its hooks."""
    (bench.workspace / ".git").mkdir()

    def act(view: Path) -> None:
        (view / ".git").rmdir()
        _gitdir(view / ".git", "elsewhere")

    assert after(bench, act).summary(0).hooks == 1


def _gitdir(path: Path, where: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"gitdir: {where}\n")


def _hook(path: Path, mode: int) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)


def test_diff_digest_is_the_same_when_the_same_was_done_again(bench: lab.Bench) -> None:
    """Two clean runs of one call agree; another byte does not."""
    digests = []
    for key, text in (("k1", "same"), ("k2", "same"), ("k3", "other")):
        bench.stage(lambda view, text=text: lab.write(view / "f", text), key)  # type: ignore[misc]
        digests.append(diff_of(bench, key=key).digest)
    assert digests[0] == digests[1] != digests[2]


def test_summary_is_bounded_when_the_diff_is_large(bench: lab.Bench) -> None:
    """At most N lines and 64 KiB of paths cross the wire, with the totals and the digest of the whole."""

    def act(view: Path) -> None:
        for number in range(300):
            lab.write(view / f"{number:03}{'x' * 240}", "x", 0o755)

    diff = after(bench, act)
    short, wide = diff.summary(5), diff.summary(1000)
    assert (len(short.changes), short.total, short.executables, short.digest) == (5, 300, 300, diff.digest)
    assert 200 < len(wide.changes) < 300
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(wide), type=DiffSummary) == wide


def test_summary_crosses_the_wire_when_names_are_no_text(bench: lab.Bench) -> None:
    """Bytes that are not UTF-8 are escaped, never a codec's crash."""
    name = b"\xff\xfe\x1b]0;x\x07"
    summary = after(bench, lambda view: lab.write(os.fsencode(view) + b"/" + name, "x")).summary(9)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(summary), type=DiffSummary) == summary
    assert summary.changes[0].path == shown(name)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(entries=10), "entries"),
        (Limits(total_bytes=20), "bytes"),
        (Limits(depth=2), "levels"),
        (Limits(path_bytes=8), "levels or too long"),
    ],
)
def test_diff_is_refused_with_its_reason_when_a_limit_is_reached(
    bench: lab.Bench, limits: Limits, reason: str
) -> None:
    """A refused diff has no plan that could be merged."""
    diff = after(bench, lab.work_hard, limits)
    assert reason in diff.refused_reason
    assert diff.plan.operations == ()


def test_diff_is_refused_when_a_sparse_file_is_larger_than_the_limit(bench: lab.Bench) -> None:
    """A terabyte of nothing is refused before it is hashed."""

    def act(view: Path) -> None:
        with (view / "huge").open("wb") as file:
            file.truncate(1 << 40)

    assert "bytes" in by_hand(bench, act).refused_reason


@pytest.mark.parametrize(
    "plant",
    [
        lambda upper: os.setxattr(upper / "dir", "user.overlay.redirect", b"/etc"),
        lambda upper: os.setxattr(upper / "dir", "user.overlay.opaque", b"x"),
        lambda upper: os.setxattr(upper / "dir/f", "user.overlay.metacopy", b""),
        lambda upper: os.setxattr(upper / "dir/f", "user.overlay.whiteout", b"y"),
        lambda upper: os.link(upper.parents[2] / "workspace/edit", upper / "dir/hard"),
    ],
    ids=["redirect", "opaque of kind x", "metacopy", "whiteout by attribute", "hard link from outside"],
)
def test_diff_is_refused_when_no_overlay_of_ours_wrote_it(
    bench: lab.Bench, plant: Callable[[Path], object]
) -> None:
    """Marks that would make a merge look elsewhere refuse the stage."""

    def act(upper: Path) -> None:
        (upper / "dir").mkdir()
        lab.write(upper / "dir/f", "f")
        plant(upper)

    diff = by_hand(bench, act)
    assert diff.refused_reason
    assert diff.plan.operations == ()


def test_diff_keeps_specials_out_of_the_plan(bench: lab.Bench) -> None:
    """Fifos and sockets are reported as not merged, even over a file."""

    def act(upper: Path) -> None:
        os.mkfifo(upper / "edit")
        folder_fd = os.open(upper, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{folder_fd}/s")  # a socket's path has 107 bytes
        os.close(folder_fd)

    diff = by_hand(bench, act)
    assert [(c.path, c.kind, c.type, c.notes) for c in diff.changes] == [
        ("edit", "special", "fifo", ("not merged",)),
        ("s", "special", "socket", ("not merged",)),
    ]
    assert diff.plan.operations == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to plant a device")
def test_diff_carries_no_device_and_takes_a_planted_whiteout_for_one(bench: lab.Bench) -> None:
    """A device is reported; a whiteout deletes its own path of the workspace and nothing else."""

    def act(upper: Path) -> None:
        os.mknod(upper / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(upper / "edit", stat.S_IFCHR, os.makedev(0, 0))
        os.mknod(upper / "nothing-there", stat.S_IFCHR, os.makedev(0, 0))
        (upper / "goner").symlink_to("/etc")

    diff = by_hand(bench, act)
    found = kinds(diff)
    assert (found["null"], found["edit"], "nothing-there" in found) == ("special", "deleted", False)
    before = lab.snapshot(bench.workspace)
    lab.merge(bench)
    after = lab.snapshot(bench.workspace)
    assert {path for path in before if before[path] != after.get(path)} == {
        b"edit", b"goner", b"goner/a", b"goner/b",
    }  # fmt: skip
    assert (bench.workspace / "goner").is_symlink()
    assert after.keys() - before.keys() == set()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_diff_is_refused_when_a_file_cannot_be_read(bench: lab.Bench) -> None:
    """What can't be looked at is not merged."""
    diff = after(bench, lambda view: lab.write(view / "secret", "x", 0))
    assert diff.refused_reason.startswith("secret: can't be read")


def test_diff_names_a_conflict_when_the_workspace_changed_during_the_call(bench: lab.Bench) -> None:
    """Paths that something else changed after the stage was made are named."""
    with bench.fds() as (_, stages_fd):
        Stage.create(stages_fd, lab.KEY, root_mode=0o755).close()
    time.sleep(0.02)  # more than a tick of the file system's clock
    lab.write(bench.workspace / "edit", "by hand")
    lab.write(bench.workspace / "goner/late", "by hand")
    lab.write(bench.workspace / "unrelated", "by hand")

    def act(view: Path) -> None:
        lab.write(view / "edit", "by the call")
        shutil.rmtree(view / "goner")

    bench.on_overlay(act)
    assert set(diff_of(bench).conflicts) == {"edit", "goner", "goner/late"}


def test_diff_leaves_everything_alone_when_it_is_read(bench: lab.Bench) -> None:
    """Reading changes neither layer."""
    bench.stage(lab.work_hard)
    upper = bench.stages / lab.KEY / "upper"
    before = lab.snapshot(bench.workspace), lab.snapshot(upper)
    diff_of(bench)
    assert (lab.snapshot(bench.workspace), lab.snapshot(upper)) == before


def test_diff_shows_one_line_when_a_file_was_renamed(bench: lab.Bench) -> None:
    """Old and new name, nothing written, nothing deleted; the summary has both names."""
    diff = after(bench, lambda view: (view / "moved").rename(view / "keep/moved"))
    change = one(diff)
    assert (change.kind, change.source, change.path) == ("renamed", "moved", "keep/moved")
    assert (diff.bytes_written, diff.deleted) == (0, 0)
    assert diff.summary(9).changes[0].source == "moved"


def test_diff_pairs_each_name_once_when_many_files_are_alike(bench: lab.Bench) -> None:
    """A moved folder of equal files keeps their names together, and a copy is no rename."""
    (bench.workspace / "many").mkdir()
    for name in "abc":
        lab.write(bench.workspace / "many" / name, "all the same")

    def act(view: Path) -> None:
        shutil.copytree(view / "many", view / "moved-here")
        shutil.copy(view / "many/a", view / "copy")
        shutil.rmtree(view / "many")

    diff = after(bench, act)
    renamed = {change.source: change.path for change in diff.changes if change.kind == "renamed"}
    assert renamed == {f"many/{name}": f"moved-here/{name}" for name in "abc"}
    assert kinds(diff)["copy"] == "created"
    assert diff.deleted == 1


@pytest.mark.parametrize("mode", [0o755, 0o644])
def test_diff_hides_no_change_behind_a_rename(bench: lab.Bench, mode: int) -> None:
    """Other permissions, or other bytes of the same length, are created and deleted."""

    def act(view: Path) -> None:
        (view / "moved").rename(view / "moved2")
        (view / "moved2").chmod(mode)
        if mode == 0o644:
            with (view / "moved2").open("r+b") as file:
                file.write(b"O")

    assert kinds(after(bench, act)) == {"moved": "deleted", "moved2": "created"}


def test_diff_reads_no_more_than_its_bound_to_recognise_renames(bench: lab.Bench) -> None:
    """Beyond it a rename shows as created and deleted; two empty files are no pair."""
    lab.write(bench.workspace / "empty")

    def act(view: Path) -> None:
        (view / "moved").rename(view / "moved2")
        (view / "empty").rename(view / "void")

    diff = after(bench, act)
    assert kinds(diff) == {"empty": "deleted", "void": "created", "moved2": "renamed"}
    workspace = Beneath(os.open(bench.workspace, os.O_RDONLY))
    changes = [
        Change("moved", "deleted", "file", "file", size=500, mode=0o644),
        Change("x", "created", "file", size=500, mode=0o644, digest="0" * 64),
    ]
    assert pair_renames(changes, partial(digest_in, workspace), most_bytes=499) == changes
    os.close(workspace.fd)


def test_diff_says_how_much_more_the_workspace_will_hold(bench: lab.Bench) -> None:
    """Whatever was done, sizes and things before plus the growth are those after."""

    def held() -> tuple[int, int]:
        found = [path.lstat() for path in bench.workspace.rglob("*")]
        return sum(s.st_size for s in found if stat.S_ISREG(s.st_mode)), len(found)

    before = held()
    diff = after(bench, lab.work_hard)
    lab.merge(bench)
    assert held() == (before[0] + diff.growth.bytes, before[1] + diff.growth.files)


def protected(bench: lab.Bench, act: Callable[[Path], object]) -> int:
    """How many protected files the summary counts."""
    return after(bench, act).summary(10).protected


def test_diff_counts_files_that_programs_outside_obey(bench: lab.Bench) -> None:
    """A missing one that is made, in a folder that is made; not one that is taken away."""

    def act(view: Path) -> None:
        (view / ".vscode").mkdir()
        (view / ".vscode/tasks.json").write_text("{}")
        (view / ".bashrc").symlink_to("edit")
        (view / "keep/.envrc").write_text("x")

    assert protected(bench, act) == 4


@pytest.mark.parametrize(
    ("before", "now", "count"),
    [
        (None, "[core]\n\tbare = false\n", 0),
        (None, "[core]\n\thooksPath = /tmp\n", 1),
        ("[core]\n\teditor = vi\n", "[core]\n\teditor = vi\n[user]\n\tname = x\n", 0),
        ("[core]\n\teditor = vi\n", "[core]\n\teditor = sh\n", 1),
    ],
)
def test_diff_counts_git_settings_that_run_something_new(
    bench: lab.Bench, before: str | None, now: str, count: int
) -> None:
    """An identity is none; a program is one, unless it was there before."""
    config = bench.workspace / ".git" / "config"
    if before is not None:
        config.parent.mkdir(exist_ok=True)
        config.write_text(before)

    def act(view: Path) -> None:
        (view / ".git").mkdir(exist_ok=True)
        (view / ".git/config").write_text(now)

    assert protected(bench, act) == count
