"""What a launch does when nobody attacks."""

import fcntl
import os
import select
import shutil
import struct
import termios

import pytest

from homeostat.proto.errors import MessageTooLargeError
from homeostat.sandbox import protocol
from homeostat.sandbox.profile import Limits, Profile
from homeostat.sandbox.protocol import Exited, Launch, Launched, Refused
from tests.sandbox.stand import PATIENCE_S, Stand, receive, wait_dead


def test_launch_runs_true_and_reports_every_layer(stand: Stand) -> None:
    """The report carries what was enforced."""
    result = stand.run([b"true"])
    assert result.code == 0
    assert result.launched is not None
    report = result.launched.report
    assert report.namespaces == ("user", "mount", "pid", "net", "ipc", "uts", "cgroup")
    assert (report.uid_inside, report.uid_outside) == (1000, stand.ids.outside_uid)
    assert report.further_user_namespaces == 0
    assert (report.capabilities, report.no_new_privs) == ((), True)
    assert report.rlimits["open_files"] == 1024
    assert (report.workspace, report.cgroup) == ("bind", stand.groups.version)
    missing = {"landlock": report.landlock_abi == 0, "cgroup": report.cgroup == "none"}
    assert report.degraded == tuple(name for name, gone in missing.items() if gone)


@pytest.mark.parametrize(("source", "code", "death"), [("exit 7", 7, None), ("kill -TERM $$", None, 15)])
def test_launch_tells_how_the_command_ended(
    stand: Stand, source: str, code: int | None, death: int | None
) -> None:
    """Exit code and signal are those of the command itself."""
    result = stand.shell(source)
    assert (result.code, result.signal) == (code, death)


def test_launch_writes_into_the_workspace_when_unstaged(stand: Stand) -> None:
    """What the command writes is there, and belongs to the command's uid."""
    assert stand.shell("echo hello > made && pwd").out == "/workspace\n"
    made = stand.workspace / "made"
    assert made.read_text() == "hello\n"
    assert made.stat().st_uid == stand.ids.outside_uid


def test_launch_leaves_the_workspace_alone_when_staged(stand: Stand) -> None:
    """Every kind of change lands in upper/, owned by the command's uid down to overlayfs' own folders."""
    stand.file(stand.workspace / "kept", "before")
    stand.file(stand.workspace / "gone", "before")
    stage = stand.stage()
    result = stand.shell("echo after > kept; rm gone; mkdir d; echo n > d/new; cat kept; ls", stage=stage)
    assert (result.code, result.out) == (0, "after\nd\nkept\n")
    assert sorted(os.listdir(stand.workspace)) == ["gone", "kept"]
    assert (stand.workspace / "kept").read_text() == "before"
    assert (stage / "upper/kept").read_text() == "after\n"
    assert (stage / "upper/gone").stat().st_rdev == 0
    assert result.launched is not None
    assert result.launched.report.workspace == "overlay"
    owners = {
        os.lstat(os.path.join(top, name)).st_uid
        for top, folders, files in os.walk(stage)
        for name in folders + files
    }
    assert owners == {stand.ids.outside_uid}


def test_launch_mounts_the_workspace_where_the_profile_says(stand: Stand) -> None:
    """A deep mount point is made for this sandbox alone."""
    stand.file(stand.workspace / "f", "here")
    deep = Profile(workspace="/srv/deep/place")
    assert stand.shell("pwd; cat f; ls /srv/deep", profile=deep).out == "/srv/deep/place\nhereplace\n"
    assert "deep" not in stand.shell("ls /srv; true").out


def test_launch_shows_extra_paths_read_only_at_the_same_place(stand: Stand) -> None:
    """Folders and single files of the host appear under their own names and can't be written."""
    extra = stand.folder(f"extra{stand.next_id()}")
    stand.file(extra / "lib.txt", "library")
    single = stand.file(stand.base / f"single{stand.next_id()}", "one file")
    profile = Profile(read_only=(str(extra), str(single)))
    result = stand.shell(
        f"cat {extra}/lib.txt {single}; echo x > {extra}/lib.txt || echo x > {single}", profile=profile
    )
    assert result.out.startswith("libraryone file")
    assert result.code == 1
    assert (extra / "lib.txt").read_text() == "library"


def test_launch_refuses_an_extra_path_that_is_missing(stand: Stand) -> None:
    """Fail closed: a profile that can't be honoured runs nothing."""
    end = stand.run([b"true"], profile=Profile(read_only=("/nonexistent/x",))).end
    assert isinstance(end, Refused)
    assert (end.layer, end.errno) == ("workspace", 2)
    assert "/nonexistent/x" in end.message


