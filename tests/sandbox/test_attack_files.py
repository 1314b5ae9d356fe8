"""Attacks on files and on /proc: each one is really tried inside, and the errno or the unchanged host is
asserted.
"""

import os
import stat
from pathlib import Path

import pytest

from homeostat.sandbox import protocol
from homeostat.sandbox.profile import Profile
from tests.sandbox.stand import Stand


def test_attack_cannot_write_outside_the_workspace(stand: Stand) -> None:
    """1: every writable-looking place of the root refuses; what can be written vanishes with the sandbox."""
    places = ["/x", "/usr/x", "/etc/x", "/etc/passwd", "/bin/x", "/home/x", "/root/x", "/var/x", "/dev/x",
              "/oldroot/x",
              "/proc/x", "/usr/bin/env"]  # fmt: skip
    result = stand.python(f"""
for path in {places!r}:
    print(path, opening(path, os.O_WRONLY | os.O_CREAT))
for path in ("/tmp/x", "/dev/shm/x", "/workspace/x"):
    print(path, opening(path, os.O_WRONLY | os.O_CREAT))
""")
    seen = dict(line.split() for line in result.out.splitlines())
    assert {seen[place] for place in places} <= {"EACCES", "EROFS", "ENOENT", "EPERM"}
    assert {seen["/tmp/x"], seen["/dev/shm/x"], seen["/workspace/x"]} == {"OK"}
    assert "x" not in stand.shell("ls /tmp /dev/shm | grep -x x").out


@pytest.mark.parametrize("staged", [False, True])
def test_attack_cannot_leave_through_a_symlink(stand: Stand, *, staged: bool) -> None:
    """2, 9: links and .. end in the sandbox's own root, where the host's files are not."""
    secret = stand.file(stand.base / f"secret{stand.next_id()}", "of the host")
    os.symlink(secret, stand.workspace / "link")
    result = stand.shell(
        f"cat link; echo x > link; cat /workspace/../../..{secret}; ln -s / r; cat r{secret}; ls /oldroot",
        stage=stand.stage() if staged else None,
    )
    assert "of the host" not in result.out
    assert secret.read_text() == "of the host"


def test_attack_finds_no_way_round_through_proc_root(stand: Stand) -> None:
    """8, 22: one's own root alias is the sandbox's; PID 1's root, memory, environment and descriptors don't
    open.
    """
    result = stand.python("""
print(os.listdir("/proc/self/root/oldroot"), os.path.exists("/proc/self/root/workspace"))
print(opening("/proc/self/root/usr/x", os.O_WRONLY | os.O_CREAT))
print(attempt(os.listdir, "/proc/1/root/"),
      attempt(os.listdir, "/proc/1/cwd/"), attempt(os.listdir, "/proc/1/fd"))
print(opening("/proc/1/environ", os.O_RDONLY),
      opening("/proc/1/mem", os.O_RDONLY), opening("/proc/1/maps", os.O_RDONLY))
""")
    assert result.out.splitlines()[0] == "[] True"
    assert result.out.splitlines()[1] in {"EACCES", "EROFS"}
    assert set(" ".join(result.out.splitlines()[2:]).split()) <= {"EACCES", "EPERM"}


def test_attack_cannot_make_a_device(stand: Stand) -> None:
    """12: nodes are refused, a named pipe is not; a device of the host's that lies in the workspace does not
    work.
    """
    result = stand.python("""
print(attempt(os.mknod, "/tmp/d", 0o20666, os.makedev(1, 5)),
      attempt(os.mknod, "/tmp/b", 0o60666, os.makedev(8, 0)))
print(attempt(os.mkfifo, "/tmp/p"))
""")
    assert result.out == "EPERM EPERM\nOK\n"


