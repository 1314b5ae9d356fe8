import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.supervised import Supervised

Supervise = Callable[..., Supervised]
BASE = 64_100
EXECUTOR, COMMAND = BASE + 3, BASE + 11
PROGRAM = """
import errno, os, socket, sys
from homeostat.workers.identity import become_executor
folder = sys.argv[1]
become_executor({executor}, {command}, [{base}])
def attempt(name, act):
    try:
        print(name, "ok" if act() is None else "ok")
    except OSError as error:
        print(name, errno.errorcode[error.errno])
attempt("read_theirs", lambda: open(folder + "/theirs/file").close())
attempt("rename_theirs", lambda: os.rename(folder + "/theirs/file", folder + "/theirs/renamed"))
attempt("make_theirs", lambda: os.mkdir(folder + "/theirs/new"))
attempt("give_theirs", lambda: os.chown(folder + "/theirs/new", {command}, {command}))
attempt("chmod_theirs", lambda: os.chmod(folder + "/theirs/renamed", 0o600))
attempt("unlink_theirs", lambda: os.unlink(folder + "/theirs/renamed"))
attempt("read_root", lambda: open(folder + "/root_0600").close())
attempt("unlink_root", lambda: os.unlink(folder + "/root_0600"))
attempt("chown_root", lambda: os.chown(folder + "/theirs/new", 0, 0))
attempt("chown_other", lambda: os.chown(folder + "/theirs/new", 1000, -1))
attempt("become_root", lambda: os.setresuid(0, 0, 0))
attempt("become_command", lambda: os.setresuid({command}, {command}, {command}))
attempt("sethostname", lambda: socket.sethostname("x"))
attempt("kill_init", lambda: os.kill(1, 0))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print("caps", *[status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")])
print("ids", os.getresuid(), os.getresgid(), os.getgroups())
"""
FILE_CAPABILITIES = "%016x" % (1 << 0 | 1 << 1 | 1 << 3 | 1 << 4)  # CHOWN, DAC_OVERRIDE, FOWNER, FSETID


@pytest.mark.root
def test_executor_has_power_over_commands_files_alone_when_root_started_it(home: Path) -> None:
    """Its capabilities reach two uids: files of the commands' user obey, everyone else's refuse."""
    home.mkdir(mode=0o755)
    theirs = home / "theirs"
    theirs.mkdir(mode=0o700)
    (theirs / "file").write_text("x")
    for path in (theirs, theirs / "file"):
        os.chown(path, COMMAND, COMMAND)
    (home / "root_0600").touch(mode=0o600)
    program = PROGRAM.format(executor=EXECUTOR, command=COMMAND, base=BASE)
    done = subprocess.run(
        [sys.executable, "-c", program, str(home)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    allowed = ["read_theirs", "rename_theirs", "make_theirs", "give_theirs", "chmod_theirs", "unlink_theirs"]
    assert {name: answers[name] for name in allowed} == dict.fromkeys(allowed, "ok")
    assert answers["read_root"] == "EACCES"
    assert answers["unlink_root"] == "EACCES"
    assert (answers["chown_root"], answers["chown_other"]) == ("EINVAL", "EINVAL")
    assert answers["become_root"] == "EINVAL"
    assert answers["become_command"] == "EPERM"
    assert answers["sethostname"] == "EPERM"
    assert answers["kill_init"] == "EPERM"
    assert answers["caps"].split() == [FILE_CAPABILITIES] * 3 + ["0" * 16]
    assert (
        answers["ids"] == f"({EXECUTOR}, {EXECUTOR}, {EXECUTOR}) ({EXECUTOR}, {EXECUTOR}, {EXECUTOR}) [65534]"
    )


@pytest.mark.root
def test_each_role_runs_as_its_own_user_when_root_started_it(supervise: Supervise) -> None:
    """Nobody but the zygote stays root, and nobody can enter another's folder."""
    supervised = supervise()
    supervised.ready()
    uids = {
        name: (f"/proc/{supervised.pid(name)}/status", offset)
        for name, offset in {"gate.0": 1, "brain.0": 2, "executor.0": 3, "memory.0": 4}.items()
    }
    for name, (path, offset) in uids.items():
        status = dict(line.split(":", 1) for line in Path(path).read_text().splitlines())
        assert status["Uid"].split() == [str(BASE + offset)] * 4, name
        effective = status["CapEff"].strip()
        assert effective == (FILE_CAPABILITIES if name == "executor.0" else "0" * 16), name
        groups = status["Groups"].split()
        assert groups == ([] if name == "gate.0" else [str(BASE)]), name
    assert "Uid:\t0\t0\t0\t0" in Path(f"/proc/{supervised.pid('zygote.0')}/status").read_text()
    owners = {path.name: path.stat().st_uid - BASE for path in supervised.home.iterdir()}
    assert {name: owners[name] for name in ("journal", "keys", "memory", "ledger", "artifacts")} == {
        "journal": 1, "keys": 1, "memory": 4, "ledger": 3, "artifacts": 3,
    }  # fmt: skip


@pytest.mark.root
@pytest.mark.parametrize(
    ("uid", "groups", "allowed"),
    [(BASE + 2, [BASE], True), (BASE + 3, [BASE], True), (BASE + 11, [], False), (1000, [], False)],
)
def test_gate_socket_takes_workers_alone_when_root_started_it(
    supervise: Supervise, uid: int, groups: list[int], *, allowed: bool
) -> None:
    """A command or another user of the machine can't even connect."""
    supervised = supervise()
    supervised.ready()
    program = (
        "import os, socket, sys; os.setgroups(eval(sys.argv[2])); os.setresgid(*[int(sys.argv[1])] * 3);"
        "os.setresuid(*[int(sys.argv[1])] * 3); socket.socket(socket.AF_UNIX).connect(sys.argv[3])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(uid), repr(groups), str(supervised.home / "run" / "gate.sock")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ("PermissionError" not in done.stderr) == allowed, done.stderr
    assert (done.returncode == 0) == allowed


@pytest.mark.unprivileged
def test_everyone_is_the_user_who_started_it_when_that_is_not_root(supervise: Supervise) -> None:
    """Without root there is one user, and nobody else can enter the home."""
    supervised = supervise()
    supervised.ready()
    for worker in supervised.status().workers:
        assert f"Uid:\t{os.getuid()}\t" in Path(f"/proc/{worker.pid}/status").read_text()
    for path in (supervised.home, *supervised.home.iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path