def test_launch_holds_a_read_only_workspace(stand: Stand) -> None:
    """Reading tools need no write access."""
    result = stand.shell("echo x > f", profile=Profile(workspace_read_only=True))
    assert result.code == 1
    assert os.listdir(stand.workspace) == []


def test_launch_gives_a_rebuilt_environment(stand: Stand) -> None:
    """Nothing of the zygote's environment; the request's variables over a few defaults."""
    out = stand.run([b"env"], env={"GREETING": "hi", "HOME": "/workspace"}).out
    found = dict(line.split("=", 1) for line in out.splitlines())
    assert (found["GREETING"], found["HOME"], found["PWD"]) == ("hi", "/workspace", "/workspace")
    assert not {"LD_PRELOAD", "BASH_ENV", "GIT_DIR", "API_KEY", "PYTHONPATH"} & found.keys()


@pytest.mark.parametrize(("cwd", "seen"), [("sub", "/workspace/sub"), ("/tmp", "/tmp")])
def test_launch_starts_in_the_folder_asked_for(stand: Stand, cwd: str, seen: str) -> None:
    """A relative folder counts from the workspace."""
    stand.own_folder(stand.workspace / "sub")
    assert stand.shell("pwd", cwd=cwd).out.strip() == seen


def test_launch_can_reopen_its_pipes_by_name(stand: Stand) -> None:
    """/dev/stdout and /dev/stderr work although the pipes belong to another uid."""
    assert stand.shell("echo out > /dev/stdout; echo err > /dev/stderr").out == "out\nerr\n"


def test_builtin_runs_under_the_same_confinement(stand: Stand) -> None:
    """A built-in sees the workspace as uid 1000 and its return value is the exit code."""
    stand.file(stand.workspace / "f", "x")
    result = stand.run([b"a", b"b\xff"], builtin="say")
    assert (result.code, result.out) == (2, r"[b'a', b'b\xff'] 1000 ['f']" + "\n")
    attack = b"import os; os.mkdir('/escaped')"
    result = stand.run([attack], builtin="attack")
    assert result.code == 70
    assert "OSError" in result.out or "PermissionError" in result.out


def test_builtin_shows_its_exception_when_it_has_a_bug(stand: Stand) -> None:
    """A crash is an exit code with a traceback, not a lost call."""
    result = stand.run([], builtin="crash")
    assert result.code == 70
    assert "RuntimeError: as planned" in result.out


def test_terminal_controls_the_command(stand: Stand) -> None:
    """All three descriptors are one terminal of the sandbox's own, with the size that was asked for."""
    script = b"tty; stty size; ps -o tpgid= -p $$; echo $TERM; read x; echo got $x >/dev/tty"
    stand.launch(Launch(stand.next_id(), Profile(), [b"sh", b"-c", script], tty=True, rows=33, cols=77))
    ((message, (pidfd, master)),) = receive(stand.client)
    assert isinstance(message, Launched)
    assert struct.unpack("HHHH", fcntl.ioctl(master, termios.TIOCGWINSZ, b"\0" * 8))[:2] == (33, 77)
    seen = _read_until(master, b"xterm-256color\r\n")
    os.write(master, b"word\n")
    assert seen.startswith(b"/dev/pts/0\r\n33 77\r\n")
    assert int(seen.split()[3]) > 1
    assert b"got word" in _read_until(master, b"got word\r\n")
    ((end, _),) = receive(stand.client)
    assert isinstance(end, Exited)
    assert end.exit_code == 0
    protocol.close((pidfd, master))


def _read_until(terminal: int, end: bytes) -> bytes:
    seen = b""
    while not seen.endswith(end):
        assert select.select([terminal], [], [], PATIENCE_S)[0], seen
        seen += os.read(terminal, 4096)
    return seen


