"""Attacks on the kernel's interface and on the network: the errno or the signal is asserted. x86-64
numbers.
"""

import contextlib
import os
import platform
import signal
import socket

import pytest

from tests.sandbox.stand import Stand

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers below are x86-64's")


@pytest.mark.parametrize(
    ("act", "answer"),
    [
        # 28: more namespaces
        ("call(272, 0x10000000)", "EPERM"),  # unshare(CLONE_NEWUSER)
        ("call(272, 0x00020000)", "EPERM"),  # unshare(CLONE_NEWNS)
        ("call(56, 0x10000000 | 17, 0, 0, 0, 0)", "EPERM"),  # clone(CLONE_NEWUSER)
        ("call(56, 0x20000000 | 17, 0, 0, 0, 0)", "EPERM"),  # clone(CLONE_NEWPID)
        ("call(435, ctypes.create_string_buffer(88), 88)", "ENOSYS"),  # clone3
        # 29: mounts
        ("call(165, b'none', b'/tmp', b'tmpfs', 0, b'')", "EPERM"),  # mount
        ("call(430, b'tmpfs', 0)", "EPERM"),  # fsopen
        ("call(429, -100, b'/tmp', -100, b'/workspace', 0)", "EPERM"),  # move_mount
        ("call(428, -100, b'/', 1)", "EPERM"),  # open_tree
        ("call(467, -100, b'/', 1, 0, 0)", "EPERM"),  # open_tree_attr
        ("call(442, -100, b'/', 0, ctypes.create_string_buffer(32), 32)", "EPERM"),  # mount_setattr
        # 30: other namespaces
        ("call(308, os.open('/proc/self/ns/net', os.O_RDONLY), 0)", "EPERM"),  # setns
        # 31: other roots
        ("call(161, b'/tmp')", "EPERM"),  # chroot
        ("call(155, b'/', b'/tmp')", "EPERM"),  # pivot_root
        # 32: tracing
        ("call(101, 16, 1, 0, 0)", "EPERM"),  # ptrace(PTRACE_ATTACH, PID 1)
        ("call(101, 0, 0, 0, 0)", "EPERM"),  # ptrace(PTRACE_TRACEME)
        # 33: others' memory and descriptors
        ("call(310, 1, 0, 0, 0, 0, 0)", "EPERM"),  # process_vm_readv
        ("call(311, 1, 0, 0, 0, 0, 0)", "EPERM"),  # process_vm_writev
        ("call(438, os.pidfd_open(1), 0, 0)", "EPERM"),  # pidfd_getfd
        # 34: machinery
        ("call(321, 0, 0, 0)", "EPERM"),  # bpf
        ("call(298, 0, 0, -1, -1, 0)", "EPERM"),  # perf_event_open
        ("call(323, 0)", "EPERM"),  # userfaultfd
        # 35
        ("call(425, 8, ctypes.create_string_buffer(120))", "ENOSYS"),  # io_uring_setup
        ("call(426, 0, 0, 0, 0, 0, 0)", "ENOSYS"),
        ("call(427, 0, 0, 0, 0)", "ENOSYS"),
        # 36: keyrings
        ("call(250, 0, -3, 1)", "EPERM"),  # keyctl
        ("call(248, b'user', b'a', b'b', 1, -3)", "EPERM"),  # add_key
        ("call(249, b'user', b'a', 0, -3)", "EPERM"),  # request_key
        # 38: typing into terminals; the last one hides the request in 64 bits
        ("call(16, 0, 0x5412, b'x')", "EPERM"),
        ("call(16, 0, 0x541C, b'x')", "EPERM"),
        ("call(16, 0, 0x100005412, b'x')", "EPERM"),
        ("call(16, 0, 0xFFFFFFFF0000541C, b'x')", "EPERM"),
        ("call(16, 0, 0x5401, ctypes.create_string_buffer(60))", "ENOTTY"),  # TCGETS passes
        # 39
        ("call(135, 0x0040000)", "EPERM"),  # personality(ADDR_NO_RANDOMIZE)
        ("call(135, 8)", "EPERM"),  # personality(PER_LINUX32)
        ("call(135, 0xFFFFFFFF)", "OK"),
        ("call(154, 0, 0, 0)", "EPERM"),  # modify_ldt
        # 42
        ("call(157, 35, 1, 0, 0, 0)", "EPERM"),  # prctl(PR_SET_MM)
        ("call(157, 0x59616D61, -1, 0, 0, 0)", "EPERM"),  # prctl(PR_SET_PTRACER)
        ("call(157, 38, 0, 0, 0, 0)", "EINVAL"),  # no_new_privs can't be taken back
        # handles, modules, clocks, host name, power
        ("call(303, -100, b'/', 0, 0, 0)", "EPERM"),  # name_to_handle_at
        ("call(304, 0, 0, 0)", "EPERM"),  # open_by_handle_at
        ("call(175, 0, 0, b'')", "EPERM"),  # init_module
        ("call(246, 0, 0, 0, 0)", "EPERM"),  # kexec_load
        ("call(169, 0xfee1dead, 672274793, 0, 0)", "EPERM"),  # reboot
        ("call(170, b'x', 1)", "EPERM"),  # sethostname
        ("call(103, 3, 0, 0)", "EPERM"),  # syslog
        # numbers of the future and the number that means none
        ("call(470)", "ENOSYS"),
        ("call(1000)", "ENOSYS"),
        ("call(-1)", "ENOSYS"),
        # 47: kinds of sockets
        ("attempt(socket.socket, 40, 1)", "EPERM"),  # VSOCK
        ("attempt(socket.socket, 17, 3)", "EPERM"),  # PACKET
        ("attempt(socket.socket, 38, 5)", "EPERM"),  # ALG
        ("attempt(socket.socket, 2, 3, 1)", "EPERM"),  # raw INET
        ("attempt(socket.socket, 10, 3, 58)", "EPERM"),  # raw INET6
        ("attempt(socket.socket, 16, 3, 9)", "EPERM"),  # NETLINK_AUDIT
        ("attempt(socket.socket, 16, 3, 12)", "EPERM"),  # NETLINK_NETFILTER
        ("attempt(socket.socket, 16, 3, 0)", "OK"),  # NETLINK_ROUTE
        ("attempt(socket.socket, 29, 3, 1)", "EPERM"),  # CAN
        ("attempt(socket.socket, 31, 5)", "EPERM"),  # BLUETOOTH
        ("attempt(socket.socket, 44, 3)", "EPERM"),  # XDP
    ],
)  # fmt: skip
def test_attack_call_is_answered(stand: Stand, act: str, answer: str) -> None:
    """28 to 36, 38, 39, 42, 47: each call gives exactly this errno."""
    result = stand.python(f"print({act})")
    assert result.out == answer + "\n"


