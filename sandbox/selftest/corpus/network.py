"""Attacks over the network and local sockets: to reach the host, or to be reached.

Owns: numbers 43 to 47 of the corpus. Those of the courier (47 to 53, where they need one) are tested beside it.
Must not know: how attacks are run and told.
Invariant: nothing is dialled but listeners of the ground, on the loopback or by path.
Source: the numbers of the corpus; unix(7), ip(7), vsock(7).
"""

# ruff: noqa: E501, S104, S108 (an attack is one expression a line; its paths and addresses are the point)

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..case import Act, Answer, Case
from ..ground import Ground

_SHUT: Final = (
    "ECONNREFUSED",
    "ENETUNREACH",
    "EADDRNOTAVAIL",
    "EHOSTUNREACH",
    "EPERM",
    "EACCES",
    "EAFNOSUPPORT",
)
_NO_PATH: Final = ("ENOENT", "EACCES", "EPERM", "ECONNREFUSED")
_NO_KIND: Final = ("EPERM", "EACCES")

_DIAL: Final = """
def dial(family, host, name, kind=socket.SOCK_STREAM, protocol=0):
    if name not in PORTS: return "EAFNOSUPPORT"
    with socket.socket(family, kind, protocol) as made:
        made.settimeout(2)
        made.connect((host, PORTS[name]))
        return "reached"
def send(family, host, name, flags=0, kind=socket.SOCK_DGRAM):
    "What is sent into the void raises nothing: the listener of the host tells."
    if name not in PORTS: return "EAFNOSUPPORT"
    with socket.socket(family, kind) as made:
        made.settimeout(2)
        made.sendto(b"attacked", flags, (host, PORTS[name]))
        return "sent"
"""


def _workspace_socket(ground: Ground) -> Mapping[str, Any]:
    """A socket of some agent of the user's, in the workspace itself."""
    path = ground.workspace / "agent"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    ground.give(path)
    path.chmod(0o777)
    listener.setblocking(False)
    ground.sockets["workspace"] = listener
    return {}


def _workspace_socket_gone(ground: Ground) -> Iterable[Answer]:
    listener = ground.sockets.pop("workspace")
    with listener:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return [Answer("its listener", "silent", ("silent",))]
        return [Answer("its listener", "reached", ("silent",))]


class _Caller(threading.Thread):
    """Dials a port of the host's loopback again and again for a moment, as a browser would be made to."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.reached, self.stop = port, False, False

    def run(self) -> None:
        while not self.stop:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 0.1) as made,
            ):
                self.reached = self.reached or made.recv(8) == b"attacked"
            time.sleep(0.01)


_callers: dict[int, _Caller] = {}


def _call_in(ground: Ground) -> Mapping[str, Any]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    caller = _callers[id(ground)] = _Caller(port)
    caller.start()
    return {"PORT": port}


def _called_in(ground: Ground) -> Iterable[Answer]:
    caller = _callers.pop(id(ground))
    caller.stop = True
    caller.join()
    yield Answer("dial into the sandbox", "reached" if caller.reached else "silent", ("silent",))


CASES: Final = (
    Case(
        "host-loopback-tcp", (43,), "the host's loopback over TCP", "network namespace",
        vehicles=("command", "builtin"), setup=_DIAL,
        acts=(
            *(Act(f"IPv4 {host}", f"dial(2, {host!r}, 'tcp')", _SHUT) for host in ("127.0.0.1", "0.0.0.0", "2130706433", "0x7f.1")),
            Act("IPv6", "dial(10, '::1', 'tcp6')", _SHUT),
            Act("mapped", "dial(10, '::ffff:127.0.0.1', 'tcp')", _SHUT),
            Act("MPTCP", "dial(2, '127.0.0.1', 'tcp', protocol=262)", (*_SHUT, "EPROTONOSUPPORT", "EINVAL", "ENOPROTOOPT")),
            Act("TCP fast open", "send(2, '127.0.0.1', 'tcp', 0x20000000, socket.SOCK_STREAM)", (*_SHUT, "EOPNOTSUPP", "EINPROGRESS")),
        ),
    ),
    Case(
        "host-loopback-udp", (43,), "the host's loopback over UDP", "network namespace", setup=_DIAL,
        acts=(
            Act("IPv4", "send(2, '127.0.0.1', 'udp')", ("sent", *_SHUT)),
            Act("IPv6", "send(10, '::1', 'udp6')", ("sent", *_SHUT)),
            Act("mapped", "send(10, '::ffff:127.0.0.1', 'udp')", ("sent", *_SHUT)),
        ),
    ),
    Case(
        "interfaces", (43, 79), "an interface besides the own loopback", "network namespace",
        acts=(
            Act("names", "','.join(name for _, name in socket.if_nameindex() if name != 'lo') or 'none'", ("none", "EPERM")),
            Act("routes", "str(len(reading('/proc/net/route').splitlines()) > 1)", ("False", "ENOENT")),
        ),
    ),
    Case(
        "path-sockets", (44, 45), "sockets by path: stream, datagram, sendmsg", "mount namespace",
        vehicles=("command", "builtin"),
        setup="""