@pytest.mark.parametrize(
    ("change", "layer", "errno"),
    [
        ({"argv": []}, "request", 22),
        ({"builtin": "nonesuch"}, "request", 22),
        ({"argv": [b"a\0b"]}, "request", 22),
        ({"env": {"A=B": "c"}}, "request", 22),
        ({"staged": True}, "request", 22),
        ({"argv": [b"nonesuch"]}, "exec", 2),
        ({"argv": [b"/etc/passwd"]}, "exec", 13),
        ({"cwd": "nonesuch"}, "environment", 2),
    ],
)  # fmt: skip
def test_launch_refuses_what_cannot_be_meant(
    stand: Stand, change: dict[str, object], layer: str, errno: int
) -> None:
    """The refusal names the layer, the errno and a remedy."""
    fields = {"id": stand.next_id(), "profile": Profile(), "argv": [b"true"], **change}
    null = os.open(os.devnull, os.O_RDWR)
    stand.launch(Launch(**fields), stdio=(null,) * 3)  # type: ignore[arg-type]
    os.close(null)
    ((end, _),) = receive(stand.client)
    assert isinstance(end, Refused)
    assert (end.layer, end.errno) == (layer, errno)
    assert end.message
    assert end.remedy


def test_launch_refuses_a_limit_above_the_hard_limit(stand: Stand) -> None:
    """A limit that can't be set is a refusal, not a weaker sandbox."""
    end = stand.run([b"true"], profile=Profile(limits=Limits(open_files=1 << 30))).end
    assert isinstance(end, Refused)
    assert end.layer == "limits"


@pytest.mark.root
def test_launch_refuses_a_stage_that_it_cannot_write() -> None:
    """Overlayfs would mount it read-only without a word."""
    with Stand(as_user=False) as stand:
        stage = stand.stage()
        for part in (stage / "upper", stage / "work"):
            os.chown(part, 0, 0)
        end = stand.run([b"true"], stage=stage).end
        assert isinstance(end, Refused)
        assert (end.layer, end.errno) == ("workspace", 30)


def test_launch_refuses_a_workspace_that_was_replaced(stand: Stand) -> None:
    """The path is only a hint: another folder under the same name is not the one whose descriptor was
    passed.
    """
    fd = os.open(stand.workspace, os.O_RDONLY | os.O_DIRECTORY)
    null = os.open(os.devnull, os.O_RDWR)
    stand.workspace.rmdir()
    stand.own_folder(stand.workspace)
    stand.client.launch(Launch(stand.next_id(), Profile(), [b"true"]), [fd, null, null, null])
    protocol.close((fd, null))
    ((end, _),) = receive(stand.client)
    assert isinstance(end, Refused)
    assert end.layer == "workspace"


def test_launch_takes_a_large_request_and_refuses_a_larger_one(stand: Stand) -> None:
    """Up to 192 KB of arguments pass; more is an error that says what to do instead."""
    words = [b"x" * 1000] * 150
    result = stand.run([b"sh", b"-c", b"echo $#", b"-", *words])
    assert result.out == "150\n"
    with pytest.raises(MessageTooLargeError, match="pass"):
        stand.run([b"true", *[b"x" * 1000] * 250])
    with pytest.raises(MessageTooLargeError, match="pass it as a file"):
        stand.run([b"true", b"x" * (128 << 10)])


def test_kill_ends_the_whole_tree_and_then_tells(stand: Stand) -> None:
    """Exited comes when the first process of the namespace, and so every other, is dead."""
    null = os.open(os.devnull, os.O_RDWR)
    identity = stand.next_id()
    stand.launch(
        Launch(identity, Profile(), [b"bash", b"-c", b"trap '' TERM; while :; do :; done & sleep 600"]),
        stdio=(null,) * 3,
    )
    ((launched, (pidfd,)),) = receive(stand.client)
    assert isinstance(launched, Launched)
    stand.client.kill(identity)
    ((end, _),) = receive(stand.client)
    assert isinstance(end, Exited)
    assert end.signal == 9
    assert select.select([pidfd], [], [], 0)[0]
    wait_dead(launched.pid)
    protocol.close((pidfd, null))


def test_sandboxes_run_beside_each_other(stand: Stand) -> None:
    """The zygote waits for nobody: a later command ends while an earlier one runs."""
    null = os.open(os.devnull, os.O_RDWR)
    slow = stand.next_id()
    stand.launch(Launch(slow, Profile(), [b"sleep", b"600"]), stdio=(null,) * 3)
    ((_, fds),) = receive(stand.client)
    assert stand.run([b"true"]).code == 0
    stand.client.kill(slow)
    ((end, _),) = receive(stand.client)
    assert end.id == slow
    protocol.close((*fds, null))


