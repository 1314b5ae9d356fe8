"""ops/docker: its seccomp profile is loaded here, without Docker, and a task is carried out beneath it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyseccomp
import pytest

from tests.fakes.supervised import ROOT
from tests.fakes.under_seccomp import rules

DOCKER = ROOT / "ops" / "docker"
PROFILE = DOCKER / "seccomp.json"
UNDER = [sys.executable, str(ROOT / "tests" / "fakes" / "under_seccomp.py"), str(PROFILE)]
NAMESPACES = {
    "clone", "clone3", "unshare", "setns", "mount", "umount2", "pivot_root", "open_tree", "move_mount",
    "mount_setattr", "fsopen", "fsconfig", "fsmount", "landlock_create_ruleset", "landlock_add_rule",
    "landlock_restrict_self", "seccomp",
}  # fmt: skip
NEVER = {
    "ptrace", "process_vm_readv", "process_vm_writev", "bpf", "perf_event_open", "userfaultfd", "keyctl",
    "add_key", "request_key", "kexec_load", "init_module", "finit_module", "delete_module",
    "open_by_handle_at", "reboot", "swapon", "iopl", "ioperm", "settimeofday", "clock_settime", "pidfd_getfd",
    "kcmp",
}  # fmt: skip
UNKNOWN = -1
"""__NR_SCMP_ERROR; what only this machine lacks has other numbers: seccomp_syscall_resolve_name(3)."""
PLAN = """
[[step]]
thought = "Make something."
tool = "file.write"
[step.args]
path = "a.txt"
content = "2\\n1\\n"
[[step]]
thought = "Sort it, in a sandbox, on a terminal."
tool = "shell.run"
[step.args]
command = "sort a.txt > b.txt; cat b.txt; cat /proc/self/status"
pty = true
"""
TRIAL = """
import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
for number in map(int, sys.argv[1:]):
    assert libc.syscall(number, 0, 0, 0, 0, 0) == -1
    print(errno.errorcode[ctypes.get_errno()])
"""


@pytest.fixture(scope="module")
def profile() -> dict[str, Any]:
    """The profile."""
    found: dict[str, Any] = json.loads(PROFILE.read_text())
    return found


def test_profile_s_names_are_known_when_resolved(profile: dict[str, Any]) -> None:
    """A name that libseccomp does not know would be left out by Docker without a word."""
    names = [name for group in profile["syscalls"] for name in group["names"]]
    assert pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, "no_such_call") == UNKNOWN
    unknown = {name for name in names if pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) == UNKNOWN}
    # Newer than some libseccomp; where they are not known they are refused, and glibc has another way.
    assert unknown <= {"fchmodat2", "futex_wait", "futex_wake", "futex_requeue"}
    plain = [name for name in names if name != "personality"]
    assert len(plain) == len(set(plain)), "a name in two groups"


def test_profile_allows_namespaces_and_refuses_what_reaches_the_host(profile: dict[str, Any]) -> None:
    """What nested sandboxes need is there, what no one needs is not, and the rest is EPERM."""
    allowed = {name for name, action, _ in rules(profile) if action == pyseccomp.ALLOW}
    assert allowed >= NAMESPACES
    assert not allowed & NEVER
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)


def test_profile_is_enforced_when_loaded() -> None:
    """The kernel's own answers: EPERM for what is not listed, known or not, and ENOSYS for io_uring."""
    numbers = [
        pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) for name in ("ptrace", "io_uring_setup")
    ]
    done = subprocess.run(
        [*UNDER, sys.executable, "-c", TRIAL, *map(str, [*numbers, 100_000])],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["EPERM", "ENOSYS", "EPERM"], done.stderr


@pytest.mark.slow
def test_task_is_carried_out_when_beneath_the_profile(home: Path) -> None:
    """Supervisor, workers and sandbox, all beneath it: files written, a command run, its diff merged."""
    config, plan = home.parent / "homeostat.toml", home.parent / "plan.toml"
    config.write_text('[metrics]\nlisten = "127.0.0.1:0"\n')
    plan.write_text(PLAN)
    command = [sys.executable, "-m", "homeostat.supervisor.cli.main", "--home", str(home)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    supervisor = subprocess.Popen(
        [*UNDER, *command, "run", "--config", str(config)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline().startswith("ready")
        done = subprocess.run(
            [*command, "submit", "--plan", str(plan), "--wait", "--json", "sort"],
            capture_output=True, text=True, check=False, timeout=60, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        task = re.search(r'"task": ?"(\w+)"', done.stdout)
        assert task is not None
        shown = subprocess.run(
            [*command, "show", task[1]],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env=environment,
        ).stdout
        filters = re.search(r"Seccomp_filters:\s+(\d+)", shown)
        assert filters is not None
        assert int(filters[1]) >= 2, "the profile's and the command's own"
    finally:
        supervisor.terminate()
        _, err = supervisor.communicate(timeout=60)
    assert supervisor.returncode == 0, err


def test_image_is_for_an_ordinary_user_when_built() -> None:
    """No root at run time, the usual image's name, and only what is there is copied."""
    text = (DOCKER / "Dockerfile").read_text()
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["python:3.11-slim"] * 2
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["homeostat"]
    assert text.index("USER homeostat") < text.index("ENTRYPOINT")
    for source in re.findall(r"^COPY (?!--from)(\S+) ", text, re.MULTILINE):
        assert (ROOT / source).exists()
    assert {".git", ".venv"} <= set((DOCKER / "Dockerfile.dockerignore").read_text().split())


def test_run_line_names_what_is_shipped_when_copied() -> None:
    """Each file of the README's lines is there, and AppArmor's profile has the name that is asked for."""
    text = (DOCKER / "README.md").read_text()
    for path in re.findall(r"ops/docker/[\w.]+", text):
        assert (ROOT / path.rstrip(".")).is_file()
    apparmor = (DOCKER / "apparmor").read_text()
    assert "\nprofile homeostat " in apparmor
    for rule in ("userns,", "mount,", "umount,", "pivot_root,"):
        assert f"\n  {rule}\n" in apparmor
    assert apparmor.count("{") == apparmor.count("}")