def pass_descriptor(many):
    "CVE class: a filter of connect and sendto that forgets sendmsg."
    with socket.socket(1, 2) as made:
        if many:
            made.setblocking(False)
            words = ctypes.create_string_buffer(b"attacked")
            name = ctypes.create_string_buffer(struct.pack("H", 1) + (OUTSIDE + "/datagram").encode() + b"\\0")
            part = ctypes.create_string_buffer(struct.pack("2Q", ctypes.addressof(words), 8))
            head = ctypes.create_string_buffer(struct.pack("QIxxxxQQQQixxxxIxxxx", ctypes.addressof(name), len(name) - 1,
                ctypes.addressof(part), 1, 0, 0, 0, 0))
            ctypes.set_errno(0)
            if libc.sendmmsg(made.fileno(), head, 1, 0) < 0:
                raise OSError(ctypes.get_errno(), "sendmmsg")
        else:
            made.sendmsg([b"attacked"], [(1, 1, struct.pack("i", 0))], 0, OUTSIDE + "/datagram")
        return "sent"
""",
        acts=(
            Act("stream", "socket.socket(1, 1).connect(OUTSIDE + '/stream')", _NO_PATH),
            Act("datagram, connected", "socket.socket(1, 2).connect(OUTSIDE + '/datagram')", _NO_PATH),
            Act("datagram, sendto", "socket.socket(1, 2).sendto(b'x', OUTSIDE + '/datagram') and 'sent'", _NO_PATH),
            Act("datagram, sendmsg with a descriptor", "pass_descriptor(False)", _NO_PATH),
            Act("datagram, sendmmsg", "pass_descriptor(True)", _NO_PATH),
            Act("a pair that sends to it", "socket.socketpair(1, 2)[0].sendto(b'x', OUTSIDE + '/datagram') and 'sent'",
                (*_NO_PATH, "EISCONN")),
            *(Act(path, f"socket.socket(1, 1).connect({path!r})", _NO_PATH)
              for path in ("/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/private",
                           "/run/containerd/containerd.sock", "/tmp/.X11-unix/X0", "/run/nscd/socket")),
        ),
    ),
    Case(
        "workspace-socket", (44, 80), "an agent's socket in the workspace", "stage",
        prepare=_workspace_socket, examine=_workspace_socket_gone,
        acts=(Act("connect", "socket.socket(1, 1).connect('agent')", _NO_PATH),),
    ),
    Case(
        "abstract-sockets", (46,), "abstract sockets of the host", "network namespace",
        vehicles=("command", "builtin"),
        acts=(
            Act("stream", "socket.socket(1, 1).connect(ABSTRACT + 'stream')", _SHUT),
            Act("datagram", "socket.socket(1, 2).sendto(b'x', ABSTRACT + 'datagram') and 'sent'", _SHUT),
            Act("sendmsg", "socket.socket(1, 2).sendmsg([b'x'], [], 0, ABSTRACT + 'datagram') and 'sent'", _SHUT),
        ),
    ),
    Case(
        "socket-kinds", (47,), "kinds of sockets that no command needs", "seccomp", vehicles=("command", "builtin"),
        acts=tuple(
            Act(name, f"socket.socket({family}, {kind}, {protocol}).close()", _NO_KIND)
            for name, family, kind, protocol in (
                ("VSOCK", 40, 1, 0), ("PACKET", 17, 3, 0), ("ALG", 38, 5, 0), ("raw IPv4", 2, 3, 1), ("raw IPv6", 10, 3, 58),
                ("NETLINK_AUDIT", 16, 3, 9), ("NETLINK_NETFILTER", 16, 3, 12), ("NETLINK_XFRM", 16, 3, 6),
                ("NETLINK_GENERIC", 16, 3, 16), ("NETLINK_KOBJECT_UEVENT", 16, 3, 15), ("CAN", 29, 3, 1), ("BLUETOOTH", 31, 5, 0),
                ("XDP", 44, 3, 0), ("KEY", 15, 3, 2), ("RDS", 21, 5, 0), ("TIPC", 30, 1, 0), ("NFC", 39, 1, 0), ("SMC", 43, 1, 0),
                ("KCM", 41, 2, 0), ("QIPCRTR", 42, 2, 0), ("X25", 9, 5, 0), ("AX25", 3, 5, 0), ("APPLETALK", 5, 2, 0),
                ("PPPOX", 24, 2, 0), ("LLC", 26, 1, 0), ("IUCV", 32, 1, 0), ("RXRPC", 33, 2, 2), ("PHONET", 35, 5, 0),
            )
        ),
    ),
    Case(
        "transports", (81,), "rare transports over IP, which load modules", "seccomp", like="CVE-2017-6074, CVE-2021-23133",
        acts=tuple(
            Act(f"{name} over IPv{version}", f"socket.socket({family}, {kind}, {protocol}).close()", _NO_KIND)
            for family, version in ((2, 4), (10, 6))
            for name, kind, protocol in (("SCTP", 1, 132), ("SCTP packets", 5, 132), ("DCCP", 6, 33), ("L2TP", 2, 115),
                                         ("UDP-Lite", 2, 136))
        ),
    ),
    Case(
        "tcp-ulp", (89,), "put the kernel's own TLS above TCP", "seccomp", like="CVE-2023-0461",
        setup="""