def test_many_sandboxes_start_and_end_in_any_order(stand: Stand) -> None:
    """Forty at once, twice, beside one that stays: each has its own end, and descriptors that change hands
    between dying and new sandboxes do not confuse the zygote.
    """
    null = os.open(os.devnull, os.O_RDWR)
    stays = stand.next_id()
    stand.launch(Launch(stays, Profile(), [b"sleep", b"600"]), stdio=(null,) * 3)
    ((_, fds),) = receive(stand.client)
    protocol.close(fds)
    waiting = {stand.next_id() for _ in range(40)}
    codes: dict[int, int | None] = {}
    for identity in sorted(waiting):
        stand.launch(
            Launch(identity, Profile(), [b"sh", b"-c", b"exit %d" % (identity % 7)]), stdio=(null,) * 3
        )
    again = {identity: stand.next_id() for identity in waiting}
    while len(codes) < 80:
        for message, fds in receive(stand.client):
            protocol.close(fds)
            if isinstance(message, Launched):
                continue
            assert isinstance(message, Exited), message
            codes[message.id] = message.exit_code
            if message.id in again:
                stand.launch(Launch(again[message.id], Profile(), [b"true"]), stdio=(null,) * 3)
    assert codes == {**{identity: identity % 7 for identity in waiting}, **dict.fromkeys(again.values(), 0)}
    stand.client.kill(stays)
    ((end, _),) = receive(stand.client)
    assert end.id == stays
    protocol.close((null,))


@pytest.mark.parametrize("staged", [False, True])
def test_usual_tools_work(stand: Stand, *, staged: bool) -> None:
    """bash, coreutils and python's unittest with threads, subprocesses, asyncio and unix sockets."""
    stand.file(stand.workspace / "test_it.py", PROGRAM)
    stage = stand.stage() if staged else None
    result = stand.run([b"/usr/bin/python3", b"-m", b"unittest", b"-v"], stage=stage)
    assert result.code == 0, result.out
    script = (
        "set -e; mkfifo p; (echo x > p &) ; cat p; cat <(echo y); "
        "cp /usr/bin/env e; ./e true; seq 3 | sort -r | head -1"
    )
    result = stand.shell(script, stage=stand.stage() if staged else None)
    assert (result.code, result.out) == (0, "x\ny\n3\n"), result.out


PROGRAM = """
import asyncio, multiprocessing, os, socket, subprocess, sys, tempfile, threading, unittest
class T(unittest.TestCase):
    def test_threads(self):
        seen = []
        ts = [threading.Thread(target=seen.append, args=(i,)) for i in range(5)]
        [t.start() for t in ts]; [t.join() for t in ts]
        self.assertEqual(sorted(seen), list(range(5)))
    def test_subprocess(self):
        self.assertEqual(subprocess.run(["echo", "hi"], capture_output=True, check=True).stdout, b"hi\\n")
    def test_asyncio(self):
        async def main():
            p = await asyncio.create_subprocess_exec("true")
            return await p.wait()
        self.assertEqual(asyncio.run(main()), 0)
    def test_unix_socket(self):
        unix = socket.AF_UNIX
        with tempfile.TemporaryDirectory() as d, socket.socket(unix) as a, socket.socket(unix) as b:
            a.bind(d + "/s"); a.listen(); b.connect(d + "/s"); b.send(b"x")
            self.assertEqual(a.accept()[0].recv(1), b"x")
    def test_loopback(self):
        with socket.create_server(("127.0.0.1", 0)) as a, socket.create_connection(a.getsockname()) as b:
            b.send(b"x")
            self.assertEqual(a.accept()[0].recv(1), b"x")
    def test_pool(self):
        with multiprocessing.Pool(2) as pool:
            self.assertEqual(pool.map(abs, [-1, 2]), [1, 2])
"""


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
@pytest.mark.parametrize("staged", [False, True])
def test_git_works(stand: Stand, *, staged: bool) -> None:
    """Init, add, commit, log."""
    script = (
        "set -e; git init -q r; cd r; echo a > a; git add a; "
        "git -c user.name=x -c user.email=x@x commit -qm first; git log --oneline | cut -d' ' -f2"
    )
    result = stand.shell(script, stage=stand.stage() if staged else None)
    assert (result.code, result.out) == (0, "first\n"), result.out


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")
def test_gcc_works(stand: Stand) -> None:
    """Compile and run."""
    source = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'
    stand.file(stand.workspace / "a.c", source)
    result = stand.shell("gcc a.c -o a && ./a && cp a /tmp && /tmp/a")
    assert (result.code, result.out) == (0, "hello\nhello\n"), result.out
