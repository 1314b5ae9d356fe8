"""The compiled policies, judged by an interpreter of their own bytes."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pyseccomp
import pytest
from hypothesis import given, strategies as st

from homeostat.sandbox import seccomp
from tests.unit.sandbox import bpf

x86_64_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="the expected numbers are x86-64's")
GOLDEN = Path(__file__).with_name("golden")
ROLES = ("local", "brain", "courier", "database")
REACHING = frozenset({"brain", "courier", "database"})


@pytest.fixture(scope="module")
def command() -> bytes:
    """The command's filter."""
    return seccomp.compile_policy(seccomp.POLICIES / "command.toml")


def judge(program: bytes, call: str | int, *args: int, arch: int = bpf.X86_64) -> str:
    """The verdict on one call of x86-64."""
    number = pyseccomp.resolve_syscall(pyseccomp.Arch.X86_64, call) if isinstance(call, str) else call
    return bpf.name(bpf.verdict(program, arch, number, args))


@x86_64_only
@pytest.mark.parametrize(
    ("call", "args", "answer"),
    [
        ("read", (), "allow"),
        ("openat", (), "allow"),
        ("execve", (), "allow"),
        (452, (), "allow"),
        (451, (), "allow"),
        (462, (), "allow"),
        ("ptrace", (), "EPERM"),
        ("mount", (), "EPERM"),
        ("bpf", (), "EPERM"),
        ("keyctl", (), "EPERM"),
        ("unshare", (), "EPERM"),
        ("clone3", (), "ENOSYS"),
        ("io_uring_setup", (), "ENOSYS"),
        (457, (), "ENOSYS"),
        (467, (), "EPERM"),
        (469, (), "ENOSYS"),
        (470, (), "ENOSYS"),
        (0x3FFFFFFF, (), "ENOSYS"),
        (0x40000000, (), "kill"),
        (0x40000000 | 0, (), "kill"),
        (0xFFFFFFFE, (), "kill"),
        (0xFFFFFFFF, (), "ENOSYS"),
        ("socket", (1, 1, 0), "allow"),
        ("socket", (2, 1, 0), "allow"),
        ("socket", (10, 2, 0), "allow"),
        *[("socket", (family, kind, protocol), "allow") for family in (2, 10)
          for kind, protocol in ((1, 0), (1, 6), (2, 0), (2, 17), (0x80801, 6), (0x80002, 0))],
        *[("socket", (family, kind, protocol), "EPERM") for family in (2, 10)
          for kind, protocol in ((1, 132), (5, 0), (5, 132), (6, 33), (1, 262), (2, 1), (2, 136), (3, 0),
                                 (3, 1), (1, 17), (2, 6), (0x80005, 0))],
        ("prlimit64", (0, 7, 4096, 0), "allow"),
        ("prlimit64", (1, 7, 0, 4096), "allow"),
        ("prlimit64", (1, 7, 4096, 0), "EPERM"),
        ("prlimit64", (0x1_0000_0001, 7, 4096, 0), "EPERM"),
        ("setsockopt", (3, 1, 2), "allow"),
        ("setsockopt", (3, 6, 1), "allow"),
        ("setsockopt", (3, 41, 31), "allow"),
        ("setsockopt", (3, 6, 31), "EPERM"),
        ("setsockopt", (3, 0x1_0000_0006, 0x1_0000_001F), "EPERM"),
        ("socket", (16, 3, 0), "allow"),
        ("socket", (16, 3, 9), "EPERM"),
        ("socket", (17, 3, 0), "EPERM"),
        ("socket", (40, 1, 0), "EPERM"),
        ("socket", (0x1_0000_0001, 1, 0), "EPERM"),
        ("socketpair", (1, 1, 0), "allow"),
        ("socketpair", (16, 3, 0), "EPERM"),
        ("clone", (0x01200011,), "allow"),
        ("clone", (0x003D0F00,), "allow"),
        *[("clone", (bit | 17,), "EPERM") for bit in (1 << 17, *(1 << n for n in range(25, 31)))],
        # ioctl: 32 bits of the request
        ("ioctl", (0, 0x5401), "allow"),
        ("ioctl", (0, 0x5411), "allow"),
        ("ioctl", (0, 0x5413), "allow"),
        ("ioctl", (0, 0x541B), "allow"),
        ("ioctl", (0, 0x541D), "allow"),
        ("ioctl", (0, 0xC0045412), "allow"),
        ("ioctl", (0, 0x5412), "EPERM"),
        ("ioctl", (0, 0x541C), "EPERM"),
        ("ioctl", (0, 0x5423), "EPERM"),
        ("ioctl", (0, 0x5424), "allow"),
        ("ioctl", (0, 0x1_0000_5423), "EPERM"),
        ("ioctl", (0, 0x1_0000_5412), "EPERM"),
        ("ioctl", (0, 0xFFFFFFFF_0000541C), "EPERM"),
        ("ioctl", (0, 0xFFFFFFFF_00005401), "allow"),
        ("prctl", (15,), "allow"),
        ("prctl", (38, 1), "allow"),
        ("prctl", (0x53564D41,), "allow"),
        ("prctl", (35, 1), "EPERM"),
        ("prctl", (0x1_0000_0023, 1), "EPERM"),
        ("prctl", (0x59616D61, 1), "EPERM"),
        ("personality", (0,), "allow"),
        ("personality", (0xFFFFFFFF,), "allow"),
        ("personality", (0x40000,), "EPERM"),
        ("personality", (0xFFFFFFFF_FFFFFFFF,), "EPERM"),
        ("mknod", (0, 0o10644), "allow"),
        ("mknod", (0, 0o20644), "EPERM"),
        ("mknod", (0, 0o60644), "EPERM"),
        ("mknodat", (0, 0, 0o10644), "allow"),
        ("mknodat", (0, 0, 0o20644), "EPERM"),
    ],
)  # fmt: skip
def test_command_filter_answers(command: bytes, call: str | int, args: tuple[int, ...], answer: str) -> None:
    """Golden table: (call, arguments) to verdict."""
    assert judge(command, call, *args) == answer