def upper(name):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as made:
        made.setsockopt(socket.IPPROTO_TCP, 31, name)
""",
        acts=(Act("TLS", "upper(b'tls')"), Act("a name that nobody has", "upper(b'homeostat')")),
    ),
    Case(
        "called-from-outside", (82,), "a server inside, called from the host", "network namespace",
        prepare=_call_in, examine=_called_in,
        setup="""
def serve():
    with socket.create_server(("0.0.0.0", PORT)) as server:
        server.settimeout(0.25)
        end = time.monotonic() + 0.25
        try:
            while time.monotonic() < end:
                made, _ = server.accept()
                made.sendall(b"attacked"); made.close()
        except TimeoutError:
            pass  # refused or over: the examination tells
        return "served"
""",
        acts=(Act("serve", "serve()", ("served", "EPERM", "EACCES", "EADDRNOTAVAIL")),),
    ),
    Case(
        "shared-memory", (83,), "the host's System V shared memory", "ipc namespace",
        setup="""
def attach():
    found = libc.shmget(MEMORY_KEY, 4096, 0)
    if found < 0: raise OSError(ctypes.get_errno(), "shmget")
    return "found"
""",
        acts=(Act("find it", "attach()", ("ENOENT", "EPERM", "EACCES", "ENOSYS")),
              Act("in /proc", "str(MEMORY_KEY).encode() in reading('/proc/sysvipc/shm') and 'seen' or 'unseen'",
                  ("unseen", "ENOENT", "EACCES"))),
    ),
)  # fmt: skip