@pytest.mark.root
def test_attack_cannot_use_a_device_in_the_workspace() -> None:
    """12: what lies in the workspace is mounted nodev."""
    with Stand(as_user=False) as stand:
        os.mknod(stand.workspace / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        (stand.workspace / "zero").chmod(0o666)
        assert stand.python("print(opening('zero', os.O_RDONLY))").out == "EACCES\n"


@pytest.mark.root
def test_attack_gains_nothing_from_a_setuid_program() -> None:
    """13: nosuid, no_new_privs and unmapped owners; su and a root-owned setuid copy of id change nothing."""
    with Stand(as_user=False) as stand:
        copy = stand.workspace / "id"
        copy.write_bytes(Path("/usr/bin/id").read_bytes())
        os.chown(copy, 0, 0)
        copy.chmod(0o6755)
        result = stand.shell("./id -u; ./id -ru; grep -E '^(CapPrm|CapBnd|NoNewPrivs)' /proc/self/status")
        assert result.out.split() == [
            "1000",
            "1000",
            "CapPrm:",
            "0" * 16,
            "CapBnd:",
            "0" * 16,
            "NoNewPrivs:",
            "1",
        ]


def test_attack_inherits_no_descriptor(stand: Stand) -> None:
    """14: a command and a built-in have 0, 1, 2 and the one that lists them."""
    source = "print(sorted(map(int, os.listdir('/proc/self/fd'))))"
    assert stand.python(source).out == "[0, 1, 2, 3]\n"
    assert stand.run([f"import os\n{source}".encode()], builtin="attack").out == "[0, 1, 2, 3]\n"


def test_attack_cannot_reopen_its_stdin_for_writing(stand: Stand) -> None:
    """15: a read-only descriptor of a host file that the command's uid owns stays read-only, by Landlock."""
    target = stand.file(stand.base / f"stdin{stand.next_id()}", "host")
    fd = os.open(target, os.O_RDONLY)
    result = stand.python("""
print(opening("/proc/self/fd/0", os.O_WRONLY), opening("/dev/stdin", os.O_WRONLY | os.O_TRUNC))
print(attempt(os.truncate, "/proc/self/fd/0", 0), attempt(os.ftruncate, 0, 0))
""", stdin=fd)  # fmt: skip
    protocol.close((fd,))
    if result.launched is not None and result.launched.report.landlock_abi >= 3:
        assert set(result.out.split()) <= {"EACCES", "EINVAL"}
        assert target.read_text() == "host"


def test_attack_cannot_truncate_system_files(stand: Stand) -> None:
    """16: truncate needs no open."""
    result = stand.python(
        "print(attempt(os.truncate, '/usr/bin/env', 0), attempt(os.truncate, '/etc/passwd', 0))"
    )
    assert set(result.out.split()) <= {"EACCES", "EROFS"}


def test_attack_fills_only_its_own_tmp(stand: Stand) -> None:
    """17: /tmp has a size and a number of inodes; files have a largest size."""
    profile = Profile(tmp_bytes=1 << 20, tmp_inodes=64)
    result = stand.python("""
def fill():
    with open("/tmp/big", "wb", buffering=0) as file:
        while file.write(b"x" * 65536): pass
print(attempt(fill)); os.unlink("/tmp/big")
def nodes():
    for i in range(1000): os.close(os.open(f"/tmp/n{i}", os.O_CREAT | os.O_WRONLY))
print(attempt(nodes))
""", profile=profile)  # fmt: skip
    assert result.out.split() == ["ENOSPC", "ENOSPC"]


def test_attack_does_not_see_the_hosts_shared_memory(stand: Stand) -> None:
    """18: /dev/shm is the sandbox's own."""
    probe = Path(f"/dev/shm/homeostat-test-{os.getpid()}")
    probe.write_text("host")
    try:
        assert stand.shell("ls -A /dev/shm").out == ""
    finally:
        probe.unlink()


def test_attack_cannot_write_kernel_files(stand: Stand) -> None:
    """23, 24, 25: core_pattern, sysrq, kcore, kallsyms, kmsg, and the sysctls of one's own network
    namespace.
    """
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    result = stand.python("""
for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/modprobe",
             "/proc/sys/net/ipv4/ip_forward", "/proc/sys/user/max_user_namespaces",
             "/proc/self/oom_score_adj",
             "/proc/self/uid_map", "/proc/self/setgroups"):
    print(path, opening(path, os.O_WRONLY))
for path in ("/proc/kcore", "/proc/kmsg", "/dev/kmsg", "/dev/mem"):
    print(path, opening(path, os.O_RDONLY))
print("kallsyms", len(open("/proc/kallsyms").read()), "keys", len(open("/proc/keys").read()))
""")
    *acts, last = result.out.splitlines()
    assert {line.split()[1] for line in acts} <= {"EACCES", "EPERM", "ENOENT"}, result.out
    assert last == "kallsyms 0 keys 0"
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_attack_finds_no_cgroup_files(stand: Stand) -> None:
    """26: /sys is not there: no release_agent, no cgroup.procs."""
    result = stand.shell("ls /sys; find / -name release_agent -o -name cgroup.procs 2>/dev/null | head; true")
    assert "No such file" in result.out
    assert len(result.out.splitlines()) == 1


def test_attack_cannot_uncover_what_is_below_proc(stand: Stand) -> None:
    """27: unmounting /proc, the masks or the workspace is refused, by the filter and by the namespaces'
    owners.
    """
    result = stand.python("""
for path in (b"/proc", b"/proc/kallsyms", b"/workspace", b"/"):
    print(call(166, path, 2))
""")
    assert set(result.out.split()) == {"EPERM"}


def test_attack_meets_no_other_sandbox(stand: Stand) -> None:
    """63, 64: two sandboxes have their own /tmp, processes, System V IPC and abstract names; no stage is in
    sight.
    """
    first = stand.shell("echo mine > /tmp/x; ipcmk -M 4096 >/dev/null; ls /tmp")
    second = stand.shell("ls /tmp /dev/shm; ipcs -m | grep -c 0x; ls /proc | grep -cE '^[0-9]+$'")
    assert first.out == "x\n"
    lines = second.out.splitlines()
    assert "x" not in lines
    assert lines[-2] == "0"
    assert int(lines[-1]) <= 5
    assert stand.shell(f"ls {stand.base}").code != 0