@x86_64_only
@pytest.mark.parametrize("arch", [bpf.I386, bpf.AARCH64, 0])
def test_every_filter_kills_foreign_architectures(arch: int) -> None:
    """Whatever the number."""
    for name in ("command", "init", *[f"worker_{role}" for role in ROLES]):
        program = seccomp.compile_policy(seccomp.POLICIES / f"{name}.toml")
        assert {bpf.name(bpf.verdict(program, arch, number)) for number in (0, 20, 59, 1000)} == {"kill"}


def _number(call: str) -> int:
    number: int = pyseccomp.resolve_syscall(pyseccomp.Arch.X86_64, call)
    return number


@x86_64_only
def test_command_filter_judges_every_call_that_exists_by_name(command: bytes) -> None:
    """A call is allowed, EPERM or ENOSYS; and every one that the policy doesn't name is EPERM."""
    policy = seccomp.read_policy(seccomp.POLICIES / "command.toml")
    named = {call for rule in policy.rule for call in rule.calls}
    numbers = {_number(call) for call in named} | set(policy.numbers.values())
    for number in range(policy.newest + 1):
        answer = judge(command, number)
        assert answer in {"allow", "EPERM", "ENOSYS"}
        assert number in numbers or answer == "EPERM", number


@x86_64_only
def test_init_filter_allows_little() -> None:
    """PID 1 may wait, freeze, tell and end; it may not exec, connect, trace, or open for writing."""
    program = seccomp.compile_policy(seccomp.POLICIES / "init.toml")
    allowed = ("wait4", "sendto", "sendmsg", "exit_group", "close", "kill", "poll", "recvfrom", "pidfd_open")
    assert {judge(program, call) for call in allowed} == {"allow"}
    denied = ("execve", "socket", "mount", "clone", "ptrace", "open", "unlinkat", "pidfd_getfd", "tgkill")
    assert {judge(program, call) for call in denied} == {"EPERM"}
    read_only, others = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY, (os.O_WRONLY, os.O_RDWR, os.O_CREAT)
    assert judge(program, "openat", 3, 0, read_only) == "allow"
    assert {judge(program, "openat", 3, 0, flags) for flags in (*others, os.O_TRUNC)} == {"EPERM"}


@x86_64_only
@pytest.mark.parametrize("role", ROLES)
def test_worker_filter_answers(role: str) -> None:
    """What no worker needs is refused; what its runtime needs passes; sockets are the role's."""
    program = seccomp.compile_policy(seccomp.POLICIES / f"worker_{role}.toml")
    denied = ("execve", "execveat", "ptrace", "mount", "bpf", "keyctl", "perf_event_open", "unshare", "setns",
              "process_vm_readv", "pidfd_getfd", "userfaultfd", "kexec_load", "init_module",
              "open_by_handle_at")  # fmt: skip
    assert {judge(program, call) for call in denied} == {"EPERM"}
    assert {judge(program, call) for call in ("clone3", "io_uring_setup")} == {"ENOSYS"}
    needed = (
        "read",
        "openat",
        "connect",
        "accept4",
        "sendmsg",
        "epoll_wait",
        "futex",
        "mmap",
        "fsync",
        "eventfd2",
    )
    assert {judge(program, call) for call in needed} == {"allow"}
    assert judge(program, "clone", 0x3D0F00) == "allow"
    assert judge(program, "clone", 0x10000011) == "EPERM"
    assert judge(program, "ioctl", 0, 0xFFFFFFFF_00005412) == "EPERM"
    assert judge(program, "ioctl", 0, 0x5421) == "allow"
    inet = "allow" if role in REACHING else "EPERM"
    assert [judge(program, "socket", family, 1, 0) for family in (1, 2, 10, 17, 40)] == [
        "allow",
        inet,
        inet,
        "EPERM",
        "EPERM",
    ]
    assert judge(program, "socket", 0x1_0000_0002, 1, 0) == inet