@pytest.mark.parametrize("number", [0x40000000 | 1, 0x40000000 | 39, 0x40000200])
def test_attack_by_x32_is_killed(stand: Stand, number: int) -> None:
    """37: the x32 bit is a foreign architecture."""
    assert stand.python(f"print(call({number}, 1, b'x', 1))").signal == signal.SIGSYS


def test_attack_by_32_bit_entry_is_killed(stand: Stand) -> None:
    """37: int 0x80 from a page of our own: getpid of the 32-bit table."""
    result = stand.python("""
import mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
print("survived", ctypes.CFUNCTYPE(ctypes.c_int)(address)())
""")
    # Without CONFIG_IA32_EMULATION the kernel answers with SIGSEGV before any filter is asked.
    assert result.signal in {signal.SIGSYS, signal.SIGSEGV}
    assert "survived" not in result.out


def test_attack_cannot_signal_outside(stand: Stand) -> None:
    """32: PID 1 can't be killed from inside, and kill(-1) reaches only one's own."""
    outside = os.getpid()
    result = stand.python(f"""
print(attempt(os.kill, 1, 9), attempt(os.kill, {outside}, 0))
print(os.path.exists("/proc/{outside}/status") and "same pid, other process" or "unseen")
""")
    assert result.code == 0
    assert result.out.split()[0] in {"OK", "EPERM"}
    assert stand.run([b"true"]).code == 0


def test_attack_cannot_reach_the_hosts_loopback(stand: Stand) -> None:
    """43: TCP and UDP, IPv4, IPv6 and mapped: a listener of the host hears nothing."""
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(("127.0.0.1", 0))
        tcp.setblocking(False)
        udp.setblocking(False)
        result = stand.python(f"""
port, uport = {tcp.getsockname()[1]}, {udp.getsockname()[1]}
def dial(family, host, port):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(2); s.connect((host, port))
print(attempt(dial, 2, "127.0.0.1", port),
      attempt(dial, 10, "::ffff:127.0.0.1", port), attempt(dial, 2, "0.0.0.0", port))
print(attempt(dial, 2, "192.0.2.1", 80),
      attempt(dial, 2, "169.254.169.254", 80), attempt(dial, 10, "2001:db8::1", 80))
with socket.socket(2, socket.SOCK_DGRAM) as s:
    s.sendto(b"x", ("127.0.0.1", uport))
""")
        first, second = result.out.splitlines()
        assert set(first.split()) == {"ECONNREFUSED"}
        assert set(second.split()) <= {"ENETUNREACH", "EADDRNOTAVAIL"}
        for listener, hear in ((tcp, tcp.accept), (udp, lambda: udp.recv(1))):
            with contextlib.suppress(BlockingIOError):
                hear()
                pytest.fail(f"{listener} was reached")


def test_attack_cannot_reach_an_abstract_socket(stand: Stand) -> None:
    """46: abstract names belong to the network namespace."""
    name = f"\0homeostat-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        result = stand.python(
            f"s = socket.socket(1); print(attempt(s.connect, {name!r})); print(attempt(s.bind, {name!r}))"
        )
    assert result.out.split() == ["ECONNREFUSED", "OK"]


def test_attack_cannot_reach_a_path_socket_of_the_host(stand: Stand) -> None:
    """44, 45: what is not in the root can't be named; streams and datagrams alike."""
    path = stand.base / f"s{stand.next_id()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        path.chmod(0o777)
        result = stand.python(f"""
print(attempt(socket.socket(1, 1).connect, {str(path)!r}))
print(attempt(socket.socket(1, 2).sendmsg, [b"x"], [], 0, {str(path)!r}))
""")
    assert result.out.split() == ["ENOENT", "ENOENT"]


def test_attack_finds_no_interface_but_loopback(stand: Stand) -> None:
    """43: the network namespace is empty."""
    assert stand.python("print(socket.if_nameindex())").out.count("'") == 2