@pytest.mark.parametrize("role", ROLES)
def test_worker_filter_binds_a_real_process(role: str) -> None:
    """Loaded into a process: no exec, no namespace, sockets as the role says, threads still start."""
    source = f"""
import errno, os, socket, threading
from homeostat.sandbox import kernel, seccomp
program = seccomp.compile_policy(seccomp.POLICIES / "worker_{role}.toml")
kernel.set_no_new_privs()
seccomp.load(program)
def attempt(function, *args):
    try:
        function(*args)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "OK"
print(attempt(os.execv, "/bin/true", ["true"]), attempt(kernel.unshare, 0x10000000),
      attempt(socket.socket, socket.AF_UNIX), attempt(socket.socket, socket.AF_INET))
thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
"""
    ran = subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["EPERM", "EPERM", "OK", "OK" if role in REACHING else "EPERM", "thread"]


def test_compile_gives_the_same_bytes_every_time(command: bytes) -> None:
    """The digest in the report names the filter."""
    again = seccomp.compile_policy(seccomp.POLICIES / "command.toml")
    assert seccomp.digest(again) == seccomp.digest(command)
    assert seccomp.instruction_count(command) < 4096


def test_every_rule_has_a_reason_and_no_call_two_unconditional_answers() -> None:
    """Policies are data for a reader too."""
    for path in sorted(seccomp.POLICIES.glob("*.toml")):
        policy = seccomp.read_policy(path)
        assert all(rule.reason for rule in policy.rule), path
        plain = [call for rule in policy.rule if not rule.when for call in rule.calls]
        assert len(plain) == len(set(plain)), path
        conditional = {call for rule in policy.rule if rule.when for call in rule.calls}
        assert not conditional & set(plain), path


def test_every_policy_has_the_name_of_its_file() -> None:
    """A copy under another name is nobody's policy."""
    for path in sorted(seccomp.POLICIES.glob("*.toml")):
        assert seccomp.read_policy(path).name == path.stem


@x86_64_only
@pytest.mark.parametrize("role", ROLES)
def test_worker_filter_lets_nobody_call_those_that_only_dial(role: str) -> None:
    """The courier accepts from sockets that listened before; the databases' worker accepts nothing."""
    program = seccomp.compile_policy(seccomp.POLICIES / f"worker_{role}.toml")
    assert judge(program, "listen", 3, 1) == ("EPERM" if role in {"courier", "database"} else "allow")


@x86_64_only
@pytest.mark.parametrize("name", ["command", "init", *[f"worker_{role}" for role in ROLES]])
def test_filter_answers_every_number_as_is_written_down(name: str) -> None:
    """Golden: number and answer without arguments; a change shows as a line of the diff.

    Not the bytes: another libseccomp may lay the same answers out otherwise.
    """
    policy = seccomp.read_policy(seccomp.POLICIES / f"{name}.toml")
    program = seccomp.compile_policy(seccomp.POLICIES / f"{name}.toml")
    lines = [f"{number} {judge(program, number)}" for number in range(policy.newest + 1)]
    assert lines == (GOLDEN / f"{name}.txt").read_text().splitlines()


@pytest.mark.parametrize(
    "change",
    [
        {"rule": [{"action": "allow", "reason": "r", "calls": ["nonesuch_call"]}]},
        {"rule": [{"action": "EWHAT", "reason": "r", "calls": ["read"]}]},
        {"rule": [{"action": "allow", "calls": ["read"]}]},
        {"rule": [{"action": "allow", "reason": "r", "calls": ["read"], "when": [{"arg": 0}]}]},
        {"unknown_key": 1},
        {"default": "maybe"},
    ],
)  # fmt: skip
def test_compile_refuses_a_policy_that_means_nothing(change: dict[str, object]) -> None:
    """A misspelt policy is an error, never a weaker filter."""
    with pytest.raises(seccomp.SeccompPolicyError):
        seccomp.compile_policy({"name": "n", "default": "EPERM", "newest": 469, "rule": [], **change})


@given(st.sets(st.integers(0, 0xFFFFFFFF), min_size=1, max_size=6), st.integers(0, 0xFFFFFFFF))
def test_complement_matches_exactly_the_others(values: set[int], other: int) -> None:
    """One block for every number that is not named, none for one that is."""
    blocks = list(seccomp.complement(tuple(values)))
    neighbours = {value ^ (1 << bit) for value in values for bit in range(32)}
    for number in {other, *values, *neighbours}:
        matches = sum(number & mask == value for mask, value in blocks)
        assert matches == (0 if number in values else 1)
